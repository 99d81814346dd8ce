"""Goals: who reached what, with and without a confidence."""

from __future__ import annotations

import pytest
import torch

import assay
from assay.attacks import PGD
from assay.errors import SettingError
from assay.goals import Targeted, Untargeted
from assay.oracle import Oracle
from assay.testing.problems import Affine

Z = torch.tensor([[3.0, 1.0, 0.0], [1.0, 3.0, 0.0], [1.0, 1.4, 0.0]])
ZEROS, ONES = torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64)


@pytest.mark.parametrize("goal", [Untargeted(ZEROS), Targeted(ONES), Targeted(ONES, ZEROS)])
def test_confidence_asks_for_a_margin(goal):
    assert goal.reached(Z).tolist() == [False, True, True]
    sure = goal.with_confidence(0.5)
    assert sure.reached(Z).tolist() == [False, True, False]
    assert goal.with_confidence(0.39).reached(Z).tolist() == [False, True, True]
    assert sure.at(torch.tensor([1, 2])).reached(Z[1:]).tolist() == [True, False]
    assert sure.to(torch.device("cpu")).confidence == 0.5


@pytest.mark.parametrize("confidence", [-1.0, float("inf"), float("nan")])
def test_a_confidence_is_a_number(confidence):
    with pytest.raises(SettingError, match="confidence"):
        Untargeted(ZEROS, confidence=confidence)


def test_the_referee_judges_by_the_confidence():
    problem = Affine(classes=2)
    x, y = problem.inputs(8, dtype=torch.float64)
    attack = PGD(threat=assay.Linf(1.2 * problem.distance(x, y, "linf")))
    model = problem.model(torch.float64)
    for confidence in (0.0, 0.05):
        result = attack(model, x, Untargeted(y, confidence=confidence))
        assert result.success.any()
        sure = (model(result.x_adv[result.success]).diff(dim=1).abs() >= confidence).all()
        assert sure
    assert not attack(model, x, Untargeted(y, confidence=100.0)).success.any()


def test_training_keeps_the_smallest_move_only_when_asked():
    problem = Affine(classes=2)
    x, y = problem.inputs(4, dtype=torch.float64)
    oracle = Oracle(problem.model(torch.float64), x, Untargeted(y), assay.L2(), referee=False)
    direction = torch.ones_like(x)
    oracle.gradient(direction)
    assert oracle.best_distance.isinf().all()
    assert torch.equal(oracle.best_x, x)
    oracle.track()
    _, grad, _ = oracle.gradient(torch.zeros_like(x))
    far, near = (oracle.threat.ascend(x, torch.zeros_like(x), grad, torch.full((4,), s).double()) for s in (2.0, 1.5))
    for theta in (far, near):
        output = oracle.scores(theta)
        reached = oracle.goal.reached(output)
        assert reached.any()
        expected = torch.where(reached, oracle.threat.size(x, theta), torch.inf)
        assert (oracle.best_distance <= expected).all()
    assert torch.equal(oracle.best_distance[reached], oracle.threat.size(x, near)[reached])
    assert oracle.record.forwards.eq(0).all()
    assert not oracle.finished
