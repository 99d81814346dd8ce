"""JPEG compression as the network sees it: decoded again, with a gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

from assay.errors import SettingError
from assay.rng import Keyed
from assay.transformations.base import Drawn, Transformation, check_images

# ITU-T T.81, annex K.1: quantisation of luminance and chrominance at quality 50
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# ITU-T T.871: luminance and two colour differences from red, green and blue
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
_TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136, -0.714136), (1.0, 1.772, 0.0))


@final
@dataclass(frozen=True, repr=False)
class JPEG(Transformation):
    """Compression to JPEG and back, at a quality that is a whole number uniform on [worst, best].

    `x -> clip(D' Q round(D x / Q))`: values are rounded to 8 bits, colours become luminance and two colour differences
    at half the resolution (4:2:0), the cosine transform D of every 8x8 block is divided by the table Q of the quality,
    rounded, and turned back. In the backward pass every rounding counts as the identity (straight-through).

    Args:
        worst: the lowest quality, from 1 to 100.
        best: the highest quality; None for always `worst`.
        subsampling: whether colour differences have half the resolution, as in nearly every JPEG file.

    Shapes:
        x: `(n, channels, height, width)` with 1 or 3 channels, of any size.

    Raises:
        SettingError: the qualities are out of range.

    Deviations:
        Decoders differ by one or two of 255 values, since each rounds where it likes; here the result is rounded to
        whole values at the end as by all of them.

    References:
        ITU-T T.81 (1992), https://www.w3.org/Graphics/JPEG/itu-t81.pdf
        Tables at other qualities scale as in the library of the Independent JPEG Group, https://ijg.org

    Example:
        >>> import torch
        >>> flat = torch.full((1, 3, 20, 12), 100 / 255)
        >>> bool(torch.allclose(JPEG(50).apply(flat, torch.tensor([50])) * 255, torch.full_like(flat, 100), atol=1))
        True
    """

    worst: int
    best: int | None = None
    subsampling: bool = True

    def __post_init__(self) -> None:
        for quality in (self.worst, self._best):
            if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
                raise SettingError(f"JPEG takes whole qualities from 1 to 100; got {quality!r}.")
        if self._best < self.worst:
            raise SettingError(f"JPEG takes (worst, best) in this order; got ({self.worst}, {self.best}).")

    @property
    def _best(self) -> int:
        return self.worst if self.best is None else self.best

    def draw(self, rng: Keyed, shape: tuple[int, ...]) -> Drawn:
        """Qualities, `(n,)` int64."""
        return rng.integers(self.worst, self._best + 1).reshape(-1)

    def apply(self, x: Tensor, drawn: Drawn) -> Tensor:
        """The images as they come out of the file."""
        check_images(x, self, (1, 3))
        height, width = x.shape[2:]
        values = pad(_rounded(x * 255), (0, -width % 16, 0, -height % 16), mode="replicate")
        light, chroma = (_table(table, drawn).to(x) for table in (_LUMINANCE, _CHROMINANCE))
        if x.shape[1] == 1:
            values = _coded(values - 128, light) + 128
        else:
            parts = _rounded(torch.einsum("oc,nchw->nohw", x.new_tensor(_TO_YCC), values))
            luminance, colour = _coded(parts[:, :1] - 128, light) + 128, parts[:, 1:]
            if self.subsampling:
                colour = _coded(_rounded(avg_pool2d(colour, 2)), chroma)
                colour = interpolate(colour, scale_factor=2.0, mode="bilinear")
            else:
                colour = _coded(colour, chroma)
            values = torch.einsum("oc,nchw->nohw", x.new_tensor(_TO_RGB), torch.cat([luminance, colour], dim=1))
        return _rounded(values[:, :, :height, :width].clamp(0, 255)) / 255


def _rounded(x: Tensor) -> Tensor:
    """Whole numbers, halves away from zero as far as rounding errors let see, with the gradient of the identity."""
    fixed = x.detach()
    return x + (fixed.sign() * (fixed.abs() + (0.5 + 1e-6)).floor() - fixed)


def _table(table: tuple[tuple[int, ...], ...], quality: Tensor) -> Tensor:
    """The table at each quality, `(n, 8, 8)`: scaled, rounded, from 1 to 255."""
    scale = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)[:, None, None]
    return ((torch.tensor(table, device=quality.device) * scale + 50) // 100).clamp(1, 255)


def _coded(plane: Tensor, table: Tensor) -> Tensor:
    """Planes `(n, c, h, w)` after quantisation of their 8x8 blocks by the tables `(n, 8, 8)`."""
    n, c, height, width = plane.shape
    blocks = plane.reshape(n, c, height // 8, 8, width // 8, 8).transpose(3, 4)
    cosine = plane.new_tensor(_cosines())
    steps = table[:, None, None, None]
    quantised = _rounded(cosine @ blocks @ cosine.T / steps) * steps
    return (cosine.T @ quantised @ cosine).transpose(3, 4).reshape(n, c, height, width)


@cache
def _cosines() -> tuple[tuple[float, ...], ...]:
    """The orthonormal cosine transform of 8 values."""
    return tuple(
        tuple(math.sqrt((1 if k == 0 else 2) / 8) * math.cos(math.pi * k * (2 * i + 1) / 16) for i in range(8))
        for k in range(8)
    )
