"""The interface of threats: a move that the attacker chooses, and its geometry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import ClassVar

import torch
from torch import Tensor
from typing_extensions import Self

from assay.errors import ThreatError
from assay.rng import Keyed


@dataclass(frozen=True, eq=False, repr=False)
class Threat(ABC):
    """Which inputs are allowed around x: `{apply(x, theta) : size(x, theta) <= eps}`.

    The attacker chooses a move `theta`, a tensor of shape `(b, *m)` (for Lp threats the perturbation itself). Attacks
    do plain arithmetic on moves and leave everything about the set to the threat.

    Args:
        eps: the budget that limits `size`: one number, one per sample `(b,)`, or None for no budget (attacks that
            minimise then look for the smallest move).
        bounds: the smallest and largest valid input value.

    Attributes:
        memory: the share of earlier gradients that attacks carry on from step to step when they are not told otherwise;
            0 where a move itself holds what was learned.
        hollow: nearly all moves are as long as the budget allows, and so is a random one (`start`); a single climb
            draws the length of its first move as well.

    Raises:
        ThreatError: eps is negative or not finite, or the bounds are not in order.
    """

    eps: float | Tensor | None = None
    bounds: tuple[float, float] = (0.0, 1.0)

    name: ClassVar[str]
    memory: ClassVar[float] = 0.0
    hollow: ClassVar[bool] = False

    def __post_init__(self) -> None:
        try:
            low, high = (float(b) for b in self.bounds)
        except (TypeError, ValueError):
            raise ThreatError(f"bounds must be two numbers (low, high); got {self.bounds!r}.") from None
        if not -float("inf") < low < high < float("inf"):
            raise ThreatError(f"bounds must be finite, (low, high) with low < high; got {self.bounds}.")
        object.__setattr__(self, "bounds", (low, high))
        if self.eps is None:
            return
        if isinstance(self.eps, Tensor):
            if self.eps.ndim != 1 or not bool((torch.isfinite(self.eps) & (self.eps >= 0)).all()):
                raise ThreatError(
                    "a tensor eps must be 1-D, one finite value >= 0 per sample; got shape "
                    f"{tuple(self.eps.shape)} with values from {self.eps.min():g} to {self.eps.max():g}."
                    if self.eps.numel()
                    else "a tensor eps must hold one value per sample; got an empty one."
                )
            return
        if isinstance(self.eps, bool) or not isinstance(self.eps, (int, float)):
            raise ThreatError(f"eps must be a number, a (b,) tensor or None; got {self.eps!r}.")
        if not 0 <= self.eps < float("inf"):
            raise ThreatError(f"eps must be finite and not negative; got {self.eps}.")
        object.__setattr__(self, "eps", float(self.eps))

    def __repr__(self) -> str:
        parts = [] if self.eps is None else [repr(self.eps)]
        for f in fields(self)[1:]:
            value = getattr(self, f.name)
            if value != f.default:
                parts.append(f"{f.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)]
        return all(
            torch.equal(a, b)
            if isinstance(a, Tensor) and isinstance(b, Tensor)
            else a is b or (not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b))
            for a, b in pairs
        )

    def __hash__(self) -> int:
        return hash(
            (
                type(self),
                *(id(v) if isinstance(v := getattr(self, f.name), Tensor) else v for f in fields(self)),
            )
        )

    def with_eps(self, eps: float | Tensor | None) -> Self:
        """The same threat with another budget."""
        return replace(self, eps=eps)

    def at(self, rows: Tensor) -> Self:
        """The threat of a part of the batch (bool mask or indices): per-sample settings are selected."""
        return self.with_eps(self.eps[rows.to(self.eps.device)]) if isinstance(self.eps, Tensor) else self

    def budget(self, x: Tensor) -> Tensor:
        """Eps per sample, `(b,)` on x's device and dtype.

        Raises:
            ThreatError: the threat has no budget, or one for another number of samples.
        """
        need_budget(self, "this attack")
        if isinstance(self.eps, Tensor):
            if len(self.eps) != len(x):
                raise ThreatError(f"eps holds {len(self.eps)} values for {len(x)} samples.")
            return self.eps.to(x)
        return torch.full((len(x),), float(self.eps or 0), dtype=x.dtype, device=x.device)

    def limit(self, x: Tensor) -> Tensor:
        """The largest measured size of an allowed move, `(b,)`: eps and what rounding may add."""
        budget = self.budget(x)
        return budget * (1 + 4 * torch.finfo(x.dtype).eps) + self.slack(x)

    @abstractmethod
    def identity(self, x: Tensor) -> Tensor:
        """The move that changes nothing, `(b, *m)`."""

    @abstractmethod
    def start(self, x: Tensor, rng: Keyed) -> Tensor:
        """A random allowed move, `(b, *m)`."""

    @abstractmethod
    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """The moved input, inside the bounds, `(b, *shape)`; differentiable in theta."""

    @abstractmethod
    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        """The allowed move nearest to theta, `(b, *m)`; without a budget only the bounds count."""

    @abstractmethod
    def ascend(self, x: Tensor, theta: Tensor, grad: Tensor, step: Tensor) -> Tensor:
        """Theta after the steepest ascent of length `step` `(b,)` along `grad` in this geometry (not projected)."""

    @abstractmethod
    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        """What eps limits, `(b,)`: measured on the moved input as it is given to the model."""

    def scale(self, x: Tensor) -> Tensor:
        """How far one coordinate of a move goes: eps, shaped to multiply a move; for steps in every coordinate."""
        eps = self.budget(x)
        return eps.reshape(-1, *[1] * (self.identity(x[:1]).ndim - 1))

    def roughness(self, x: Tensor, theta: Tensor) -> Tensor:
        """How uneven the move is among neighbours, `(b,)`, differentiable; 0 where moves have no neighbourhood.

        Attacks with a smoothness penalty subtract a multiple of it from their loss.
        """
        return x.new_zeros(len(x))

    @abstractmethod
    def slack(self, x: Tensor) -> float:
        """By how much rounding in x's dtype may let the measured size of an allowed move exceed eps."""


def shown(x: Tensor) -> str:
    """The shape of inputs as messages tell it, which are often checked on one of them: `(b, 3, 32, 32)`."""
    return f"({', '.join(['b', *map(str, x.shape[1:])])})"


def need_budget(threat: Threat, who: str) -> None:
    """Hold that this is a threat with a budget.

    Raises:
        ThreatError: it is none, or eps is None.
    """
    if not isinstance(threat, Threat):
        raise ThreatError(f"{who} needs a threat such as assay.Linf(8 / 255); got {threat!r}.")
    if threat.eps is None:
        raise ThreatError(f"{who} needs a budget: write {type(threat).__name__}(eps) with a number, not {threat!r}.")
