"""Every check can fail: attacks that are wrong in one way each, and the check that says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

from assay.attacks import PGD, Attack
from assay.errors import AccessError, SettingError
from assay.goals import Untargeted
from assay.oracle import Access
from assay.testing import CHECKS, Case, ContractError, check_attack
from assay.testing.case import audit, same
from assay.testing.problems import Affine
from assay.threats import L0, Linf, Threat


@dataclass(frozen=True, kw_only=True)
class Wrong(Attack):
    """Plain ascent with one mistake, chosen by name."""

    threat: Threat
    mistake: str = "none"

    access: ClassVar[Access] = Access.GRADIENTS

    def run(self, oracle, x, goal, rng):
        threat, mistake = self.threat, self.mistake
        if mistake == "one budget for the batch":
            threat = threat.with_eps(float(threat.budget(x).min()))
        step, theta = threat.budget(x) / 4, threat.identity(x)
        if mistake == "does nothing":
            return theta
        if mistake == "global noise":
            theta = threat.project(x, torch.randn(x.shape).to(x) * step.mean())
        if mistake == "noise by batch":
            generator = torch.Generator().manual_seed(0)
            theta = threat.project(x, torch.randn(x.shape, generator=generator).to(x) * step.mean())
        for _ in range(8):
            _, grad, _ = oracle.gradient(theta)
            if mistake == "batch mean":
                grad = grad + 10 * grad.nan_to_num().mean(0, keepdim=True)
            if mistake == "wrong way":
                grad = -grad
            if mistake == "asks in secret":
                oracle.model(threat.apply(x, theta))
            if mistake == "trains":
                oracle.model.train()
            if mistake == "learns":
                with torch.enable_grad():
                    oracle.model(threat.apply(x, theta)).sum().backward()
            if mistake == "writes into x":
                x.add_(0.001).clamp_(*threat.bounds)
            theta = threat.ascend(x, theta, grad, step)
            if mistake == "clips to one":
                theta = (x + theta).clamp(0, 1) - x
            if mistake != "never projects":
                theta = threat.project(x, theta)
            if mistake == "stops at bounds":
                theta = torch.where((x == threat.bounds[0]) | (x == threat.bounds[1]), 0, theta)
            if mistake == "images only":
                theta = theta.permute(0, 2, 3, 1).permute(0, 3, 1, 2)
            if mistake == "seeds":
                torch.manual_seed(0)
            if oracle.finished:
                return theta
        oracle.judge(theta)
        return theta


CAUGHT = {
    "does nothing": "wins_beyond_the_exact_radius",
    "wrong way": "wins_beyond_the_exact_radius",
    "global noise": "same_seed_same_result",
    "noise by batch": "batches_and_order_do_not_matter",
    "batch mean": "batches_and_order_do_not_matter",
    "one budget for the batch": "one_budget_per_sample",
    "asks in secret": "counts_are_true",
    "trains": "model_is_left_as_it_was",
    "learns": "model_is_left_as_it_was",
    "writes into x": "inputs_are_not_modified",
    "clips to one": "other_bounds",
    "never projects": "training_moves_are_allowed_and_help",
    "stops at bounds": "values_at_the_bounds_can_move",
    "images only": "odd_shapes_and_class_numbers",
    "seeds": "global_random_state_is_untouched",
}


IN_L0 = ("does nothing", "wrong way", "noise by batch", "one budget for the batch", "clips to one", "stops at bounds")


@pytest.mark.parametrize("mistake", IN_L0)
def test_mistakes_are_caught_where_sizes_are_counts(mistake):
    with pytest.raises(ContractError):
        CHECKS[CAUGHT[mistake]](Case(factory=lambda threat: Wrong(threat=threat, mistake=mistake), norm="l0"))


@pytest.mark.parametrize("check", sorted({CAUGHT[mistake] for mistake in IN_L0}))
def test_the_same_attack_without_the_mistake_passes_there(check):
    CHECKS[check](Case(factory=lambda threat: Wrong(threat=threat), norm="l0"))


def test_the_audit_counts_features_and_pixels():
    problem = Affine(classes=4)
    x, y = problem.inputs(8, dtype=torch.float64)
    model = problem.model(torch.float64)
    for unit in ("feature", "pixel"):
        result = PGD(threat=L0(3, unit=unit))(model, x, y)
        assert result.success.any()
        audit(result, model, x, y, L0(3, unit=unit))
        with pytest.raises(ContractError, match="leaves the l0 ball"):
            audit(result, model, x, y, L0(float(result.distance[result.success].max()) - 1, unit=unit))
        with pytest.raises(ContractError, match="distance is"):
            audit(replace(result, distance=result.distance + 1), model, x, y, L0(3, unit=unit))


@pytest.mark.parametrize("mistake", CAUGHT)
def test_a_mistake_is_caught_by_its_check(mistake):
    with pytest.raises(ContractError):
        CHECKS[CAUGHT[mistake]](Case(factory=lambda threat: Wrong(threat=threat, mistake=mistake), norm="linf"))


@pytest.mark.parametrize("check", sorted(set(CAUGHT.values())))
def test_the_same_attack_without_the_mistake_passes(check):
    CHECKS[check](Case(factory=lambda threat: Wrong(threat=threat), norm="linf"))


@dataclass(frozen=True, kw_only=True)
class Knowing(Attack):
    """The nearest point behind the boundary of the affine problem that checks use, or a multiple of that move."""

    threat: Threat
    stretch: float = 1 + 1e-9

    access: ClassVar[Access] = Access.GRADIENTS

    def run(self, oracle, x, goal, rng):
        problem = Affine(classes=oracle.clean().shape[1])
        theta = self.stretch * (problem.optimum(x, goal.classes, self.threat.name) - x)
        if self.stretch > 2:  # too many features
            theta = theta.where(theta != 0, 1e-3)
        oracle.judge(theta)
        return theta


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
def test_only_smallest_moves_pass_as_such(norm):
    def check(minimum, **settings):
        case = Case(factory=lambda threat: Knowing(threat=threat, **settings), norm=norm, minimum=minimum)
        CHECKS["finds_the_smallest"](case)

    check(1.001 if norm != "l0" else 1.0)
    check(None, stretch=0.0)
    for far in (0.0, 3.0):  # does nothing; goes too far
        with pytest.raises(ContractError, match=r"times the exact one, at most 1\.01 was promised"):
            check(1.01, stretch=far)


def test_a_distance_below_the_exact_one_is_caught(monkeypatch):
    """Without the audit, which knows no exact distances, to see that this check sees it too."""
    monkeypatch.setattr("assay.testing.checks.outcome.audit", lambda *_: None)
    monkeypatch.setattr(Linf, "size", lambda self, x, theta: 0.9 * theta.flatten(1).abs().amax(1))
    with pytest.raises(ContractError, match="below the exact one"):
        CHECKS["finds_the_smallest"](Case(factory=lambda threat: Knowing(threat=threat), norm="linf", minimum=1.01))


@dataclass(kw_only=True)
class Thawed(Attack):
    threat: Threat
    access: ClassVar[Access] = Access.GRADIENTS
    run = Wrong.run


@dataclass(frozen=True, kw_only=True)
class Modest(Attack):
    threat: Threat
    mistake: str = "none"
    access: ClassVar[Access] = Access.SCORES
    run = Wrong.run


class Thawing:
    """An attack that puts the root's mode back, and with it that of all submodules."""

    def __init__(self, attack):
        self.attack = attack

    def __call__(self, model, *args, **options):
        training = model.training
        result = self.attack(model, *args, **options)
        model.train(training)
        return result


def test_thawing_a_frozen_module_is_caught():
    with pytest.raises(ContractError, match="'frozen' was False and is now True"):
        CHECKS["frozen_modules_stay_frozen"](Case(factory=lambda threat: Thawing(Wrong(threat=threat)), norm="linf"))


def test_settings_that_can_change_are_caught():
    with pytest.raises(ContractError, match="frozen"):
        CHECKS["settings_are_frozen"](Case(factory=lambda threat: Thawed(threat=threat), norm="l2"))


def test_asking_for_more_than_declared_is_caught():
    with pytest.raises(AccessError):
        CHECKS["access_is_declared"](Case(factory=lambda threat: Modest(threat=threat), norm="linf"))


@pytest.mark.parametrize(
    ("field", "spoil", "message"),
    [
        ("x_adv", lambda v: v + 0.01, "bounds|ball|clean"),
        ("x_adv", lambda v: v * float("nan"), "NaN"),
        ("x_adv", lambda v: v.float(), "float64"),
        ("x_adv", lambda v: v.clone().requires_grad_(), "detached"),
        ("success", lambda v: ~v, "success"),
        ("success", lambda v: torch.ones_like(v), "success is claimed"),
        ("distance", lambda v: v * 0.9, "distance"),
        ("distance", lambda v: torch.zeros_like(v), "inf"),
        ("prediction", lambda v: v + 1, "prediction"),
        ("forwards", lambda v: v.float(), "int64"),
    ],
)
def test_the_audit_finds_every_false_claim(field, spoil, message):
    problem = Affine(classes=4)
    x, y = problem.inputs(8, dtype=torch.float64)
    model, threat = problem.model(torch.float64), Linf(float(problem.distance(x, y, "linf").median()) * 1.2)
    result = PGD(threat=threat)(model, x, y)
    assert 0 < result.success.sum() < 8
    audit(result, model, x, Untargeted(y), threat)
    with pytest.raises(ContractError, match=message):
        audit(replace(result, **{field: spoil(getattr(result, field))}), model, x, Untargeted(y), threat)


def test_different_results_are_told_apart():
    problem = Affine(classes=4)
    x, y = problem.inputs(4)
    result = PGD(threat=Linf(0.05))(problem.model(), x, y)
    same("a run with itself", result, result)
    with pytest.raises(ContractError, match="forwards differs"):
        same("two runs", result, replace(result, forwards=result.forwards + 1))


def test_all_broken_rules_are_reported_at_once():
    names = ["wins_beyond_the_exact_radius", "other_bounds", "counts_are_true"]
    with pytest.raises(ContractError) as caught:
        check_attack(lambda threat: Wrong(threat=threat, mistake="wrong way"), norms=["linf", "l2"], only=names)
    text = str(caught.value)
    assert "breaks 4 rules" in text
    for part in ("[linf] wins_beyond", "[l2] wins_beyond", "[linf] other_bounds", "[l2] other_bounds"):
        assert part in text
    assert "counts_are_true" not in text


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"norms": []}, "norms is empty"),
        ({"norms": ["linf", "l3"]}, "norms has the unknown 'l3'"),
        ({"only": []}, "only is empty"),
        ({"only": ["counts_are_tru"]}, "only has the unknown 'counts_are_tru'"),
    ],
)
def test_nothing_to_check_is_no_pass(settings, says):
    with pytest.raises(SettingError, match=says):
        check_attack(lambda threat: PGD(threat=threat, steps=1), **settings)
