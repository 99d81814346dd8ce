"""Patches: one square of pixels, or a region of a given shape, whose values are free."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.errors import ThreatError
from assay.rng import Keyed
from assay.threats.additive import Additive, column
from assay.threats.base import shown


@final
@dataclass(frozen=True, eq=False, repr=False)
class Patch(Additive):
    r"""Anything inside the bounds, on the pixels of one square that covers at most the share `eps` of the image.

    $\{x' : x'_p = x_p \text{ for all pixels } p \notin Q\}$ for a square Q of $s^2 \le eps \cdot h w$ pixels.
    The square may lie anywhere and is a part of what the attacker chooses, unless `location` fixes it; `mask` is a
    region of any shape that the change may not leave. The move is the perturbation, zero outside of Q, so that place
    and values are one tensor. A square that is longer than the image is high or wide is cut to it.

    Projection: the exact nearest point of the set. With the clipped move $c = clip(\theta)$, the square with the
    largest $\sum (\theta^2 - (\theta - c)^2)$ keeps c, and all else becomes 0 (of equal squares the first in memory).

    Ascent: the values `r = clip(theta + step / eps * (high - low) * sign(grad))` in the square where the linear model
    $g^T r$ is largest, 0 elsewhere. So the place follows the gradient as the values do, and a step of eps or more ends
    at the optimum of the linear model over all values and places.

    Start: a place drawn at random, values uniform in the box. Searches that add steps of their own to a move
    (`AdamSearch`) keep to the place where they start: give them a random start.

    Size: the share of the image that the smallest square around all changed pixels covers; inf where the change leaves
    `mask` or `location`.

    Args:
        eps: the area, as a share of the image: 0.1 for a tenth. With a mask it may be left out, for all of the mask.
        bounds: the smallest and largest valid input value.
        location: top row and left column of the square, from 0; anywhere when None.
        mask: the region that may change, true or nonzero there: `(h, w)`, or `(b, h, w)` with one for each sample.

    Shapes:
        x `(b, ..., h, w)`: the last two axes are the place, all others belong to the pixel.

    Raises:
        ThreatError: mask or location cannot be used, or both are given; at use, inputs have no pixels, or others than
            the mask.

    References:
        Brown, Mane, Roy, Abadi, Gilmer, "Adversarial patch", NeurIPS workshop 2017, https://arxiv.org/abs/1712.09665
        Rao, Stutz, Schiele, "Adversarial training against location-optimized adversarial patches", ECCV workshop 2020,
        https://arxiv.org/abs/2005.02313 (the place as a part of the attack).

    Example:
        >>> import torch
        >>> x = torch.zeros(1, 1, 2, 3)
        >>> Patch(1 / 6).project(x, torch.tensor([[[[0.5, 0.0, 0.2], [0.0, 2.0, 0.0]]]]))
        tensor([[[[0., 0., 0.],
                  [0., 1., 0.]]]])
        >>> Patch(0.1, location=(3, 0))
        Patch(0.1, location=(3, 0))
    """

    location: tuple[int, int] | None = field(default=None, kw_only=True)
    mask: Tensor | None = field(default=None, kw_only=True)

    name: ClassVar[str] = "patch"

    def __post_init__(self) -> None:
        if self.mask is not None:
            if not isinstance(self.mask, Tensor) or self.mask.ndim not in (2, 3):
                raise ThreatError(f"mask must be a tensor (h, w) or (b, h, w); got {_told(self.mask)}.")
            if self.location is not None:
                raise ThreatError("a mask tells the place already: leave location out.")
            object.__setattr__(self, "mask", self.mask != 0)
            if self.eps is None:
                object.__setattr__(self, "eps", 1.0)
        super().__post_init__()
        if self.location is not None:
            place = tuple(self.location) if isinstance(self.location, (tuple, list)) else ()
            whole = all(isinstance(v, int) and not isinstance(v, bool) and v >= 0 for v in place)
            if len(place) != 2 or not whole:
                raise ThreatError(f"location must be (top, left), two whole numbers from 0; got {self.location!r}.")
            object.__setattr__(self, "location", place)

    def __repr__(self) -> str:
        if self.mask is None:
            return super().__repr__()
        rest = repr(replace(self, mask=None))
        return f"{rest[:-1]}, mask=<{_told(self.mask)}>)"

    def at(self, rows: Tensor) -> Self:
        """The threat of a part of the batch: masks of samples are selected, too."""
        part = super().at(rows)
        if self.mask is None or self.mask.ndim == 2:
            return part
        return replace(part, mask=self.mask[rows.to(self.mask.device)])

    def limit(self, x: Tensor) -> Tensor:
        """The area of the largest square that is allowed: pixels are counted exactly."""
        return self._area(self._side(x), x)

    def start(self, x: Tensor, rng: Keyed) -> Tensor:
        """A random place with random values."""
        low, high = self.bounds
        allowed = self._allowed(x)
        lot = rng.uniform(*x.shape[-2:]).double()
        value = self._uniform(x, rng, low, high) - x
        inside = self._square(lot, x, drawn=True) & allowed
        return torch.where(_spread(inside, x), value, 0)

    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        """Exact nearest point of the set."""
        low, high = self._room(x)
        inside = torch.minimum(torch.maximum(theta, low), high)
        inside = torch.where(_spread(self._allowed(x), x), inside, 0)
        if self.eps is None:
            return inside
        far = self._extent(inside) > self._side(x)
        if not bool(far.any()):
            return inside
        kept = self._square(_per_pixel(inside.double() * (2 * theta.double() - inside)), x)
        return torch.where(_spread(kept | ~far[:, None, None], x), inside, 0)

    def ascend(self, x: Tensor, theta: Tensor, grad: Tensor, step: Tensor) -> Tensor:
        """Sign step in the square where the linear model becomes largest."""
        low, high = self._room(x)
        length = step if self.eps is None else step / self.budget(x).clamp_min(torch.finfo(x.dtype).tiny)
        reach = torch.addcmul(theta, grad.sign(), column(length, theta) * self.scale(x))
        reach = torch.minimum(torch.maximum(reach, low), high)
        reach = torch.where(_spread(self._allowed(x), x), reach, 0)
        if self.eps is None:
            return reach
        peak = column(grad.flatten(1).abs().amax(dim=1), grad)
        slope = (grad / torch.where(peak > 0, peak, 1)).double()
        best = self._square(_per_pixel(slope * reach), x)
        return torch.where(peak > 0, torch.where(_spread(best, x), reach, 0), theta)

    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        """Area of the smallest square around the change, as a share of the image."""
        change = self._moved(x, theta).reshape(x.shape)
        outside = (_per_pixel(change != 0) > 0) & ~self._allowed(x)
        area = self._area(self._extent(change), x)
        return area.masked_fill(outside.flatten(1).any(dim=1), torch.inf)

    def scale(self, x: Tensor) -> Tensor:
        """A value may cross the whole range."""
        return x.new_full((1,) * x.ndim, self.bounds[1] - self.bounds[0])

    def slack(self, x: Tensor) -> float:
        """None: pixels are counted."""
        return 0.0

    def _side(self, x: Tensor) -> Tensor:
        """Pixels along the side of the square, `(b,)`: the most whose area is at most eps."""
        h, w = _place(x)
        sides = torch.arange(max(h, w) + 1, device=x.device)
        area = sides.clamp(max=h) * sides.clamp(max=w) / (h * w)
        if not isinstance(self.eps, Tensor):
            return ((area <= (self.eps or 0) * (1 + 1e-6)).sum() - 1).expand(len(x))
        budget = self.budget(x).double() * (1 + 1e-6)
        return (area <= budget[:, None]).sum(dim=1) - 1

    def _area(self, side: Tensor, x: Tensor) -> Tensor:
        h, w = _place(x)
        return (side.clamp(max=h) * side.clamp(max=w)).to(x.dtype) / (h * w)

    def _extent(self, change: Tensor) -> Tensor:
        """Side of the smallest square around all changed pixels, `(b,)`."""
        changed = _per_pixel(change != 0) > 0
        return torch.maximum(_length(changed.any(dim=2)), _length(changed.any(dim=1)))

    def _allowed(self, x: Tensor) -> Tensor:
        """Where mask and location let pixels change, bool `(b, h, w)`."""
        h, w = _place(x)
        if self.mask is not None:
            mask = self.mask.to(x.device)
            if mask.shape[-2:] != (h, w):
                raise ThreatError(f"the mask has shape {tuple(mask.shape)}; the inputs are {shown(x)}.")
            if mask.ndim == 3 and len(mask) != len(x):
                raise ThreatError(f"there are masks for {len(mask)} samples, and {len(x)} inputs.")
            return mask.expand(len(x), h, w)
        if self.location is None or self.eps is None:
            return torch.ones(len(x), h, w, dtype=torch.bool, device=x.device)
        top, left = (torch.full((len(x),), v, device=x.device) for v in self.location)
        side = self._side(x)
        if bool(((top + side > h) | (left + side > w)).any()):
            raise ThreatError(
                f"a square of {int(side.max())} pixels at location {self.location} does not lie inside images of {h} "
                f"by {w}: choose another location or a smaller eps."
            )
        return _window(top, left, side, x)

    def _square(self, score: Tensor, x: Tensor, *, drawn: bool = False) -> Tensor:
        """The square in which a score `(b, h, w)` sums to the most, bool `(b, h, w)`; of equal ones the first.

        Args:
            score: what each pixel is worth, float64.
            x: the clean inputs.
            drawn: take the square whose first pixel has the largest score among those that reach an allowed pixel.
        """
        side, allowed = self._side(x), self._allowed(x)
        if self.location is not None:
            return allowed
        best = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for length in sorted(set(side.tolist())):
            rows = (side == length).nonzero().squeeze(1)
            value = _sums(torch.where(allowed[rows], score[rows], 0), length)
            if drawn:
                reaches = _sums(allowed[rows].double(), length) > 0
                value = torch.where(reaches, score[rows, : value.shape[1], : value.shape[2]], -1.0)
            at = value.flatten(1).argmax(dim=1)
            best[rows] = at // value.shape[2] * x.shape[-1] + at % value.shape[2]
        return _window(best // x.shape[-1], best % x.shape[-1], side, x)


def _place(x: Tensor) -> tuple[int, int]:
    """Height and width."""
    if x.ndim < 3:
        raise ThreatError(f"inputs of shape {shown(x)} have no pixels: a patch needs (b, channels, height, width).")
    return x.shape[-2], x.shape[-1]


def _per_pixel(value: Tensor) -> Tensor:
    """Values of x's shape summed over all but the place, `(b, h, w)`."""
    return value.reshape(len(value), -1, *value.shape[-2:]).sum(dim=1)


def _spread(chosen: Tensor, x: Tensor) -> Tensor:
    """A mask `(b, h, w)`, shaped to multiply x."""
    return chosen.reshape(len(chosen), *[1] * (x.ndim - 3), *chosen.shape[1:])


def _window(top: Tensor, left: Tensor, side: Tensor, x: Tensor) -> Tensor:
    """Which pixels lie in the square, bool `(b, h, w)`."""
    row, col = (torch.arange(n, device=x.device)[None] for n in x.shape[-2:])
    high = (row >= top[:, None]) & (row < (top + side)[:, None])
    wide = (col >= left[:, None]) & (col < (left + side)[:, None])
    return high[:, :, None] & wide[:, None, :]


def _length(hit: Tensor) -> Tensor:
    """From the first to the last true place of each row of `(b, n)`, both included; 0 where there is none."""
    place = torch.arange(1, hit.shape[1] + 1, device=hit.device)
    last, first = (hit * place).amax(dim=1), (hit * place.flip(0)).amax(dim=1)
    return (last + first - hit.shape[1]).clamp_min(0)


def _sums(value: Tensor, side: int) -> Tensor:
    """Sums over all squares of this side, by the place of their first pixel."""
    whole = torch.nn.functional.pad(value, (1, 0, 1, 0)).cumsum(dim=1).cumsum(dim=2)
    tall, wide = (max(1, min(side, n)) for n in value.shape[1:])
    return whole[:, tall:, wide:] - whole[:, :-tall, wide:] - whole[:, tall:, :-wide] + whole[:, :-tall, :-wide]


def _told(mask: object) -> str:
    if not isinstance(mask, Tensor):
        return repr(mask)
    return f"{'x'.join(map(str, mask.shape))} mask, {int((mask != 0).sum())} pixels"
