"""Contrast, elastic distortion, lost resolution, compression and saturation."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from assay.corruptions.base import Corruption, Group
from assay.corruptions.warp import affine, displaced, smooth
from assay.rng import Keyed


@final
@dataclass(frozen=True, repr=False)
class LowContrast(Corruption):
    """Less contrast: `m + c (x - m)`, m the mean of each channel.

    Args:
        severity: from 1 to 5; c is 0.4 to 0.05 for large images, 0.75 to 0.15 for small ones.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261 (named contrast)

    Example:
        >>> import torch
        >>> LowContrast(severity=1, table="imagenet")(torch.tensor([[[[0.0, 1.0]]]])).mul(255).round()
        tensor([[[[ 76., 178.]]]])
    """

    slug: ClassVar[str] = "contrast"
    group: ClassVar[Group] = "digital"

    def apply(self, x: Tensor, parameters: float, rng: Keyed) -> Tensor:
        """With less contrast."""
        mean = x.mean(dim=(2, 3), keepdim=True)
        return (x - mean).mul_(parameters).add_(mean)


@final
@dataclass(frozen=True, repr=False)
class ElasticTransform(Corruption):
    """The image on rubber: three of its points move at random, and then every pixel by a smooth random field.

    Args:
        severity: from 1 to 5: strength and smoothness of the field, and how far the points move.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        Lengths grow with the shorter side. For 224 pixels they are those of the released code, which takes 244 in
        their place, and for 32 pixels its own.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261
        Simard, Steinkraus, Platt, "Best practices for convolutional neural networks", ICDAR 2003

    Example:
        >>> import torch
        >>> ElasticTransform(severity=5)(torch.full((1, 3, 8, 8), 0.4)).unique()
        tensor([0.4000])
    """

    slug: ClassVar[str] = "elastic_transform"
    group: ClassVar[Group] = "digital"

    def parameters(self, shape: tuple[int, ...]) -> Any:
        """Strength, smoothness and shift in pixels."""
        whole = min(shape[-2:]) * (244 / 224 if self._table(shape) == "imagenet" else 1.0)
        return tuple(part * whole for part in super().parameters(shape))

    def apply(self, x: Tensor, parameters: tuple[float, float, float], rng: Keyed) -> Tensor:
        """Distorted."""
        strength, smoothness, shift = parameters
        if shift:
            x = affine(x, rng.uniform(3, 2, low=-shift, high=shift))
        return displaced(x, smooth(rng, x, smoothness).mul_(strength)) if strength else x


@final
@dataclass(frozen=True, repr=False)
class Pixelate(Corruption):
    """Less resolution: the mean of areas (rows first), and these as squares of one colour in the old size.

    Args:
        severity: from 1 to 5; what is left of each side is 0.6 to 0.25 for large images, 0.95 to 0.65 for small ones.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> Pixelate(severity=3, table="imagenet")(torch.rand(1, 1, 10, 10)).unique().numel() <= 16
        True
    """

    slug: ClassVar[str] = "pixelate"
    group: ClassVar[Group] = "digital"

    def apply(self, x: Tensor, parameters: float, rng: Keyed) -> Tensor:
        """With larger pixels."""
        height, width = x.shape[2:]
        across, down = (_boxes(side, max(1, int(side * parameters)), x) for side in (width, height))
        found = _whole(down @ _whole(x @ across.T))
        rows, columns = (
            _squares(side, size).to(x.device) for side, size in zip((height, width), found.shape[2:], strict=True)
        )
        return found.index_select(3, columns).index_select(2, rows)


def _boxes(side: int, size: int, like: Tensor) -> Tensor:
    """`(size, side)`: each of `size` places takes the mean of the old ones whose middles lie in `(start, end]` of it.

    Middles at a border fall to where Pillow's rounding puts them, so its order of operations is kept.
    """
    scale = side / size
    centre = (torch.arange(size, dtype=torch.float64) + 0.5)[:, None] * scale
    old = torch.arange(side, dtype=torch.float64)
    away = (old - centre + 0.5) * (1 / scale)
    first, after = ((centre + end * scale / 2 + 0.5).floor() for end in (-1, 1))
    inside = ((old >= first) & (old < after) & (away > -0.5) & (away <= 0.5)).double()
    return (inside / inside.sum(dim=1, keepdim=True)).to(like)


def _squares(side: int, size: int) -> Tensor:
    """`(side,)`: which of `size` places each new one shows; summed up as Pillow does, since rounding decides ties."""
    step = size / side
    return torch.tensor([int(place) for place in accumulate([step / 2, *[step] * (side - 1)])])


def _whole(x: Tensor) -> Tensor:
    """Values rounded to 8 bits, halves upwards, as Pillow does after each of its passes."""
    return x.mul_(255).add_(0.5 + 1e-4).floor_().div_(255)


@final
@dataclass(frozen=True, repr=False)
class JPEGCompression(Corruption):
    """Compression to JPEG and back, by Pillow.

    Args:
        severity: from 1 to 5; the quality is 25 to 7 for large images, 80 to 40 for small ones.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        None; `assay.transformations.JPEG` is a model of it that has gradients.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> JPEGCompression(severity=5)(torch.full((1, 3, 8, 8), 0.4)).unique()  # one coefficient, rounded
        tensor([0.4039])
    """

    slug: ClassVar[str] = "jpeg_compression"
    group: ClassVar[Group] = "digital"

    def apply(self, x: Tensor, parameters: int, rng: Keyed) -> Tensor:
        """As it comes out of the file."""
        values = x.mul(255).round_().to(torch.uint8).permute(0, 2, 3, 1).cpu().contiguous().numpy()

        def stored(image: Any) -> Any:
            file = io.BytesIO()
            Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, "JPEG", quality=parameters)
            with Image.open(file) as read:
                return np.asarray(read).reshape(image.shape)

        with ThreadPoolExecutor(torch.get_num_threads()) as workers:
            found = np.stack(list(workers.map(stored, values)))
        return torch.from_numpy(found).permute(0, 3, 1, 2).contiguous().to(x.device)


@final
@dataclass(frozen=True, repr=False)
class Saturate(Corruption):
    """More or less colour: the saturation becomes `min(a s + b, 1)`, hue and value stay.

    With v the value of a pixel (its largest channel) and s its saturation, `v - (v - x) s' / s`.

    Args:
        severity: from 1 to 5: less colour at 1 and 2, more from 3 on.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels; grey images stay as they are.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        None. Where b is not 0 a pixel without colour becomes red, which is hue 0, as in the published sets.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> x = torch.tensor([1.0, 0.8, 0.6]).reshape(1, 3, 1, 1)
        >>> Saturate(severity=3, table="imagenet")(x).flatten().mul(255).round()
        tensor([255., 153.,  51.])
    """

    slug: ClassVar[str] = "saturate"
    group: ClassVar[Group] = "digital"
    extra: ClassVar[bool] = True

    def apply(self, x: Tensor, parameters: tuple[float, float], rng: Keyed) -> Tensor:
        """With other colours."""
        if x.shape[1] == 1:
            return x
        factor, more = parameters
        value, least = x.amax(dim=1, keepdim=True), x.amin(dim=1, keepdim=True)
        spread = value - least
        saturation = (spread / value.clamp_min(torch.finfo(x.dtype).tiny)).mul_(factor).add_(more).clamp_(max=1)
        gone = saturation.mul_(value)  # what the least channel loses of the value
        found = value - (value - x) * (gone / spread.clamp_min(torch.finfo(x.dtype).tiny))
        red = torch.cat([value, value - gone, value - gone], dim=1)
        return torch.where(spread > 0, found, red)
