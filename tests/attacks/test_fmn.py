"""FMN: what it does not share with DDN (`test_guided_searches`): units, the scale of logits, the ends of runs."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import assay
from assay.attacks import FMN
from assay.errors import SettingError, ThreatError
from assay.testing.case import THREATS, exact_within
from assay.testing.problems import Affine, Sparse
from assay.threats import L0, L1, L2, Linf

NORMS = ("linf", "l2", "l1", "l0")
PAPER = {"targets": 0, "loss": "margin", "alpha": 1.0, "reach": 1.0, "give_up": None, "polish": 0, "gamma": 0.05}


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_the_nearest_class_is_found_though_another_has_the_larger_logit(norm):
    """Class 1 is 0.2 behind with a small gradient; class 2 is 1 behind with a large one, and nearer."""
    weight = torch.zeros(3, 16)
    weight[1, 0], weight[2, 1:] = 0.5, 8.0
    model = nn.Linear(16, 3)
    model.load_state_dict({"weight": weight, "bias": torch.tensor([4.2, 3.75, -56.8])})
    x, y = torch.full((2, 16), 0.5), torch.tensor([0, 0])
    settings = {"threat": THREATS[norm](), "steps": 40, "polish": 0, "loss": "margin"}
    near, far = FMN(targets=1, **settings)(model, x, y), FMN(targets=0, **settings)(model, x, y)
    assert near.prediction.eq(2).all()
    assert far.prediction.eq(1).all()
    assert (near.distance < far.distance).all()


def test_pixels_are_exact_too():
    problem = Affine(shape=(3, 4, 4), classes=2)
    model, (x, y) = problem.model(), problem.inputs(8)
    weight, bias = problem.weights()
    normal = (weight[1 - y] - weight[y]).reshape(x.shape)
    gap = -((normal * x).flatten(1).sum(1) + bias[1 - y] - bias[y])
    gain = (normal * torch.where(normal > 0, 1 - x, -x)).sum(1).flatten(1).sort(1, descending=True).values.cumsum(1)
    result = FMN(threat=L0(unit="pixel"), steps=40)(model, x, y)
    assert torch.equal(result.distance.double(), (gain < gap[:, None]).sum(1) + 1.0)


def test_sparse_features_are_found():
    problem = Sparse(shape=(3, 10, 10), needed=4)
    x, y = problem.inputs(4)
    assert FMN(threat=L0(), steps=30)(problem.model(), x, y).distance.eq(4).all()


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("norm", NORMS)
def test_the_scale_of_the_logits_does_not_matter(norm, scale):
    """Neither squares of tiny gradients nor exponentials of large logits decide."""
    problem = Affine(classes=2)
    x, y = problem.inputs(8)
    model = problem.model()
    with torch.no_grad():
        model[1].weight.mul_(scale)
        model[1].bias.mul_(scale)
    result = FMN(threat=THREATS[norm](), steps=30)(model, x, y)
    exact_within(result, problem.distance(x, y, norm), 1.0 if norm == "l0" else 1.01)


@pytest.mark.parametrize("threat", [Linf, L2, L1])
def test_a_first_radius_without_end_is_that_of_the_farthest_corner(threat):
    problem = Affine(classes=2)
    x, y = problem.inputs(8)
    result = FMN(threat=threat(), steps=200, reach=1e30, polish=0)(problem.model(), x, y)
    exact_within(result, problem.distance(x, y, threat.name))


def test_runs_that_lead_nowhere_end_half_way_and_nothing_is_lost():
    problem = Affine(classes=5)
    x, y = problem.inputs(8, dtype=torch.float64)
    leaving, staying = (
        FMN(threat=Linf(), steps=40, give_up=give_up)(problem.model(torch.float64), x, y) for give_up in (1.5, None)
    )
    assert torch.equal(leaving.distance, staying.distance)
    assert staying.backwards.min() >= 5 * 40
    assert leaving.backwards.double().mean() < 0.9 * 5 * 40


def test_several_runs_find_less_on_a_network_than_one_long_run_of_the_paper():
    model, data = assay.load_model("digits-mlp"), assay.load_data("digits", limit=30)
    several, paper = (
        FMN(threat=Linf(), **settings)(model, data.x, data.y) for settings in ({}, PAPER | {"steps": 700})
    )
    assert several.forwards.double().mean() < paper.forwards.double().mean()
    assert several.distance.mean() < 0.95 * paper.distance.mean()


@pytest.mark.parametrize(
    "settings",
    [
        {"gamma": 0.0},
        {"gamma": 1.0},
        {"rel_step": 0.0},
        {"alpha": -1.0},
        {"reach": float("inf")},
        {"alpha": 1.0, "rel_step": 1.0},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        FMN(threat=L2(), **settings)


def test_other_threats_are_refused():
    with pytest.raises(ThreatError, match="Linf, L2, L1 and L0"):
        FMN(threat=None)
