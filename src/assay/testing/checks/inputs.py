"""Checks over what an attack may be given: types, shapes, bounds, budgets."""

from __future__ import annotations

import torch

from assay.errors import AssayError, ThreatError
from assay.testing.case import Case, audit, fail, rounding, where
from assay.testing.problems import Affine

SHAPES = ((1, 1, 1), (1,), (5,), (2, 3, 7), (1, 9, 2), (3, 1, 1), (2, 2, 2, 2))


def types_and_device_are_kept(case: Case) -> None:
    """float32 stays float32, float64 stays float64, on the device of the inputs."""
    for dtype in (torch.float32, torch.float64):
        at = case.setting(3, dtype=dtype)
        attack = case.attack(case.reach * at.exact)
        audit(attack(at.model, at.x, at.y), at.model, at.x, at.y, attack.threat)
        moved = attack.perturb(at.model, at.x, at.y)
        if moved.dtype != dtype or moved.device != at.x.device:
            fail(f"perturb turned {dtype} on {at.x.device} into {moved.dtype} on {moved.device}")


def odd_shapes_and_class_numbers(case: Case) -> None:
    """1x1 images, vectors, one value, five axes, 2 and 3 classes: a right result, or an error with a name."""
    worked = 0
    for place, shape in enumerate(SHAPES):
        for classes, n in ((2, 1), (3, 3)) if place % 2 else ((2, 3), (3, 1)):
            at = case.setting(n, shape=shape, classes=classes)
            attack = case.attack(case.reach * at.exact)
            try:
                result = attack(at.model, at.x, at.y)
            except AssayError as error:
                if len(str(error)) < 20:
                    fail(f"the error for inputs of shape {shape} and {classes} classes explains nothing: {error}")
            except Exception as error:
                fail(
                    f"inputs of shape {shape}, {classes} classes, batch of {n}: {type(error).__name__}: {error}. "
                    "Raise a named error (assay.errors) where the method cannot work"
                )
            else:
                worked += 1
                audit(result, at.model, at.x, at.y, attack.threat)
    if worked == 0:
        fail("not one of the odd shapes was accepted")


def values_at_the_bounds_can_move(case: Case) -> None:
    """Inputs whose values all lie exactly at the bounds are attacked like others."""
    problem = Affine(classes=2)
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(0, 2, (40, 3, 4, 4), generator=generator).double()
    model = problem.model(torch.float64)
    y = model(x).argmax(1).detach()
    exact = problem.distance(x, y, case.norm)
    keep = (exact > exact.median()).nonzero().flatten()[:8]
    x, y, exact = x[keep], y[keep], exact[keep]
    attack = case.attack(case.reach * exact)
    result = attack(model, x, y)
    audit(result, model, x, y, attack.threat)
    if float(result.success.double().mean()) < case.share:
        fail(
            f"with every value at a bound {int(result.success.sum())} of 8 samples fell at {case.reach} times the "
            "exact radius: values at a bound do not move, or the gradient vanishes there"
        )


def other_bounds(case: Case) -> None:
    """Bounds (-2, 3) and (0, 255) instead of (0, 1)."""
    for bounds in ((-2.0, 3.0), (0.0, 255.0)):
        at = case.setting(bounds=bounds)
        attack = case.attack(case.reach * at.exact, bounds)
        result = attack(at.model, at.x, at.y)
        audit(result, at.model, at.x, at.y, attack.threat)
        if float(result.success.double().mean()) < case.share:
            fail(
                f"with bounds {bounds} {int(result.success.sum())} of 8 samples fell at {case.reach} times the exact "
                "radius: a step or a clamp assumes [0, 1]"
            )


def one_budget_per_sample(case: Case) -> None:
    """A tensor eps gives each sample its own ball, the same as each alone with its number."""
    at = case.setting()
    eps = torch.where(torch.arange(8) % 2 == 0, case.within(at.exact, 0.9), case.reach * at.exact)
    attack = case.attack(eps)
    result = attack(at.model, at.x, at.y)
    audit(result, at.model, at.x, at.y, attack.threat)
    if bool(result.success[::2].any()):
        fail(f"a sample with a budget below its exact radius was won ({where(result.success)})")
    for i in range(4):
        one = case.attack(float(eps[i]))(at.model, at.x[i : i + 1], at.y[i : i + 1], index=torch.tensor([i]))
        if bool(one.success[0] != result.success[i]):
            fail(f"sample {i} with eps {float(eps[i]):g} alone and in a batch with other budgets differ")


def zero_budget(case: Case) -> None:
    """With eps = 0 nothing moves, nothing is won and nothing becomes NaN."""
    at = case.setting(4)
    attack = case.attack(0.0)
    result = attack(at.model, at.x, at.y)
    audit(result, at.model, at.x, at.y, attack.threat)
    if bool(result.success.any()):
        fail("a success was claimed with eps = 0")
    if float((attack.perturb(at.model, at.x, at.y) - at.x).abs().max()) > rounding(at.x, (0.0, 1.0)):
        fail("perturb moves the inputs with eps = 0")


def no_budget(case: Case) -> None:
    """Without eps an attack looks for the smallest move, honestly and two-sided, or says that it needs a budget."""
    at = case.setting(4)
    try:
        attack = case.attack(None)
        result = attack(at.model, at.x, at.y)
    except ThreatError:
        return
    audit(result, at.model, at.x, at.y, attack.threat)
    if bool((result.distance < at.exact * (1 - 1e-6)).any()):
        fail("a distance below the exact one was claimed")
    if bool((result.distance > case.reach * at.exact).any()):
        fail(f"without eps the smallest move found is over {case.reach} times the exact distance")
