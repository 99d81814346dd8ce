"""DDN: what it does not share with FMN (`test_guided_searches`): the grid of levels, models that are sure."""

from __future__ import annotations

import math

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


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_steps_fall_along_a_cosine_to_a_hundredth(alpha):
    """As the numbers of the paper say: all of the first length at the start, half of it half-way, 1/100 at the end."""
    attack, norm = DDN(threat=L2(bounds=(-2.0, 3.0)), steps=40, alpha=alpha), torch.tensor([0.2, 3.0])
    first = norm if alpha is None else torch.full_like(norm, 5 * alpha)
    for k, share in ((0, 1.0), (20, 0.505), (40, 0.01)):
        torch.testing.assert_close(attack._length(norm, k), share * first)
    lengths = torch.stack([attack._length(norm, k) for k in range(41)])
    assert (lengths.diff(dim=0) < 0).all()


def test_the_search_asks_for_steps_that_fall(monkeypatch):
    problem, asked = Affine(classes=2), []
    x, y = problem.inputs(4, dtype=torch.float64)
    ascend = L2.ascend

    def watched(self, x, theta, grad, step):
        asked.append(step)
        return ascend(self, x, theta, grad, step)

    monkeypatch.setattr(L2, "ascend", watched)
    DDN(threat=L2(), steps=10, alpha=1.0, targets=0, give_up=None, polish=0)(problem.model(torch.float64), x, y)
    shares = torch.stack(asked)[:, 0]
    assert len(shares) == 10
    expected = [0.01 + 0.99 * (1 + math.cos(math.pi * k / 10)) / 2 for k in range(10)]
    torch.testing.assert_close(shares, torch.tensor(expected).to(shares))
