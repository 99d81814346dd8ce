"""DDN: what it does not share with FMN (`test_guided_searches`): the grid of levels, models that are sure."""

from __future__ import annotations

import pytest
import torch

from assay.attacks import DDN
from assay.errors import SettingError, ThreatError
from assay.testing.case import exact_within
from assay.testing.problems import Affine
from assay.threats import L2, Linf

PAPER = {"targets": 0, "loss": "ce", "init_norm": 1.0, "alpha": 1.0, "give_up": None, "polish": 0}


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 3.0)])
def test_moved_inputs_lie_on_the_levels(bounds):
    problem, width = Affine(classes=2, bounds=bounds), bounds[1] - bounds[0]
    x, y = problem.inputs(8, dtype=torch.float64)
    x = bounds[0] + width * ((x - bounds[0]) / width * 255).round() / 255
    y = problem.model(torch.float64)(x).argmax(1)
    result = DDN(threat=L2(bounds=bounds), levels=256)(problem.model(torch.float64), x, y)
    assert result.success.all()
    level = (result.x_adv - bounds[0]) / width * 255
    assert (level - level.round()).abs().max() < 1e-9
    exact = problem.distance(x, y, "l2")
    exact_within(result, exact, 1.05)
    finer = DDN(threat=L2(bounds=bounds))(problem.model(torch.float64), x, y)
    assert (finer.distance < result.distance).all()


def test_a_model_that_is_sure_leaves_no_gradient_of_cross_entropy_but_falls():
    problem = Affine(classes=2)
    x, y = problem.inputs(8)
    model = problem.model()
    with torch.no_grad():
        model[1].weight.mul_(1e4)
        model[1].bias.mul_(1e4)
    exact_within(DDN(threat=L2(), steps=30)(model, x, y), problem.distance(x, y, "l2"))
    assert not DDN(threat=L2(), steps=30, **PAPER)(model, x, y).success.all()


@pytest.mark.parametrize(
    "settings",
    [
        {"gamma": 0.0},
        {"init_norm": 0.0},
        {"alpha": float("inf")},
        {"levels": 1},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        DDN(threat=L2(), **settings)


def test_other_threats_are_refused():
    with pytest.raises(ThreatError, match="FMN"):
        DDN(threat=Linf())
