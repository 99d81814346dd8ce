"""What is PGD's own: the far points that it judges on the way."""

from __future__ import annotations

import pytest
import torch

import assay
from assay.attacks import BIM, FGSM, MIFGSM, PGD
from assay.errors import SettingError
from assay.rng import Keyed
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


def test_a_random_start_is_of_any_length_where_the_ball_is_all_edge():
    x = torch.full((400, 500), 0.5, dtype=torch.float64)
    goal = torch.zeros(400, dtype=torch.int64)

    def moves(threat):
        attack = PGD(threat=threat, steps=1, rel_step=1e-9)
        return attack.perturb(torch.nn.Linear(500, 3).double(), x, goal, seed=3) - x

    found = moves(assay.L2(0.2))
    size = found.norm(dim=1)
    assert size.max() <= 0.2
    assert size.mean() == pytest.approx(0.1, abs=4 * 0.2 / 12**0.5 / 400**0.5)
    assert size.std() == pytest.approx(0.2 / 12**0.5, rel=0.1)
    unit = found / size[:, None]
    assert (unit[:-1] * unit[1:]).sum(dim=1).abs().mean() < 0.1  # each has its own direction
    assert moves(assay.Linf(0.2)).abs().amax(dim=1).min() > 0.19  # the other balls are as they were


def test_a_start_near_the_input_is_normal_noise_of_that_size_inside_the_threat():
    x = torch.full((4, 500), 0.5, dtype=torch.float64)
    model = torch.nn.Linear(500, 3).double()
    goal, index = torch.zeros(4, dtype=torch.int64), torch.tensor([5, 6, 7, 8])

    def moves(threat, **settings):
        attack = PGD(threat=threat, steps=1, rel_step=1e-9, **settings)
        return attack.perturb(model, x, goal, seed=3, index=index) - x

    noise = Keyed(3, index, dtype=torch.float64).normal(500)
    torch.testing.assert_close(moves(assay.Linf(0.1), start_noise=0.001), 0.001 * noise, rtol=0, atol=1e-9)
    assert moves(assay.Linf(0.1)).std() > 0.05  # uniform over the ball without it
    near = moves(assay.Linf(0.001), start_noise=0.001)
    assert near.abs().amax() <= 0.001 + 1e-12
    assert 0.2 < (near.abs() > 0.000999).double().mean() < 0.45  # those beyond one standard deviation
    assert moves(assay.L2(0.01), start_noise=0.001).norm(dim=1).max() <= 0.01 + 1e-12


@pytest.mark.parametrize("settings", [{"start_noise": 0.0}, {"start_noise": 0.1, "random_start": False}])
def test_noise_that_makes_no_start_is_refused(settings):
    with pytest.raises(SettingError, match="start_noise"):
        PGD(threat=assay.Linf(0.1), **settings)
