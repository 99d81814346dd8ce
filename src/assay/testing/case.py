"""What a check is given, how it says what is wrong, and the audit that every result must pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, final

import torch
from torch import Tensor, nn

from assay.goals import Goal, Targeted, Untargeted
from assay.testing.problems import Affine, Norm
from assay.threats import L0, L1, L2, Linf, Threat

if TYPE_CHECKING:
    from assay.attacks.base import Attack, Result

Factory: TypeAlias = "Callable[[Threat], Attack]"
THREATS: dict[str, type[Threat]] = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
_ORDER = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}
_WIDE = {"linf": 0.05, "l2": 0.3, "l1": 1.5, "l0": 6.0}


class ContractError(AssertionError):
    """An attack broke its contract; the message says which rule, what was found and where to look."""


@final
@dataclass(frozen=True, kw_only=True)
class Case:
    """One attack in one norm.

    Args:
        factory: Builds the attack from a threat.
        norm: "linf", "l2", "l1" or "l0" (features).
        reach: The multiple of the exact radius at which the attack must win on an affine problem.
        share: The share of the samples on which it must win there.
        targeted: Whether the attack accepts targets; one that does not must refuse them by name.
        minimum: The multiple of the exact distance that a search without eps must reach on affine problems (1.0 in L0:
            the exact count); None for attacks that need a budget, or promise nothing.
    """

    factory: Factory
    norm: Norm
    reach: float = 2.0
    share: float = 1.0
    targeted: bool = True
    minimum: float | None = None

    @property
    def wide(self) -> float:
        """A budget for inputs in [0, 1] that is small, but enough to attack with."""
        return _WIDE[self.norm]

    def within(self, exact: Tensor, share: float = 0.95) -> Tensor:
        """Budgets at which nothing exists: a share of the exact distances, in L0 one feature less."""
        return (exact - 1).clamp(min=0) if self.norm == "l0" else share * exact

    def threat(self, eps: float | Tensor | None, bounds: tuple[float, float] = (0.0, 1.0)) -> Threat:
        """The norm's threat."""
        return THREATS[self.norm](eps, bounds=bounds)

    def attack(self, eps: float | Tensor | None, bounds: tuple[float, float] = (0.0, 1.0)) -> Attack:
        """The attack with this budget."""
        return self.factory(self.threat(eps, bounds))

    def setting(
        self,
        n: int = 8,
        *,
        shape: tuple[int, ...] = (3, 4, 4),
        classes: int = 4,
        bounds: tuple[float, float] = (0.0, 1.0),
        dtype: torch.dtype = torch.float64,
    ) -> Setting:
        """An affine problem, inputs, and their exact distances."""
        problem = Affine(shape=shape, classes=classes, bounds=bounds)
        x, y = problem.inputs(n, dtype=dtype)
        return Setting(model=problem.model(dtype), x=x, y=y, exact=problem.distance(x, y, self.norm), problem=problem)


@final
@dataclass(frozen=True, kw_only=True)
class Setting:
    """A model, inputs and labels, and the exact untargeted distances (b,)."""

    model: nn.Module
    x: Tensor
    y: Tensor
    exact: Tensor
    problem: Affine

    @property
    def middle(self) -> float:
        """A budget at which about half of the samples can be won, and none is decided by rounding.

        Whole numbers of features are often equal: in L0 it may be more than half.
        """
        ordered = self.exact.sort().values
        k = len(ordered) // 2
        return float(ordered[k - 1] + ordered[k]) / 2


def fail(message: str) -> NoReturn:
    """Say what is wrong."""
    raise ContractError(message)


def sizes(delta: Tensor, norm: str, unit: str = "feature") -> Tensor:
    """Sizes (b,) in float64, measured without the threat's own code; `unit` is what L0 counts."""
    if norm == "l0":
        changed = delta != 0
        return (changed.any(dim=1) if unit == "pixel" else changed).flatten(1).sum(dim=1).double()
    size: Tensor = torch.linalg.vector_norm(delta.flatten(1).double(), _ORDER[norm], dim=1)
    return size


def rounding(x: Tensor, bounds: tuple[float, float], norm: str = "l1") -> float:
    """By how much rounding may falsify a size: a few units in the last place of every value; counts are exact."""
    if norm == "l0":
        return 0.0
    return 8 * float(torch.finfo(x.dtype).eps) * max(1.0, *map(abs, bounds)) * x[0].numel()


def where(mask: Tensor) -> str:
    """The first few places of a mask, for messages."""
    rows = mask.nonzero().flatten().tolist()
    return f"sample{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:5]))}{', ...' if len(rows) > 5 else ''}"


def audit(result: Result, model: Any, x: Tensor, goal: Goal | Tensor, threat: Threat) -> None:
    """Everything that must hold between a result and the model, whatever the attack found.

    Raises:
        ContractError: Something does not hold.
    """
    goal = Untargeted(goal) if isinstance(goal, Tensor) else goal
    _audit_form(result, x)
    x_adv, success, distance = result.x_adv, result.success, result.distance
    low, high = threat.bounds
    if bool(((x_adv < low) | (x_adv > high)).any()):
        fail(f"x_adv runs from {float(x_adv.min()):g} to {float(x_adv.max()):g}, outside the bounds {threat.bounds}")
    size = sizes(x_adv.double() - x.double(), threat.name, getattr(threat, "unit", "feature"))
    slack = rounding(x, threat.bounds, threat.name)
    if threat.eps is not None:
        eps = torch.as_tensor(threat.eps, dtype=torch.float64).expand(len(x))
        outside = size > eps + slack
        if bool(outside.any()):
            fail(
                f"x_adv leaves the {threat.name} ball: size {float(size[outside][0]):.9g} at eps "
                f"{float(eps[outside][0]):.9g} ({where(outside)})"
            )
    with torch.no_grad():
        clean, output = model(x), model(x_adv)
    at_start, reached = goal.reached(clean), goal.reached(output)
    lies = success & ~reached
    if bool(lies.any()):
        fail(f"success is claimed, but the model, asked again at x_adv, does not reach the goal ({where(lies)})")
    missed = ~success & at_start
    if bool(missed.any()):
        fail(f"the clean input already reaches the goal, but success is False ({where(missed)})")
    moved = ~success & (x_adv != x).flatten(1).any(1)
    if bool(moved.any()):
        fail(f"a failed sample must come back clean, but x_adv differs from x ({where(moved)})")
    if not bool(distance[~success].isinf().all()):
        fail("the distance of a failed sample must be inf")
    wrong = success & ((distance.double() - size).abs() > slack + 1e-6 * size)
    if bool(wrong.any()):
        fail(
            f"distance is {float(distance[wrong][0]):.9g}, but x_adv is {float(size[wrong][0]):.9g} away "
            f"({where(wrong)})"
        )
    if bool((result.prediction != goal.labels(output)).any()):
        fail("prediction differs from what the model says at x_adv")


def _audit_form(result: Result, x: Tensor) -> None:
    b = (len(x),)
    expected = {
        "x_adv": (x.shape, x.dtype),
        "success": (b, torch.bool),
        "distance": (b, x.dtype),
        "prediction": (b, torch.int64),
        "forwards": (b, torch.int64),
        "backwards": (b, torch.int64),
    }
    for name, (shape, dtype) in expected.items():
        value: Tensor = getattr(result, name)
        if tuple(value.shape) != tuple(shape) or value.dtype != dtype:
            fail(f"{name} must be {dtype} of shape {tuple(shape)}, got {value.dtype} of shape {tuple(value.shape)}")
        if value.device != x.device:
            fail(f"{name} is on {value.device}, the inputs on {x.device}")
        if value.requires_grad:
            fail(f"{name} must be detached; it requires grad")
    if not bool(result.x_adv.isfinite().all()):
        fail("x_adv holds NaN or infinite values")


def exact_within(result: Result, exact: Tensor, share: float = 1.01) -> None:
    """Hold that every distance is the exact one, up to a share: never below it, and nothing fails.

    Args:
        result: What a search for the smallest move found.
        exact: The smallest distances there are, (b,).
        share: The multiple of them that is allowed.

    Raises:
        ContractError: A distance is too small, which the exact one rules out, or too large.
    """
    ratio = result.distance.double() / exact
    for wrong, meaning in ((ratio < 1 - 1e-6, "below the exact one"), (~(ratio <= share), f"above {share:g} times it")):
        if bool(wrong.any()):
            fail(f"the distance is {float(ratio[wrong][0]):.9g} of the exact one, {meaning} ({where(wrong)})")


def same(name: str, first: Result, second: Result, *, exact: bool = True) -> None:
    """Hold that two results agree: to the last bit, or (across batch shapes) up to rounding."""
    for field in ("success", "prediction", "forwards", "backwards"):
        differ = getattr(first, field) != getattr(second, field)
        if bool(differ.any()):
            fail(f"{name}: {field} differs ({where(differ)})")
    a, b = first.x_adv, second.x_adv
    off = (a != b) if exact else ~torch.isclose(a, b, rtol=0, atol=1e-6)
    if bool(off.any()):
        fail(f"{name}: x_adv differs by up to {float((a - b).abs().max()):.3g} ({where(off.flatten(1).any(1))})")


def targeted(setting: Setting, case: Case) -> tuple[Targeted, Tensor]:
    """For each sample a target that can be reached, and its exact distance."""
    targets = setting.problem.targets(setting.x, setting.y, case.norm)
    return Targeted(targets), setting.problem.distance(setting.x, setting.y, case.norm, targets)
