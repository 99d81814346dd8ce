"""DDN and FMN: exact on affine problems inside the box, whatever the range of the inputs, and frugal with a budget."""

from __future__ import annotations

import pytest
import torch

from assay.attacks import DDN, FMN
from assay.errors import SettingError
from assay.goals import Targeted, Untargeted
from assay.testing.case import THREATS, audit, exact_within, sizes
from assay.testing.problems import Affine, Quadratic

DENSE = [(DDN, "l2"), (FMN, "linf"), (FMN, "l2"), (FMN, "l1")]
SEARCHES = [*DENSE, (FMN, "l0")]
PAPER = {
    DDN: {"targets": 0, "loss": "ce", "init_norm": 1.0, "alpha": 1.0, "give_up": None, "polish": 0},
    FMN: {"targets": 0, "loss": "margin", "alpha": 1.0, "reach": 1.0, "give_up": None, "polish": 0, "gamma": 0.05},
}


@pytest.mark.parametrize(("search", "norm"), SEARCHES)
@pytest.mark.parametrize(("classes", "bounds"), [(2, (0.0, 1.0)), (5, (-2.0, 3.0))])
def test_exact_in_the_box(search, norm, classes, bounds):
    problem = Affine(classes=classes, bounds=bounds)
    model, (x, y) = problem.model(torch.float64), problem.inputs(8, dtype=torch.float64)
    attack = search(threat=THREATS[norm](bounds=bounds), steps=20, targets=1)
    targets = problem.targets(x, y, norm)
    for goal, exact in (
        (Untargeted(y), problem.distance(x, y, norm)),
        (Targeted(targets), problem.distance(x, y, norm, targets)),
    ):
        whole = attack(model, x, goal)
        audit(whole, model, x, goal, attack.threat)
        exact_within(whole, exact, 1.0 if norm == "l0" else 1.01)
        parts = [attack(model, x[p], goal.at(p)) for p in torch.arange(8).split([1, 3, 4])]
        torch.testing.assert_close(torch.cat([p.distance for p in parts]), whole.distance, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("search", "norm"), SEARCHES)
def test_the_search_itself_is_exact_without_polish(search, norm):
    problem = Affine(classes=4)
    x, y = problem.inputs(8)
    result = search(threat=THREATS[norm](), targets=1, steps=150, polish=0)(problem.model(), x, y)
    exact_within(result, problem.distance(x, y, norm), 1.0 if norm == "l0" else 1.01)


@pytest.mark.parametrize(("search", "norm"), SEARCHES)
def test_the_paper_s_own_search(search, norm):
    problem = Affine(classes=2)
    x, y = problem.inputs(8)
    result = search(threat=THREATS[norm](), steps=150, **PAPER[search])(problem.model(), x, y)
    exact_within(result, problem.distance(x, y, norm), 2.0 if norm == "l0" else 1.01)  # few units are not its strength
    assert result.forwards.eq(152).all()  # the clean input and the last move besides
    assert result.backwards.eq(150).all()


@pytest.mark.parametrize(("search", "norm"), DENSE[:3])
@pytest.mark.parametrize("side", ["inside", "outside"])
def test_a_curved_boundary(search, norm, side):
    problem = Quadratic(shape=(2, 3, 3), side=side)
    x, y = problem.inputs(8, dtype=torch.float64)
    exact_within(search(threat=THREATS[norm]())(problem.model(torch.float64), x, y), problem.distance(x, y, norm))


@pytest.mark.parametrize(("search", "norm"), DENSE)
def test_the_range_of_the_inputs_does_not_matter(search, norm):
    distances = []
    for bounds in ((0.0, 1.0), (0.0, 256.0)):
        problem = Affine(classes=3, bounds=bounds)
        x, y = problem.inputs(8, dtype=torch.float64)
        for settings in ({}, PAPER[search]):
            attack = search(threat=THREATS[norm](bounds=bounds), steps=20, **settings)
            distances.append(attack(problem.model(torch.float64), x, y).distance / bounds[1])
    assert torch.cat(distances).isfinite().all()
    torch.testing.assert_close(distances[:2], distances[2:], rtol=1e-5, atol=0)


@pytest.mark.parametrize(("search", "norm"), DENSE)
def test_with_a_budget_a_sample_is_done_as_soon_as_it_is_inside(search, norm):
    problem = Affine(classes=4)
    x, y = problem.inputs(8, dtype=torch.float64)
    model, exact = problem.model(torch.float64), problem.distance(x, y, norm)
    inside = torch.arange(8) % 2 == 0
    attack = search(threat=THREATS[norm](torch.where(inside, 1.2, 0.95) * exact), steps=60, targets=1)
    result = attack(model, x, y)
    assert torch.equal(result.success, inside)
    assert result.backwards[inside].max() < 130
    assert result.backwards[~inside].eq(2 * 60 + 3).all()  # two runs, and three boundaries linearised


@pytest.mark.parametrize("search", [DDN, FMN])
def test_training_returns_the_smallest_moves(search):
    problem = Affine(classes=2)
    x, y = problem.inputs(8, dtype=torch.float64)
    moved = search(threat=THREATS["l2"](), steps=30).perturb(problem.model(torch.float64), x, y)
    size, exact = sizes(moved - x, "l2"), problem.distance(x, y, "l2")
    assert (size >= exact).all()
    assert (size <= 1.01 * exact).all()


@pytest.mark.parametrize("search", [DDN, FMN])
@pytest.mark.parametrize("settings", [{"steps": 0}, {"targets": -1}, {"polish": -1}, {"give_up": 0.5}])
def test_settings_out_of_range_are_refused(search, settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        search(threat=THREATS["l2"](), **settings)
