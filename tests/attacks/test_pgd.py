"""What is PGD's own: the far points that it judges on the way."""

from __future__ import annotations

import pytest
import torch

import assay
from assay.attacks import BIM, FGSM, MIFGSM, PGD
from assay.testing.problems import Affine

PROBLEM = Affine(shape=(3, 4, 4), classes=2)


def spent(make, factor):
    """Passes on each of 8 samples at a multiple of their exact radius in Linf."""
    x, y = PROBLEM.inputs(8, seed=0, dtype=torch.float64)
    threat = assay.Linf(factor * PROBLEM.distance(x, y, "linf"), bounds=PROBLEM.bounds)
    result = make(threat=threat)(PROBLEM.model(torch.float64), x, y)
    return result.success, result.forwards, result.backwards


def test_one_gradient_is_enough_where_the_direction_is_right_at_once():
    success, forwards, backwards = spent(PGD, 1.05)
    assert success.all()
    assert forwards.eq(3).all()  # clean, start, far point
    assert backwards.eq(1).all()
    success, _, backwards = spent(lambda threat: PGD(threat=threat, look_ahead=False), 1.05)
    assert success.all()
    assert backwards.gt(10).all()


def test_a_failure_costs_one_pass_for_each_power_of_two():
    success, forwards, backwards = spent(PGD, 0.95)
    assert not success.any()
    assert forwards.eq(1 + 40 + 6 + 1).all()
    assert backwards.eq(40).all()


@pytest.mark.parametrize("make", [FGSM, BIM, MIFGSM])
def test_the_older_attacks_judge_their_own_points_alone(make):
    steps = make(threat=assay.Linf(0.1)).steps
    _, forwards, _ = spent(make, 0.5)
    assert forwards.eq(1 + steps + 1).all()
