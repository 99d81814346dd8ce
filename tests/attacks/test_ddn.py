"""DDN: exact on affine problems inside the box, on the grid where levels are asked for, sure models and all."""

from __future__ import annotations

import pytest
import torch

from assay.attacks import DDN
from assay.errors import SettingError, ThreatError
from assay.goals import Targeted, Untargeted
from assay.testing.case import audit, sizes
from assay.testing.problems import Affine, Quadratic
from assay.threats import L2, Linf

PAPER = {"targets": 0, "loss": "ce", "init_norm": 1.0, "alpha": 1.0, "give_up": None, "polish": 0}


def exact_within(result, exact, share=1.01):
    assert (result.distance >= exact * (1 - 1e-6)).all()
    assert (result.distance <= share * exact).all()


@pytest.mark.parametrize(("classes", "bounds"), [(2, (0.0, 1.0)), (5, (-2.0, 3.0))])
def test_exact_in_the_box(classes, bounds):
    problem = Affine(classes=classes, bounds=bounds)
    model, (x, y) = problem.model(torch.float64), problem.inputs(8, dtype=torch.float64)
    attack = DDN(threat=L2(bounds=bounds), steps=20, targets=1)
    targets = problem.targets(x, y, "l2")
    for goal, exact in (
        (Untargeted(y), problem.distance(x, y, "l2")),
        (Targeted(targets), problem.distance(x, y, "l2", targets)),
    ):
        whole = attack(model, x, goal)
        audit(whole, model, x, goal, attack.threat)
        exact_within(whole, exact)
        parts = [attack(model, x[p], goal.at(p)) for p in torch.arange(8).split([1, 3, 4])]
        torch.testing.assert_close(torch.cat([p.distance for p in parts]), whole.distance, rtol=1e-6, atol=0)


def test_the_search_itself_is_exact_without_polish():
    problem = Affine(classes=4)
    x, y = problem.inputs(8)
    result = DDN(threat=L2(), targets=1, steps=150, polish=0)(problem.model(), x, y)
    exact_within(result, problem.distance(x, y, "l2"))


def test_the_paper_s_own_search():
    problem = Affine(classes=2)
    x, y = problem.inputs(8)
    result = DDN(threat=L2(), steps=150, **PAPER)(problem.model(), x, y)
    exact_within(result, problem.distance(x, y, "l2"))
    assert result.forwards.eq(152).all()  # the clean input and the last move besides
    assert result.backwards.eq(150).all()


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


def test_a_curved_boundary():
    problem = Quadratic(shape=(2, 3, 3))
    x, y = problem.inputs(8, dtype=torch.float64)
    exact_within(DDN(threat=L2())(problem.model(torch.float64), x, y), problem.distance(x, y, "l2"))


def test_a_model_that_is_sure_leaves_no_gradient_of_cross_entropy_but_falls():
    problem = Affine(classes=2)
    x, y = problem.inputs(8)
    model = problem.model()
    with torch.no_grad():
        model[1].weight.mul_(1e4)
        model[1].bias.mul_(1e4)
    exact_within(DDN(threat=L2(), steps=30)(model, x, y), problem.distance(x, y, "l2"))
    assert not DDN(threat=L2(), steps=30, **PAPER)(model, x, y).success.all()


def test_the_range_of_the_inputs_does_not_matter():
    distances = []
    for bounds in ((0.0, 1.0), (0.0, 256.0)):
        problem = Affine(classes=3, bounds=bounds)
        x, y = problem.inputs(8, dtype=torch.float64)
        for settings in ({}, PAPER):
            attack = DDN(threat=L2(bounds=bounds), steps=20, **settings)
            distances.append(attack(problem.model(torch.float64), x, y).distance / bounds[1])
    torch.testing.assert_close(distances[:2], distances[2:], rtol=1e-5, atol=0)


def test_with_a_budget_a_sample_is_done_as_soon_as_it_is_inside():
    problem = Affine(classes=4)
    x, y = problem.inputs(8, dtype=torch.float64)
    exact, inside = problem.distance(x, y, "l2"), torch.arange(8) % 2 == 0
    attack = DDN(threat=L2(torch.where(inside, 1.2, 0.95) * exact), steps=60, targets=1)
    result = attack(problem.model(torch.float64), x, y)
    assert torch.equal(result.success, inside)
    assert result.backwards[inside].max() < 130
    assert result.backwards[~inside].eq(2 * 60 + 3).all()  # two runs, and three boundaries linearised


def test_training_returns_the_smallest_moves():
    problem = Affine(classes=2)
    x, y = problem.inputs(8, dtype=torch.float64)
    moved = DDN(threat=L2(), steps=30).perturb(problem.model(torch.float64), x, y)
    size, exact = sizes(moved - x, "l2"), problem.distance(x, y, "l2")
    assert (size >= exact).all()
    assert (size <= 1.01 * exact).all()


@pytest.mark.parametrize(
    "settings",
    [
        {"steps": 0},
        {"targets": -1},
        {"polish": -1},
        {"give_up": 0.5},
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
