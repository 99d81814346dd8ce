"""Of the changed units as few are kept as are enough, at the price of a bisection."""

from __future__ import annotations

import torch

import assay
from assay.attacks.fewer_units import try_fewer
from assay.goals import Untargeted
from assay.oracle import Oracle
from assay.testing.problems import Affine, Sparse


def after(problem, threat, move, x, y):
    oracle = Oracle(problem.model(torch.float64), x, Untargeted(y), threat)
    oracle.scores(move)
    before = oracle.best_distance.clone()
    try_fewer(oracle, threat)
    return before, oracle


def test_equal_features_are_told_apart():
    problem = Sparse(needed=3, bounds=(-2.0, 3.0))
    x, y = problem.inputs(4, dtype=torch.float64)
    move = torch.zeros_like(x).flatten(1)
    move[:, problem.counting()] = 2.6 * (1 - 2 * y.double())[:, None]
    before, oracle = after(problem, assay.L0(bounds=(-2.0, 3.0)), move.reshape(x.shape), x, y)
    assert before.tolist() == [5.0] * 4
    assert oracle.best_distance.tolist() == [3.0] * 4
    assert oracle.record.backwards.tolist() == [1] * 4
    assert (oracle.record.forwards <= 2 + 3 * 3).all()


def test_an_affine_margin_needs_no_more_than_its_exact_count():
    problem = Affine(classes=2, shape=(1, 8, 8))
    x, y = problem.inputs(6, dtype=torch.float64)
    move = problem.optimum(x, y, "linf") - x
    move = 1.01 * move  # just beyond the boundary, with nearly every feature
    before, oracle = after(problem, assay.L0(), move, x, y)
    assert (before > 30).all()
    assert torch.equal(oracle.best_distance, problem.distance(x, y, "l0"))


def test_nothing_is_asked_where_nothing_is_known():
    problem = Affine()
    x, y = problem.inputs(3, dtype=torch.float64)
    _, oracle = after(problem, assay.L0(), torch.zeros_like(x), x, y)
    assert oracle.best_distance.isinf().all()
    assert oracle.record.forwards.tolist() == [1] * 3
