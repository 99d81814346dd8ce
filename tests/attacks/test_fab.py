"""FAB: exact on affine problems inside the box, in every norm; and no work for samples that are done."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import assay
from assay.attacks import FAB, DeepFool
from assay.errors import SettingError, ThreatError
from assay.goals import Targeted, Untargeted
from assay.losses import margin
from assay.testing.case import THREATS, audit, sizes
from assay.testing.models import curved
from assay.testing.problems import Affine
from assay.threats import L2, Linf

NORMS = ("linf", "l2", "l1")


def affine(classes, bounds=(0.0, 1.0), n=8, dtype=torch.float64):
    problem = Affine(classes=classes, bounds=bounds)
    x, y = problem.inputs(n, dtype=dtype)
    return problem, problem.model(dtype), x, y


def bent(n=16):
    model = curved(48, 5, (0.0, 1.0))
    x, _ = Affine(classes=5).inputs(n, dtype=torch.float64)
    return model, x, model(x).argmax(1).detach()


def exact_within(result, exact, share=1.01):
    assert (result.distance >= exact * (1 - 1e-6)).all()
    assert (result.distance <= share * exact).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("classes", "bounds"), [(2, (0.0, 1.0)), (5, (-2.0, 3.0))])
def test_exact_in_the_box(norm, classes, bounds):
    problem, model, x, y = affine(classes, bounds)
    attack = FAB(threat=THREATS[norm](bounds=bounds), steps=8)
    targets = problem.targets(x, y, norm)
    for goal, exact in (
        (Untargeted(y), problem.distance(x, y, norm)),
        (Targeted(targets), problem.distance(x, y, norm, targets)),
    ):
        whole = attack(model, x, goal)
        audit(whole, model, x, goal, attack.threat)
        exact_within(whole, exact)
        for size in (1, 3):
            parts = [attack(model, x[p], goal.at(p)) for p in torch.arange(8).split(size)]
            torch.testing.assert_close(torch.cat([p.x_adv for p in parts]), whole.x_adv)


@pytest.mark.parametrize("norm", NORMS)
def test_exact_in_float32(norm):
    problem, model, x, y = affine(5, dtype=torch.float32)
    exact_within(FAB(threat=THREATS[norm](), steps=8)(model, x, y), problem.distance(x, y, norm))


@pytest.mark.parametrize("norm", NORMS)
def test_class_by_class_is_exact_too(norm):
    problem, model, x, y = affine(4)
    result = FAB(threat=THREATS[norm](), steps=8, targets=9)(model, x, y)
    exact_within(result, problem.distance(x, y, norm))
    one = FAB(threat=THREATS[norm](), steps=8, targets=1)(model, x, y)
    assert (one.distance >= result.distance * (1 - 1e-6)).all()
    assert (one.backwards == 8).all()
    assert (result.backwards == 24).all()


def test_backward_passes_are_one_for_each_class_or_one_for_a_target():
    _, model, x, y = affine(5)
    for settings, goal, backwards in (
        ({}, y, 4 * 6),
        ({"candidates": 3}, y, 2 * 6),
        ({"targets": 2}, y, 2 * 6),
        ({"restarts": 3}, y, 3 * 4 * 6),
        ({}, Targeted((y + 1) % 5), 6),
    ):
        result = FAB(threat=L2(), steps=6, **settings)(model, x, goal)
        assert (result.backwards == backwards).all()


@pytest.mark.parametrize("targets", [None, 4])
def test_samples_inside_eps_are_left_alone(targets):
    """Other libraries go on shrinking moves that are inside already."""
    problem, model, x, y = affine(5)
    exact = problem.distance(x, y, "linf")
    eps = torch.where(torch.arange(8) % 2 == 0, 0.99, 1.1) * exact
    result = FAB(threat=Linf(eps), steps=20, targets=targets)(model, x, y)
    audit(result, model, x, y, Linf(eps))
    assert torch.equal(result.success, torch.arange(8) % 2 == 1)
    assert (result.backwards[1::2] < 80).all()
    assert (result.backwards[::2] == 80).all()
    if targets is None:
        assert (result.backwards[1::2] == 4).all()  # the first projection, 5 % too long, is inside


def test_the_final_search_finds_the_boundary_on_the_segment():
    """One step ends 5 % beyond; the secant steps take nearly all of it back, and cost four forward passes."""
    problem, model, x, y = affine(2)
    result = FAB(threat=L2(), steps=1)(model, x, y)
    exact = problem.distance(x, y, "l2")
    exact_within(result, exact, 1.01)
    assert (result.forwards == 1 + 2 + 4).all()


def test_the_final_search_can_be_what_brings_a_move_inside():
    problem, model, x, y = affine(2)
    exact = problem.distance(x, y, "l1")
    result = FAB(threat=THREATS["l1"](1.005 * exact), steps=8)(model, x, y)
    assert result.success.all()


def test_after_the_first_success_a_step_costs_one_forward_pass():
    """Clean, ten linearised, the first success judged, three secant steps, the last step judged, the final search."""
    _, model, x, y = affine(2)
    result = FAB(threat=L2(), steps=10)(model, x, y)
    assert (result.forwards == 1 + 10 + 1 + 3 + 1 + 4).all()
    assert (result.backwards == 10).all()


class Seen(nn.Module):
    """Remembers what it was asked."""

    def __init__(self, model):
        super().__init__()
        self.model, self.inputs = model, []

    def forward(self, x):
        self.inputs.append(x.detach().clone())
        return self.model(x)


def test_an_l1_step_goes_beyond_the_boundary_although_it_ends_at_bounds():
    _, base, x, y = affine(2)
    model, goal = Seen(base), Untargeted(y)
    FAB(threat=THREATS["l1"](), steps=1)(model, x, y)
    clean, _, judged = model.inputs[:3]
    assert ((judged == 0) | (judged == 1)).flatten(1).any(1).all()
    torch.testing.assert_close(margin(base(judged), goal), -0.05 * margin(base(clean), goal))


@pytest.mark.parametrize("norm", NORMS)
def test_the_overshoot_grows_with_misses_until_the_decision_changes(norm):
    """The boundary is a fifth further than it seems from wherever one stands: 5 % too long is never enough."""

    class Receding(nn.Module):
        def forward(self, x):
            gap = 0.5 - x.flatten(1).mean(1)
            value = torch.where(gap > 0, gap.detach() + 1.25 * (gap - gap.detach()), gap) - 1e-3
            return torch.stack([value, -value], dim=1)

    x, y = torch.full((2, 1, 2, 2), 0.1, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    assert FAB(threat=THREATS[norm](), steps=40)(Receding(), x, y).success.all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [None, 0.004])
def test_restarts_begin_at_half_the_best_distance_or_half_of_eps(norm, eps):
    problem = Affine(classes=2)
    x, _ = problem.inputs(64, dtype=torch.float64)
    x = 0.5 + 0.5 * (x - 0.5)
    base = problem.model(torch.float64)
    y = base(x).argmax(1).detach()
    keep = problem.distance(x, y, norm) > 2 * (eps or 0.002)
    x, y = x[keep][:4], y[keep][:4]
    model = Seen(base)
    FAB(threat=THREATS[norm](eps), steps=1, restarts=2)(model, x, y)
    clean, first, judged, start = model.inputs[:4]
    assert torch.equal(clean, first)
    reference = sizes(judged - x, norm) if eps is None else torch.full((4,), eps, dtype=torch.float64)
    torch.testing.assert_close(sizes(start - x, norm), reference / 2)
    assert not torch.equal(start[0] - x[0], start[1] - x[1])


def test_restarts_help_on_curved_models():
    model, x, y = bent()
    once, often = (FAB(threat=L2(), steps=10, restarts=restarts)(model, x, y) for restarts in (1, 4))
    assert (often.distance <= once.distance).all()
    assert (often.distance < once.distance).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_moves_are_smaller_than_those_of_deepfool(norm):
    model, x, y = bent()
    threat = THREATS[norm]()
    fab, deepfool = FAB(threat=threat, steps=20)(model, x, y), DeepFool(threat=threat)(model, x, y)
    assert fab.success.all()
    assert (fab.distance <= 1.01 * deepfool.distance).all()
    assert float(fab.distance.mean()) < 0.99 * float(deepfool.distance.mean())


def test_the_pull_towards_the_clean_input_does_not_keep_samples_from_the_boundary():
    """With an overshoot that stays at 5 %, some of these images circle in front of it for good."""
    model, data = assay.load_model("fashion-cnn-pgd"), assay.load_data("fashion-mnist", limit=12)
    assert FAB(threat=THREATS["l1"](), steps=20)(model, data.x, data.y).success.all()


@pytest.mark.parametrize("targets", [None, 2])
def test_confidence_is_reached_and_not_exceeded(targets):
    _, model, x, y = affine(4)
    goal = Untargeted(y, confidence=0.2)
    result = FAB(threat=L2(), steps=8, targets=targets)(model, x, goal)
    assert result.success.all()
    torch.testing.assert_close(margin(model(result.x_adv), goal), torch.full((8,), 0.2).double(), rtol=0.1, atol=0)


def test_training_gets_the_smallest_move_found():
    problem, model, x, y = affine(4)
    exact = problem.distance(x, y, "l2")
    moved = FAB(threat=L2(2 * exact), steps=8).perturb(model, x, y)
    assert (model(moved).argmax(1) != y).all()
    assert (sizes(moved - x, "l2") <= 1.01 * exact).all()
    near = FAB(threat=L2(0.5 * exact), steps=8).perturb(model, x, y)
    assert (sizes(near - x, "l2") <= 0.5 * exact * (1 + 1e-9)).all()


def test_mistakes_have_names():
    for settings in (
        {"steps": 0},
        {"restarts": 0},
        {"targets": 0},
        {"candidates": 1},
        {"candidates": 3, "targets": 3},
        {"alpha_max": 1.5},
        {"eta": 0.0},
        {"beta": 0.0},
    ):
        with pytest.raises(SettingError):
            FAB(threat=L2(), **settings)
    with pytest.raises(ThreatError):
        FAB(threat=None)


def test_one_target_leaves_none_to_choose():
    _, model, x, y = affine(4)
    aim = Targeted((y + 1) % 4, away=y)
    found, wanted = (FAB(threat=L2(), steps=10, targets=targets)(model, x, aim) for targets in (2, None))
    assert found.success.all()
    assert torch.equal(found.x_adv, wanted.x_adv)
