"""The last stretch: from any move that wins to the boundary in a few gradients, and never back to a larger one."""

from __future__ import annotations

import pytest
import torch

from assay.attacks.polish import polish, polish_best
from assay.goals import Untargeted
from assay.losses import margin
from assay.oracle import Oracle
from assay.testing.case import THREATS, sizes
from assay.testing.problems import Affine, Quadratic

NORMS = ("linf", "l2", "l1")


def beyond(problem, norm, eps=None, n=8):
    """An oracle, and moves that win though they are far from the smallest: the best of another norm, and longer."""
    x, y = problem.inputs(n, dtype=torch.float64)
    oracle = Oracle(problem.model(torch.float64), x, Untargeted(y), THREATS[norm](eps, bounds=problem.bounds))
    oracle.judge_clean()
    other = "l1" if norm == "linf" else "linf"
    move = (x + 1.3 * (problem.optimum(x, y, other) - x)).clamp(*problem.bounds) - x
    return oracle, x, y, move


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 3.0)])
@pytest.mark.parametrize("norm", NORMS)
def test_an_affine_boundary_is_met_by_the_first_step(norm, bounds):
    problem = Affine(classes=2, bounds=bounds)
    oracle, x, y, move = beyond(problem, norm)
    moved = polish(oracle, x, oracle.goal, move, 0.0, 4, norm)
    exact = problem.distance(x, y, norm)
    assert (sizes(move, norm) > 1.05 * exact).all()
    assert (sizes(moved, norm) <= 1.001 * exact).all()
    assert (sizes(moved, norm) >= exact * (1 - 1e-9)).all()
    assert torch.equal(oracle.goal.reached(oracle.scores(moved)), torch.ones(8, dtype=torch.bool))


@pytest.mark.parametrize("side", ["inside", "outside"])
def test_a_curved_boundary_is_met_after_a_few(side):
    problem = Quadratic(shape=(2, 3, 3), side=side)
    x, y = problem.inputs(8, dtype=torch.float64)
    oracle = Oracle(problem.model(torch.float64), x, Untargeted(y), THREATS["l2"](bounds=problem.bounds))
    _, slope, _ = oracle.gradient(torch.zeros_like(x), margin)
    lengths = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None, None, None]  # along the sign, which is not best
    line = (x[:, None] + lengths * slope.sign()[:, None]).clamp(*problem.bounds) - x[:, None]
    with torch.no_grad():
        changed = problem.model(torch.float64)((x[:, None] + line).flatten(0, 1)).argmax(1).reshape(8, -1) != y[:, None]
    assert changed.any(dim=1).all()
    move, exact = line[torch.arange(8), changed.int().argmax(dim=1)], problem.distance(x, y, "l2")
    moved = polish(oracle, x, oracle.goal, move, 0.0, 20, "l2")
    assert (sizes(move, "l2") > 1.03 * exact).sum() >= 4
    assert (sizes(moved, "l2") <= 1.01 * exact).all()
    assert (sizes(moved, "l2") >= exact * (1 - 1e-9)).all()


def test_a_confidence_is_kept():
    oracle, x, _, move = beyond(Affine(classes=2), "l2")
    confidence = float(margin(oracle.scores(move), oracle.goal).min()) / 2
    moved = polish(oracle, x, oracle.goal, move, confidence, 6, "l2")
    reached = margin(oracle.scores(moved), oracle.goal)
    assert (reached >= confidence).all()
    assert (reached < 1.01 * confidence).all()


def test_fewer_than_two_gradients_change_nothing_and_cost_nothing():
    oracle, x, _, move = beyond(Affine(classes=2), "l2")
    before = oracle.record.forwards.clone()
    for rounds in (0, 1):
        assert torch.equal(polish(oracle, x, oracle.goal, move, 0.0, rounds, "l2"), move)
    assert torch.equal(oracle.record.forwards, before)


def test_the_best_known_move_is_what_is_polished():
    problem = Affine(classes=2)
    oracle, x, y, move = beyond(problem, "l2")
    oracle.scores(torch.where(torch.arange(8)[:, None, None, None] < 5, move, 0))
    polish_best(oracle, oracle.goal, 6, "l2")
    exact = problem.distance(x, y, "l2")
    assert (oracle.best_distance <= 1.001 * exact)[:5].all()
    assert oracle.best_distance[5:].isinf().all()
    assert oracle.record.backwards[5:].eq(0).all()
