"""Functional threats: one function for all colours of an input, given by its values at the points of a grid."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.errors import ThreatError
from assay.rng import Keyed
from assay.threats.additive import HALF, clip, column, widened
from assay.threats.base import Threat, shown
from assay.threats.colour import SPACES, Name

_TINY = 1e-10  # under the root of the roughness, whose slope at 0 would be infinite


@dataclass(frozen=True, eq=False, repr=False)
class _ColourMap(Threat):
    """A threat whose move is how far each point of a grid over the colour space is displaced, `(b, c, *resolution)`."""

    @property
    @abstractmethod
    def _grid(self) -> tuple[int, ...]:
        """The shape of a move, `(c, *resolution)`."""

    @property
    def _shares(self) -> tuple[float, ...]:
        """What part of eps each channel may use."""
        return (1.0,) * self._grid[0]

    def identity(self, x: Tensor) -> Tensor:
        """No point is displaced."""
        return x.new_zeros(len(x), *self._grid)

    def start(self, x: Tensor, rng: Keyed) -> Tensor:
        """Every displacement uniform in what is allowed."""
        uniform = rng.uniform(*self._grid, low=-1.0, high=1.0).to(x)
        return self.project(x, uniform * self.scale(x))

    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        """Clip every displacement: the exact nearest point."""
        if self.eps is None:
            return theta
        limit = self.scale(x)
        return torch.minimum(torch.maximum(theta, -limit), limit)

    def ascend(self, x: Tensor, theta: Tensor, grad: Tensor, step: Tensor) -> Tensor:
        """Sign step at every point, in the channels' shares."""
        return theta + grad.sign() * (column(step, theta) * self._per_channel(theta))

    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        """The largest displacement, in the channels' shares: a bound of `|f(c) - c|` for every colour c."""
        share = torch.where(theta == 0, 0, theta.abs() / self._per_channel(theta))
        return share.flatten(1).amax(dim=1)

    def slack(self, x: Tensor) -> float:
        """None: displacements are measured as they are chosen."""
        return 0.0

    def scale(self, x: Tensor) -> Tensor:
        """Eps in the channels' shares."""
        return self._per_channel(x) * self.budget(x).reshape(-1, *[1] * len(self._grid))

    def roughness(self, x: Tensor, theta: Tensor) -> Tensor:
        r"""$\sum_p \sum_{q \in N(p)} \sqrt{||d_p - d_q||_2^2 + 10^{-10}} - 10^{-5}$ over grid points p and q beside p.

        Neighbours stand beside each other along one axis, and each pair counts twice, once from either side.
        """
        wide = widened(theta)
        total = wide.new_zeros(len(x))
        for axis in range(2, theta.ndim):
            square = wide.diff(dim=axis).square().sum(dim=1)
            # sqrt(square + tiny) - sqrt(tiny), exact where square is small
            total = total + 2 * (square / ((square + _TINY).sqrt() + _TINY**0.5)).flatten(1).sum(dim=1)
        return total.to(theta.dtype)

    def _per_channel(self, like: Tensor) -> Tensor:
        """The channels' shares, shaped to multiply a move."""
        return like.new_tensor(self._shares).reshape(1, -1, *[1] * (len(self._grid) - 1))

    def _unit(self, x: Tensor) -> Tensor:
        """X scaled from the bounds to [0, 1]."""
        low, high = self.bounds
        return (x - low) / (high - low)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Recolor(_ColourMap):
    r"""One map f of colours for all pixels: $|f(c) - c| \le \epsilon$ for every colour c, in each channel of a space.

    f is given by the displacements of the points of a grid over the unit cube of the colour space, with trilinear
    interpolation between them; colours outside the cube are displaced as the nearest of its surface. A pixel x becomes
    `back(of(x) + d(of(x)))`, clipped to the bounds with a gradient that passes.

    Projection: clipping every displacement, the nearest point exactly. Steepest ascent: signs. Start: uniform.

    Args:
        eps: the largest change in each channel, in units of the space: 0.06 of CIELUV is 6 of L* and 12 of u* and v*.
        bounds: the smallest and largest valid input value; [0, 1] of sRGB is scaled from them.
        space: "luv" (CIELUV as `(L*/100, (u*+100)/200, (v*+100)/200)`), "rgb", or "ypbpr".
        resolution: grid points along each axis of the space, 2 or more.
        channels: what part of eps each channel of the space may use: with `(0, 1, 1)` lightness stays.

    Shapes:
        x `(b, 3, height, width)`; moves `(b, 3, *resolution)`.

    Raises:
        ThreatError: a setting is out of range; at use, inputs do not have 3 channels.

    Deviations:
        The authors' code keeps the moved grid points inside the cube and the gamut of sRGB before it bounds them. Of a
        grid over CIELUV most points lie outside the gamut to begin with, so that there even the identity moves colours,
        and no order of the two steps is a projection. Here grid points are bounded alone, and pixels are held in the
        gamut. The authors' identity also clips saturated colours, which lie outside the cube; here they stay. Grey
        images have no colours: `ToneCurve` is for them.

    References:
        Laidlaw, Feizi, "Functional adversarial attacks", NeurIPS 2019, https://arxiv.org/abs/1906.00001

    Example:
        >>> import torch
        >>> threat = Recolor(0.1, space="rgb", resolution=(2, 2, 2))
        >>> theta = threat.project(torch.rand(1, 3, 4, 4), torch.ones(1, 3, 2, 2, 2))
        >>> threat.apply(torch.full((1, 3, 1, 1), 0.5), theta).flatten()
        tensor([0.6000, 0.6000, 0.6000])
        >>> Recolor(0.06, channels=(0, 1, 1))
        Recolor(0.06, channels=(0.0, 1.0, 1.0))
    """

    space: Name = field(default="luv", kw_only=True)
    resolution: tuple[int, int, int] = field(default=(16, 32, 32), kw_only=True)
    channels: tuple[float, float, float] = field(default=(1.0, 1.0, 1.0), kw_only=True)

    name: ClassVar[str] = "recolor"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.space not in SPACES:
            raise ThreatError(f"space must be one of {', '.join(SPACES)}; got {self.space!r}.")
        counts, shares = self.resolution, self.channels
        if not _three(counts) or any(not isinstance(n, int) or n < 2 for n in counts):
            raise ThreatError(f"resolution must be three whole numbers of 2 or more; got {counts!r}.")
        if not _three(shares) or any(not 0 <= share <= 1 for share in shares) or not any(shares):
            raise ThreatError(f"channels must be three shares of eps between 0 and 1, not all 0; got {shares!r}.")
        object.__setattr__(self, "resolution", tuple(counts))
        object.__setattr__(self, "channels", tuple(float(share) for share in shares))

    @property
    def _grid(self) -> tuple[int, ...]:
        return (3, *self.resolution)

    @property
    def _shares(self) -> tuple[float, ...]:
        return self.channels

    def identity(self, x: Tensor) -> Tensor:
        """No point is displaced.

        Raises:
            ThreatError: inputs do not have 3 channels.
        """
        if x.ndim != 4 or x.shape[1] != 3:
            raise ThreatError(
                f"Recolor needs colour images, (b, 3, height, width); inputs have the shape {shown(x)}. "
                "ToneCurve(eps) is for grey ones."
            )
        return super().identity(x)

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """Every pixel's colour mapped, `(b, 3, height, width)`."""
        low, high = self.bounds
        space, wide = SPACES[self.space], torch.float32 if x.dtype in HALF else x.dtype
        rgb, grid = self._unit(x.to(wide)).flatten(2), theta.to(wide)
        colour = space.of(rgb)
        # Both ways of the conversion round; what they do to an unmoved colour is taken back.
        rounding = (rgb - space.back(colour)).detach()
        moved = space.back(colour + _interpolated(grid, colour)) + rounding
        return clip(low + (high - low) * moved.reshape(x.shape), low, high).to(x.dtype)


@final
@dataclass(frozen=True, eq=False, repr=False)
class ToneCurve(_ColourMap):
    r"""One curve f of brightness for all values: $|f(v) - v| \le \epsilon$ for every value v.

    f is given by the displacements of equally spaced points between the bounds, linear in between: what `Recolor` is
    for colours, for grey images, and for any input whose values mean the same everywhere. With several channels the
    same curve serves each.

    Projection: clipping every displacement, the nearest point exactly. Steepest ascent: signs. Start: uniform.

    Args:
        eps: the largest change of a value, in units of the input.
        bounds: the smallest and largest valid input value.
        points: points of the curve, 2 or more.

    Shapes:
        x `(b, *shape)`; moves `(b, 1, points)`.

    Raises:
        ThreatError: a setting is out of range.

    References:
        Laidlaw, Feizi, "Functional adversarial attacks", NeurIPS 2019, https://arxiv.org/abs/1906.00001 (for colours).

    Example:
        >>> import torch
        >>> curve = torch.tensor([[[0.0, 0.1, 0.0]]])
        >>> ToneCurve(0.1, points=3).apply(torch.tensor([[0.0, 0.25, 0.5, 1.0]]), curve)
        tensor([[0.0000, 0.3000, 0.6000, 1.0000]])
    """

    points: int = field(default=32, kw_only=True)

    name: ClassVar[str] = "tonecurve"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.points, int) or self.points < 2:
            raise ThreatError(f"points must be a whole number of 2 or more; got {self.points!r}.")

    @property
    def _grid(self) -> tuple[int, ...]:
        return (1, self.points)

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """Every value mapped, `(b, *shape)`."""
        wide = torch.float32 if x.dtype in HALF else x.dtype
        value = self._unit(x.to(wide)).flatten(1)[:, None]
        moved = x.to(wide) + _interpolated(theta.to(wide), value).reshape(x.shape)
        return clip(moved, *self.bounds).to(x.dtype)


def _three(value: object) -> bool:
    return isinstance(value, (tuple, list)) and len(value) == 3


def _interpolated(grid: Tensor, at: Tensor) -> Tensor:
    """Values of a grid over [0, 1]^k between its points: linear for k = 1, trilinear for k = 3.

    Args:
        grid: `(b, c, *resolution)` with k axes.
        at: where, `(b, k, n)`; outside the cube the nearest point of its surface counts.

    Returns:
        Values, `(b, c, n)`.
    """
    b, k, n = at.shape
    place = 2 * at.transpose(1, 2).flip(2) - 1  # the last axis of the grid comes first, and [-1, 1] spans it
    if k == 1:
        grid, place = grid[:, :, None], F.pad(place, (0, 1))[:, None]
    else:
        place = place[:, None, None]
    return F.grid_sample(grid, place, padding_mode="border", align_corners=True).reshape(b, -1, n)
