"""Few changed values: L0 balls of features or pixels, intersected with the box of valid inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from assay.errors import ThreatError
from assay.rng import Keyed
from assay.threats.additive import HALF, Additive, column, widened

_UNITS = ("feature", "pixel")


@final
@dataclass(frozen=True, eq=False, repr=False)
class L0(Additive):
    r"""At most `eps` units change, each to anything inside the bounds; a unit is a feature or a pixel.

    Projection: the exact nearest point of ball and box. With the clipped move $c = clip(\theta)$, the units with the
    largest $\sum (\theta^2 - (\theta - c)^2)$ over their channels keep c, all others become 0 (of equal ones the first
    in memory is kept).

    Ascent: a step of length `step` is `ceil(step)` changes of units that raise the linear model $g^T \theta$ most.
    For each unit let p be what $g^T \theta$ holds of it at the best end of the box, and k what it holds now. A unit
    outside the support enters for the one with the smallest p (or takes a free place) when its own p is larger, a gain
    of p - k; a unit of the support may else be moved to its best end, for the same gain with its own p. So a long step
    from anywhere ends at the optimum of the linear model, as sign steps do in Linf, and a short one exchanges single
    units. (Projecting `theta + t g` instead would rank units by squared moves, which is not what the loss gains.)

    A sparse move forgets what was learned of all other units, so that a search by single gradients goes in circles:
    attacks carry gradients on (`memory`).

    Start: eps units drawn at random, their values uniform in the box.

    Args:
        eps: the number of units that may change (fractions are rounded down).
        bounds: the smallest and largest valid input value.
        unit: "feature" for every single value, "pixel" for all channels of a place together: the first axis of a
            sample with at least three is the channel.

    Raises:
        ThreatError: the unit is unknown; at use, pixels are asked of inputs that have none.

    References:
        Croce, Hein, "Sparse and imperceivable adversarial attacks", ICCV 2019, https://arxiv.org/abs/1909.05040
        (projection on ball and box, PGD_0).
        Zhong, Huang, Liu, "Towards efficient training and evaluation of robust models against l0 bounded adversarial
        perturbations", ICML 2024, https://arxiv.org/abs/2405.05075 (why projected gradients lose information).

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.5, 0.9, 0.5]])
        >>> L0(1).project(x, torch.tensor([[0.45, 0.9, -0.2]]))
        tensor([[0.4500, 0.0000, 0.0000]])
        >>> L0(20, unit="pixel")
        L0(20.0, unit='pixel')
    """

    unit: Literal["feature", "pixel"] = field(default="feature", kw_only=True)

    name: ClassVar[str] = "l0"
    memory: ClassVar[float] = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit not in _UNITS:
            raise ThreatError(f"unit must be 'feature' or 'pixel'; got {self.unit!r}.")

    def budget(self, x: Tensor) -> Tensor:
        """Whole units per sample; in half precision the largest number below that it can hold."""
        whole = super().budget(x.new_empty(len(x), dtype=torch.float32)).floor()
        if x.dtype not in HALF:
            return whole.to(x)
        held = whole.clamp_max(torch.finfo(x.dtype).max).to(x.dtype)
        return torch.where(held > whole, (whole * (1 - torch.finfo(x.dtype).eps)).to(x.dtype), held)

    def limit(self, x: Tensor) -> Tensor:
        """The budget itself: counts are exact."""
        return self.budget(x)

    def start(self, x: Tensor, rng: Keyed) -> Tensor:
        """Random units with random values."""
        low, high = self.bounds
        value = self._uniform(x, rng, low, high) - x
        chosen = _largest(rng.uniform(self._per_unit(x[:1]).shape[1]), self.budget(x).long())
        return torch.where(self._spread(chosen, x), value, 0)

    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        """Exact nearest point of ball and box."""
        low, high = self._room(x)
        inside = torch.minimum(torch.maximum(theta, low), high)
        if self.eps is None:
            return inside
        budget = self.budget(x).long()
        far = self._changed(inside).sum(dim=1) > budget
        if not bool(far.any()):
            return inside
        rows = far.nonzero().squeeze(1)
        kept, wanted = widened(inside[rows]), widened(theta[rows])
        chosen = _largest(self._per_unit(kept * (2 * wanted - kept)), budget[rows])
        inside[rows] = torch.where(self._spread(chosen, inside[rows]), inside[rows], 0)
        return inside

    def ascend(self, x: Tensor, theta: Tensor, grad: Tensor, step: Tensor) -> Tensor:
        """The `ceil(step)` changes of units that gain most in the linear model, the budget kept."""
        slope = widened(grad)
        peak = column(slope.flatten(1).abs().amax(dim=1), slope)
        slope = slope / torch.where(peak > 0, peak, 1)
        low, high = self._room(x)
        best = torch.where(slope > 0, high, torch.where(slope < 0, low, theta))
        reach, held = self._per_unit(slope * best), self._per_unit(slope * theta)
        changed, count = self._changed(theta), (step - 1e-3).ceil().long().clamp_min(1)
        if self.eps is None:
            gain = reach - held
            moved, dropped = _largest(gain, count) & (gain > 0), torch.zeros_like(changed)
        else:
            moved, dropped = _exchanged(reach, held, changed, self.budget(x).long(), count)
        theta = torch.where(self._spread(moved, x), best, theta)
        return torch.where(self._spread(dropped, x), 0, theta)

    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        """Number of changed units; in half precision rounded up."""
        count = self._changed(self._moved(x, theta).reshape(x.shape)).sum(dim=1)
        held = count.to(x.dtype)
        return torch.where(held.float() < count, (count * (1 + torch.finfo(x.dtype).eps)).to(x.dtype), held)

    def slack(self, x: Tensor) -> float:
        """None: counts are exact."""
        return 0.0

    def per_unit(self, value: Tensor) -> Tensor:
        """Values of x's shape summed over each unit, in a shape that broadcasts to x's.

        Raises:
            ThreatError: pixels are asked of values that have none.
        """
        if self.unit == "feature":
            return value
        if value.ndim < 4:
            raise ThreatError(
                f"inputs of shape {tuple(value.shape)} have no pixels: unit='pixel' needs (b, c, height, width), "
                "else use unit='feature'."
            )
        return value.sum(dim=1, keepdim=True)

    def _per_unit(self, value: Tensor) -> Tensor:
        """The same, `(b, units)`."""
        return self.per_unit(value).flatten(1)

    def _changed(self, theta: Tensor) -> Tensor:
        return self._per_unit(theta != 0) > 0

    def _spread(self, chosen: Tensor, x: Tensor) -> Tensor:
        """A mask of units `(b, units)`, shaped to multiply x."""
        return chosen.reshape(x.shape) if self.unit == "feature" else chosen.reshape(len(x), 1, *x.shape[2:])


def _largest(score: Tensor, count: Tensor) -> Tensor:
    """The `count` `(b,)` largest of each row of `(b, n)`, as a mask; of equal ones the first."""
    most = min(int(count.max()), score.shape[1]) if len(count) else 0
    if most <= 0:
        return torch.zeros_like(score, dtype=torch.bool)
    top = score.topk(most, dim=1).values
    least = top.gather(1, (count.clamp(1, most) - 1)[:, None])
    above, tied = score > least, score == least
    left = count[:, None] - above.sum(dim=1, keepdim=True)
    return (above | (tied & (tied.cumsum(dim=1) <= left))) & (count > 0)[:, None]


def _exchanged(reach: Tensor, held: Tensor, changed: Tensor, budget: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Which units move to the best end of the box, and which go back to 0, as masks `(b, n)`.

    Args:
        reach: what each unit holds of the linear model at the best end of the box.
        held: what it holds now.
        changed: the support.
        budget: places, `(b,)`.
        count: changes, `(b,)`.
    """
    n = reach.shape[1]
    places = max(1, min(int(budget.max()), n))
    rank = torch.arange(places, device=reach.device)
    order = torch.arange(n, 0, -1, device=reach.device)
    unit = (changed * order).topk(places, dim=1).indices  # the support in the order of memory, then anything
    taken, usable = rank < changed.sum(dim=1, keepdim=True), rank < budget[:, None]
    own, now = (torch.where(taken, v.gather(1, unit), 0) for v in (reach, held))
    cheapest = own.masked_fill(~usable, torch.inf).argsort(dim=1, stable=True)
    unit, taken, usable, own, now = (v.gather(1, cheapest) for v in (unit, taken, usable, own, now))
    outside = reach.masked_fill(changed, -torch.inf)
    new = outside.topk(places, dim=1).values
    swap = usable & (new > own)
    gain = torch.where(usable, torch.where(swap, new, own) - now, -torch.inf)
    chosen = _largest(gain, count) & (gain > 0)
    none = torch.zeros_like(changed)
    moved = none.scatter(1, unit, chosen & ~swap & taken) | _largest(outside, (chosen & swap).sum(dim=1))
    return moved, none.scatter(1, unit, chosen & swap & taken)
