"""Blur of lenses, glass, motion and zoom."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from assay.corruptions.base import Corruption, Group, eight_bits
from assay.corruptions.filters import bell, correlated, gaussian, moved, reflected, zoomed
from assay.rng import Keyed


@final
@dataclass(frozen=True, repr=False)
class DefocusBlur(Corruption):
    """A lens out of focus: `D * x`, D a disk whose rim is smoothed; margins mirror the image.

    Args:
        severity: from 1 to 5; the radius is 3 to 10 for large images, 0.3 to 1.5 for small ones.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> point = torch.zeros(1, 1, 9, 9)
        >>> point[..., 4, 4] = 1
        >>> int((DefocusBlur(severity=1, table="imagenet")(point) > 0).sum())  # places within 3 of the middle
        29
    """

    slug: ClassVar[str] = "defocus_blur"
    group: ClassVar[Group] = "blur"

    def apply(self, x: Tensor, parameters: tuple[float, float], rng: Keyed) -> Tensor:
        """Out of focus."""
        disk = _disk(*parameters)
        margin = len(disk) // 2
        return correlated(reflected(x, margin, margin), disk[None, None].to(x))


@cache
def _disk(radius: float, smooth: float) -> Tensor:
    """A disk of whole pixels, smoothed by a Gaussian of 3 pixels (5 beyond a radius of 8), float64.

    Its sum is 1, but at a radius of 8, where the disk reaches the rim of its square and the smoothing mirrors it: there
    it is 1.3 % more, in the published sets too.
    """
    reach, soft = (8, 1) if radius <= 8 else (int(radius), 2)
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)
    disk = (place[:, None].square() + place.square() <= radius**2).double()
    weights = bell(soft, smooth)
    spread = torch.outer(weights, weights)[None, None]
    return conv2d(reflected((disk / disk.sum())[None, None], soft, soft), spread)[0, 0]


@final
@dataclass(frozen=True, repr=False)
class GlassBlur(Corruption):
    """Frosted glass: Gaussian blur, then every pixel takes the colour of one nearby, then the same blur.

    From the last pixel to the first, row by row, each pixel takes the colour that one at a random place of the square
    around it has by then; so several rounds.

    Args:
        severity: from 1 to 5: how far pixels come from, how often, and the blur.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        The paper speaks of swapping. In the released code both pixels of a colour image end with the same colour, and
        this is what the published sets show; grey images, which would really swap, are treated alike here.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> GlassBlur(severity=5)(torch.full((1, 3, 8, 8), 0.4)).unique()
        tensor([0.4000])
    """

    slug: ClassVar[str] = "glass_blur"
    group: ClassVar[Group] = "blur"

    def apply(self, x: Tensor, parameters: tuple[float, int, int], rng: Keyed) -> Tensor:
        """Behind the glass."""
        sigma, reach, rounds = parameters
        values = eight_bits(gaussian(x, sigma)).flatten(2)
        source = _sources(rng, x.shape[2], x.shape[3], reach)
        for _ in range(rounds - 1):
            source = source.gather(1, _sources(rng, x.shape[2], x.shape[3], reach))
        return gaussian(values.gather(2, source[:, None].expand(values.shape)).reshape(x.shape), sigma)


def _sources(rng: Keyed, height: int, width: int, reach: int) -> Tensor:
    """Which pixel's colour each pixel has after one round, `(b, height * width)`.

    Pixels take colours one after the other, and one that took before hands on what it took: a chain back to a pixel
    that still had its own. All chains are followed at once, each jump as long as all before it.
    """
    count = height * width
    place = torch.arange(count, device=rng.index.device)
    row, column = place // width, place % width
    drawn = rng.coarse(2, count).long()
    down, right = ((drawn * (2 * reach)) >> 16).sub_(reach).unbind(1)
    taken = place + down * width + right
    inner = (row > reach) & (row <= height - reach) & (column > reach) & (column <= width - reach)
    taken = torch.where(inner, taken, place)
    changed = (inner[taken] & (taken > place)).flatten()  # those took a colour themselves before
    first = torch.arange(0, len(taken) * count, count, device=place.device)[:, None]  # of each image
    source = (taken + first).flatten()
    source = torch.where(changed, source, ~source)  # negative: the colour that a pixel came with
    chained = changed.nonzero().flatten()
    while len(chained):
        further = source[source[chained]]
        source[chained] = further
        chained = chained[further >= 0]
    return (~source).reshape(taken.shape) - first


@final
@dataclass(frozen=True, repr=False)
class MotionBlur(Corruption):
    """A camera that moves: the mean along a line with the weights of half a bell, at an angle within 45 degrees.

    Args:
        severity: from 1 to 5: the length of the line and the deviation of its weights.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        ImageMagick made the published sets; steps along the line are rounded as there. Weights below one in a million
        of the first are left out.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> MotionBlur(severity=5)(torch.full((1, 3, 8, 8), 0.4)).unique()
        tensor([0.4000])
    """

    slug: ClassVar[str] = "motion_blur"
    group: ClassVar[Group] = "blur"

    def apply(self, x: Tensor, parameters: tuple[int, float], rng: Keyed) -> Tensor:
        """In motion."""
        return moved(x, rng.uniform(low=-45.0, high=45.0), *parameters)


@final
@dataclass(frozen=True, repr=False)
class ZoomBlur(Corruption):
    """A camera that moves towards its object: the mean of the image and of its middle at growing sizes, bilinear.

    Args:
        severity: from 1 to 5; the largest factor is 1.11 to 1.33 for large images, 1.06 to 1.26 for small ones.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> ZoomBlur(severity=5)(torch.full((1, 3, 8, 8), 0.4)).unique()
        tensor([0.4000])
    """

    slug: ClassVar[str] = "zoom_blur"
    group: ClassVar[Group] = "blur"

    def apply(self, x: Tensor, parameters: tuple[float, float], rng: Keyed) -> Tensor:
        """The mean of all sizes."""
        total = x.clone()
        factors = np.arange(1, *parameters)
        for factor in factors.tolist():
            total += zoomed(x, factor)
        return total.div_(len(factors) + 1)


@final
@dataclass(frozen=True, repr=False)
class GaussianBlur(Corruption):
    """Gaussian blur of s pixels; the edges are repeated.

    Args:
        severity: from 1 to 5; s is 1 to 6 for large images, 0.4 to 1 for small ones.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> GaussianBlur(severity=5)(torch.full((1, 3, 8, 8), 0.4)).unique()
        tensor([0.4000])
    """

    slug: ClassVar[str] = "gaussian_blur"
    group: ClassVar[Group] = "blur"
    extra: ClassVar[bool] = True

    def apply(self, x: Tensor, parameters: float, rng: Keyed) -> Tensor:
        """Blurred."""
        return gaussian(x, parameters)
