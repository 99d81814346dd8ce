"""Checks of what an attack claims: honest results, and no more and no less than is possible."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, is_dataclass

import torch

from assay.errors import AssayError
from assay.goals import Targeted
from assay.oracle import Access
from assay.testing.case import Case, audit, fail, rounding, sizes, targeted, where
from assay.testing.problems import Constant


def settings_are_frozen(case: Case) -> None:
    """An attack is a frozen dataclass with a threat and a declared access, and equal settings make equal attacks."""
    attack = case.attack(0.1)
    if not is_dataclass(attack):
        fail(f"{type(attack).__name__} is not a dataclass; write @dataclass(frozen=True, kw_only=True)")
    try:
        setattr(attack, fields(attack)[0].name, None)
    except FrozenInstanceError:
        pass
    else:
        fail(f"{type(attack).__name__} can be changed after it was made; write @dataclass(frozen=True, kw_only=True)")
    if not isinstance(getattr(type(attack), "access", None), Access):
        fail("the class attribute `access` must say what the attack asks: Access.LABELS, SCORES or GRADIENTS")
    if attack != case.attack(0.1) or hash(attack) != hash(case.attack(0.1)):
        fail("two attacks with equal settings are not equal")


def result_is_honest(case: Case) -> None:
    """Inside threat and bounds; success, distance and prediction are what the model says when it is asked again."""
    for dtype in (torch.float64, torch.float32):
        at = case.setting(dtype=dtype)
        attack = case.attack(at.middle)
        audit(attack(at.model, at.x, at.y), at.model, at.x, at.y, attack.threat)


def targeted_result_is_honest(case: Case) -> None:
    """Success towards a target is that target, beyond the exact radius and never within it; or a named refusal."""
    at = case.setting()
    goal, exact = targeted(at, case)
    if not case.targeted:
        try:
            case.attack(0.1)(at.model, at.x, goal)
        except AssayError:
            return
        fail("the attack says that it takes no targets, but accepted some")
    eps = torch.where(torch.arange(len(exact)) % 2 == 0, case.within(exact), case.reach * exact)
    attack = case.attack(eps)
    result = attack(at.model, at.x, goal)
    audit(result, at.model, at.x, goal, attack.threat)
    if bool(result.success[::2].any()):
        fail("a targeted success was claimed below the exact radius, where none exists")
    if float(result.success[1::2].double().mean()) < case.share:
        fail(f"at {case.reach} times the exact radius {int(result.success[1::2].sum())} of 4 targets were reached")


def wins_beyond_the_exact_radius(case: Case) -> None:
    """At `reach` times the exact radius of an affine problem at least `share` of the samples fall."""
    at = case.setting(16)
    attack = case.attack(case.reach * at.exact)
    result = attack(at.model, at.x, at.y)
    audit(result, at.model, at.x, at.y, attack.threat)
    if float(result.success.double().mean()) < case.share:
        fail(
            f"at {case.reach} times the exact radius {int(result.success.sum())} of 16 samples fell, at least "
            f"{case.share:.0%} must: the search is too weak, or moves in the wrong direction"
        )


def never_wins_within_the_exact_radius(case: Case) -> None:
    """At 0.95 of the exact radius (L0: one feature less) nothing can succeed, so nothing may claim to."""
    for bounds in ((0.0, 1.0), (-2.0, 3.0)):
        at = case.setting(bounds=bounds)
        attack = case.attack(case.within(at.exact), bounds)
        result = attack(at.model, at.x, at.y)
        audit(result, at.model, at.x, at.y, attack.threat)
        if bool(result.success.any()):
            fail(f"a success was claimed below the exact radius, where none exists ({where(result.success)})")


def finds_the_smallest(case: Case) -> None:
    """Without eps distances are at most `minimum` times the exact ones, never below; not checked when it is None."""
    if case.minimum is None:
        return
    attack = case.attack(None)
    for classes in (2, 4):
        at = case.setting(classes=classes)
        result = attack(at.model, at.x, at.y)
        audit(result, at.model, at.x, at.y, attack.threat)
        below = result.distance < at.exact * (1 - 1e-6)
        if bool(below.any()):
            fail(f"with {classes} classes a distance below the exact one was claimed ({where(below)})")
        ratio = result.distance / at.exact
        far = ratio > case.minimum * (1 + 1e-9)
        if bool(far.any()):
            fail(
                f"with {classes} classes and no eps the distance is up to {float(ratio.max()):.4g} times the exact "
                f"one, at most {case.minimum:g} was promised ({where(far)})"
            )


def cannot_change_a_constant_model(case: Case) -> None:
    """Against scores that do not depend on the input every success is false."""
    problem = Constant()
    x, y = problem.inputs(4)
    for goal in (y, Targeted(torch.zeros_like(y))) if case.targeted else (y,):
        attack = case.attack(case.wide)
        result = attack(problem.model(), x, goal)
        audit(result, problem.model(), x, goal, attack.threat)
        if bool(result.success.any()):
            fail("a success was claimed against a model whose output never changes")


def wrong_from_the_start_is_distance_zero(case: Case) -> None:
    """A sample that reaches the goal already is a success at distance 0, asked once and never again."""
    at = case.setting()
    y = at.y.clone()
    y[::2] = (y[::2] + 1) % 4
    attack = case.attack(at.middle)
    result = attack(at.model, at.x, y)
    audit(result, at.model, at.x, y, attack.threat)
    wrong = torch.arange(8) % 2 == 0
    if not bool((result.distance[wrong] == 0).all()):
        fail("a sample that is wrong from the start must have distance 0")
    if not torch.equal(result.x_adv[wrong], at.x[wrong]):
        fail("a sample that is wrong from the start must come back unchanged")
    if bool((result.forwards[wrong] != 1).any() or (result.backwards[wrong] != 0).any()):
        fail(
            "a sample that is wrong from the start must cost one forward pass; it cost "
            f"{result.forwards[wrong].tolist()} forwards and {result.backwards[wrong].tolist()} backwards"
        )


def training_moves_are_allowed_and_help(case: Case) -> None:
    """`perturb` stays inside threat and bounds, gives the same for the same seed, and lowers the margin."""
    at = case.setting()
    eps = case.reach * at.exact
    attack = case.attack(eps)
    moved = attack.perturb(at.model, at.x, at.y, seed=3)
    if moved.requires_grad or moved.dtype != at.x.dtype or moved.shape != at.x.shape:
        fail(f"perturb must return detached inputs like x, got {moved.dtype} of shape {tuple(moved.shape)}")
    if float(moved.min()) < 0 or float(moved.max()) > 1:
        fail("perturb leaves the bounds")
    if bool((sizes(moved - at.x, case.norm) > eps + rounding(at.x, (0.0, 1.0), case.norm)).any()):
        fail("perturb leaves the ball")
    if not torch.equal(moved, attack.perturb(at.model, at.x, at.y, seed=3)):
        fail("perturb gives another result for the same seed")
    with torch.no_grad():
        before, after = (at.model(x).log_softmax(1).gather(1, at.y[:, None]) for x in (at.x, moved))
    if float((after < before).double().mean()) < min(case.share, 0.75):
        fail("perturb does not lower the right class's probability")
