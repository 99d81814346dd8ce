"""Snow, frost, fog and bright light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.corruptions.base import Corruption, Group, eight_bits, luminance
from assay.corruptions.crystals import textures
from assay.corruptions.draws import normal
from assay.corruptions.filters import moved, zoomed
from assay.corruptions.plasma import plasma
from assay.rng import Keyed

_FROST_SIDES = {"imagenet": (320, 512), "cifar": (100, 160)}  # pixels of a texture at least, height and width
_FROST_SCALE = {"imagenet": 1.0, "cifar": 0.2}  # of the crystals


@final
@dataclass(frozen=True, repr=False)
class Snow(Corruption):
    """Falling snow: bright flakes in motion, and an image that is paler under them.

    `a x + (1 - a) max(x, 1.5 grey(x) + 0.5) + f + f'`, f the flakes (Gaussian noise, enlarged, what is below a
    threshold removed, blurred along a direction within 45 degrees of downwards) and f' the same turned by 180 degrees.

    Args:
        severity: from 1 to 5: number, size and speed of the flakes, and how pale the image is.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        As in `MotionBlur`.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> x = torch.full((1, 3, 32, 32), 0.4)
        >>> bool((Snow(severity=5)(x) > x).all())
        True
    """

    slug: ClassVar[str] = "snow"
    group: ClassVar[Group] = "weather"

    def apply(self, x: Tensor, parameters: tuple[float, ...], rng: Keyed) -> Tensor:
        """With flakes."""
        mean, deviation, size, threshold, radius, spread, own = parameters
        flakes = normal(rng, 1, *x.shape[2:]).mul_(deviation).add_(mean)
        flakes = zoomed(flakes, size)
        flakes = eight_bits(flakes.masked_fill(flakes < threshold, 0.0))
        flakes = moved(flakes, rng.uniform(low=-135.0, high=-45.0), int(radius), spread)
        pale = torch.maximum(x, luminance(x) * 1.5 + 0.5)
        return pale.mul_(1 - own).add_(x, alpha=own).add_(flakes).add_(flakes.flip(2, 3))


@final
@dataclass(frozen=True, repr=False)
class Frost(Corruption):
    """Ice on the window: `a x + b f`, f a random part of one of five textures.

    Args:
        severity: from 1 to 5: the weights a and b.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        The published sets take photographs of frost. Here textures of ice crystals are grown by rule, with the mean
        colour and the deviation of the first five photographs (the sixth is never used in the released code). Accuracy
        under frost is therefore near that on the published sets, and not the same.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> frosted = Frost(severity=5)(torch.zeros(2, 3, 32, 32))
        >>> bool((frosted[0] == frosted[1]).all())
        False
    """

    slug: ClassVar[str] = "frost"
    group: ClassVar[Group] = "weather"

    def apply(self, x: Tensor, parameters: tuple[float, float], rng: Keyed) -> Tensor:
        """Behind the frost."""
        height, width = x.shape[2:]
        table = self._table(tuple(x.shape))
        least = _FROST_SIDES[table]
        sides = [max(own, int(1.1 * side) + 1) for own, side in zip(least, (height, width), strict=True)]
        ice = textures(*sides, _FROST_SCALE[table]).to(x.device)
        which = rng.integers(0, len(ice)).flatten().tolist()
        place = rng.uniform(2)
        rows = (place[:, 0] * (sides[0] - height)).long().tolist()
        columns = (place[:, 1] * (sides[1] - width)).long().tolist()
        parts = [
            ice[k, :, row : row + height, column : column + width]
            for k, row, column in zip(which, rows, columns, strict=True)
        ]
        frost = torch.stack(parts)
        frost = luminance(frost) if x.shape[1] == 1 else frost
        return frost.mul_(parameters[1]).add_(x, alpha=parameters[0])


@final
@dataclass(frozen=True, repr=False)
class Fog(Corruption):
    """Clouds between camera and object: `(x + t p) m / (m + t)`, p a fractal from 0 to 1 and m the largest value of x.

    Args:
        severity: from 1 to 5: the thickness t, and how coarse the clouds are.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        Clouds are as large as the next power of two of the longer side, which for 32 and 224 pixels is as released.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> Fog(severity=3)(torch.ones(1, 3, 24, 40)).shape
        torch.Size([1, 3, 24, 40])
    """

    slug: ClassVar[str] = "fog"
    group: ClassVar[Group] = "weather"

    def apply(self, x: Tensor, parameters: tuple[float, float], rng: Keyed) -> Tensor:
        """In the fog."""
        thick, decay = parameters
        height, width = x.shape[2:]
        side = 1 << (max(height, width) - 1).bit_length()
        cloud = plasma(rng, side, decay)[:, None, :height, :width]
        most = x.flatten(1).amax(dim=1)[:, None, None, None]
        return x.add(cloud, alpha=thick).mul_(most / (most + thick))


@final
@dataclass(frozen=True, repr=False)
class Brighten(Corruption):
    """More light: c is added to the value of every pixel (its largest channel), hue and saturation stay.

    `x v' / v` with v the value and `v' = min(v + c, 1)`.

    Args:
        severity: from 1 to 5; c is 0.1 to 0.5 for large images, 0.05 to 0.3 for small ones.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261 (named brightness)

    Example:
        >>> import torch
        >>> Brighten(severity=5, table="imagenet")(torch.full((1, 1, 1, 1), 0.2))
        tensor([[[[0.6980]]]])
    """

    slug: ClassVar[str] = "brightness"
    group: ClassVar[Group] = "weather"

    def apply(self, x: Tensor, parameters: float, rng: Keyed) -> Tensor:
        """In more light."""
        if x.shape[1] == 1:
            return x + parameters
        value = x.amax(dim=1, keepdim=True)
        brighter = (value + parameters).clamp_(max=1)
        return torch.where(value > 0, x * (brighter / value), brighter)
