"""Drops on the lens: water that bends light at its edges, or mud that hides what is behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from assay.corruptions.base import Corruption, Group, eight_bits, luminance
from assay.corruptions.draws import normal
from assay.corruptions.filters import gaussian, reflected
from assay.rng import Keyed

_WATER = (175 / 255, 238 / 255, 238 / 255)
_MUD = (63 / 255, 42 / 255, 20 / 255)
_EDGE = 150 / 255  # gradient of an edge, by Sobel's filter in the sum of absolute values
_FARTHEST = 20  # pixels from an edge that are told apart
_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
_EMBOSS = ((-2.0, -1.0, 0.0), (-1.0, 1.0, 1.0), (0.0, 1.0, 2.0))
_MUDDY = 0.8  # share of mud below which there is none


@final
@dataclass(frozen=True, repr=False)
class Spatter(Corruption):
    """Drops on the lens: of pale water at severities 1 to 3, of mud at 4 and 5.

    Drops are where blurred Gaussian noise exceeds a threshold. Water is added with an embossed light that depends on
    the distance to the edge of a drop; mud hides the image, `(1 - m) x + m brown`.

    Args:
        severity: from 1 to 5: size and number of the drops.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        Edges of drops are those places whose Sobel gradient is the largest across the edge, and above the upper of
        Canny's two thresholds; distances are exact, where the released code takes an approximation within 2 %.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> bool((Spatter(severity=5, table="imagenet")(torch.ones(1, 3, 64, 64)) < 1).any())
        True
    """

    slug: ClassVar[str] = "spatter"
    group: ClassVar[Group] = "weather"
    extra: ClassVar[bool] = True

    def apply(self, x: Tensor, parameters: tuple[float, ...], rng: Keyed) -> Tensor:
        """With drops."""
        mean, deviation, soft, threshold, strength, mud = parameters
        liquid = gaussian(normal(rng, 1, *x.shape[2:]).mul_(deviation).add_(mean), soft)
        colour = x.new_tensor(_MUD if mud else _WATER)[None, :, None, None]
        colour = luminance(colour) if x.shape[1] == 1 else colour
        if mud:
            cover = gaussian((liquid > threshold).float(), strength)
            cover = cover.masked_fill_(cover < _MUDDY, 0.0)
            return x * (1 - cover) + colour * cover
        liquid = eight_bits(liquid.masked_fill_(liquid < threshold, 0.0))
        light = liquid * _light(liquid)
        most = light.flatten(1).amax(dim=1).clamp_min(torch.finfo(light.dtype).tiny)[:, None, None, None]
        return x + colour * light.mul_(strength / most)


def _light(liquid: Tensor) -> Tensor:
    """How bright water is at each pixel, 0 to 255, from its distance to the nearest edge: equalised and embossed."""
    near = _mean(_distance(_edges(liquid))).add_(1e-3).floor_()
    lit = _equalised(near)
    embossed = conv2d(reflected(lit, 1, 1), lit.new_tensor(_EMBOSS)[None, None]).clamp_(0, 255)
    return _mean(embossed)


def _mean(x: Tensor) -> Tensor:
    """The mean of 3 by 3 pixels."""
    return conv2d(reflected(x, 1, 1), x.new_full((1, 1, 3, 3), 1 / 9))


def _edges(x: Tensor) -> Tensor:
    """Where the gradient is strong, and not smaller than at both neighbours across the edge."""
    filters = x.new_tensor(_SOBEL)
    right, down = conv2d(reflected(x, 1, 1), torch.stack([filters, filters.T])[:, None]).unbind(1)
    steep = (right.abs() + down.abs())[:, None]
    around = reflected(steep, 1, 1)
    height, width = x.shape[2:]

    def beside(row: int, column: int) -> Tensor:
        return around[:, :, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    flat, tall = down.abs() < 0.4142 * right.abs(), down.abs() > 2.4142 * right.abs()
    rising = (right * down > 0) & ~flat & ~tall
    best = torch.zeros_like(steep, dtype=torch.bool)
    for where, row, column in (
        (flat, 0, 1),
        (tall, 1, 0),
        (rising, 1, 1),
        (~(flat | tall | rising), 1, -1),
    ):
        peak = (steep > beside(-row, -column)) & (steep >= beside(row, column))
        best |= where[:, None] & peak
    return best & (steep > _EDGE)


def _distance(edges: Tensor) -> Tensor:
    """Distance of each pixel to the nearest edge, at most 20."""
    squared = torch.where(edges, 0.0, float(_FARTHEST**2))
    for dim in (2, 3):
        nearest = squared.clone()
        for step in range(1, min(_FARTHEST, squared.shape[dim])):
            left, right = squared.shape[dim] - step, step
            towards, back = nearest.narrow(dim, 0, left), nearest.narrow(dim, right, left)
            torch.minimum(towards, squared.narrow(dim, right, left) + step**2, out=towards)
            torch.minimum(back, squared.narrow(dim, 0, left) + step**2, out=back)
        squared = nearest
    return squared.sqrt_()


def _equalised(levels: Tensor) -> Tensor:
    """Whole numbers below 256 spread so that each is as frequent as every other, 0 to 255."""
    flat = levels.flatten(1).long()
    count = torch.zeros(len(flat), 256, device=levels.device).scatter_add_(1, flat, torch.ones_like(flat).float())
    below = count.cumsum(dim=1)
    first = count.gather(1, (count > 0).long().argmax(dim=1, keepdim=True))
    spread = ((below - first) * 255 / (flat.shape[1] - first).clamp_min(1)).round_()
    return spread.gather(1, flat).reshape(levels.shape)
