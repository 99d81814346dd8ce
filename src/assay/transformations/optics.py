"""What lens and sensor lose: blur, and another resolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from assay.errors import InputError, SettingError
from assay.rng import Keyed
from assay.transformations.base import Drawn, Transformation, apply_each, check_images, check_range, draw_each


@final
@dataclass(frozen=True, repr=False)
class Blur(Transformation):
    """Gaussian blur, `(G_s * x)` with its standard deviation s uniform on [0, sigma].

    At the edges the weights of pixels inside are scaled to a sum of 1.

    Args:
        sigma: the largest standard deviation in pixels.

    Raises:
        SettingError: it is out of range.

    Example:
        >>> import torch
        >>> point = torch.zeros(1, 1, 1, 5)
        >>> point[..., 2] = 1
        >>> Blur(1).apply(point, torch.tensor([1.0]))
        tensor([[[[0.0772, 0.2571, 0.4026, 0.2571, 0.0772]]]])
    """

    sigma: float

    def __post_init__(self) -> None:
        check_range("Blur", "sigma", self.sigma, 0, float("inf"))

    def draw(self, rng: Keyed, shape: tuple[int, ...]) -> Drawn:
        """Standard deviations in pixels, `(n,)`."""
        return rng.uniform(high=self.sigma)

    def apply(self, x: Tensor, drawn: Drawn) -> Tensor:
        """The blurred images."""
        check_images(x, self)
        down, right = (_weights(drawn.to(x.dtype), side)[:, None] for side in x.shape[2:])
        return down @ x @ right.transpose(2, 3)


def _weights(sigma: Tensor, side: int) -> Tensor:
    """How much of each pixel every pixel of a line receives, `(n, side, side)`."""
    place = torch.arange(side, dtype=sigma.dtype, device=sigma.device)
    distance = (place[:, None] - place).square()
    tiny = torch.finfo(sigma.dtype).tiny ** 0.5
    return (-distance / (2 * sigma.clamp_min(tiny).square()[:, None, None])).softmax(dim=2)


@final
@dataclass(frozen=True, init=False, repr=False)
class Resample(Transformation):
    """Transformations at another resolution: the image is enlarged, transformed, and brought back to its size.

    On a print every pixel is a square, and a pixel of a sensor averages over what it covers: enlarging repeats pixels,
    and shrinking takes the mean of those that fall together. A whole factor alone so changes nothing.

    Args:
        factor: how many times the pixels of a side; below 1 details are lost.
        transformations: what happens in between.

    Shapes:
        x: `(n, channels, height, width)`.

    Raises:
        SettingError: the factor is out of range, or something is no transformation.

    Example:
        >>> import torch
        >>> flat = torch.full((1, 3, 8, 8), 0.25)
        >>> bool(torch.allclose(Resample(2, Blur(1)).apply(flat, (torch.tensor([1.0]),)), flat))
        True
    """

    factor: float
    transformations: tuple[Transformation, ...]

    def __init__(self, factor: float, *transformations: Transformation) -> None:
        check_range("Resample", "factor", factor, 0.05, 20)
        check_transformations("Resample", transformations)
        object.__setattr__(self, "factor", factor)
        object.__setattr__(self, "transformations", transformations)

    def __repr__(self) -> str:
        return f"Resample({', '.join(map(repr, (self.factor, *self.transformations)))})"

    def draw(self, rng: Keyed, shape: tuple[int, ...]) -> Drawn:
        """What the transformations draw for images of the other size.

        Raises:
            InputError: the inputs are no images.
        """
        if len(shape) != 3:
            raise InputError(f"{self!r} is for images (channels, height, width); got inputs of shape {tuple(shape)}.")
        return draw_each(self.transformations, rng, (*shape[:-2], *self._size(shape)))

    def apply(self, x: Tensor, drawn: Drawn) -> Tensor:
        """The images, transformed at the other resolution."""
        check_images(x, self)
        printed = apply_each(self.transformations, _resized(x, self._size(x.shape)), drawn)
        return _resized(printed, (x.shape[2], x.shape[3])).clamp(0, 1)

    def _size(self, shape: tuple[int, ...]) -> tuple[int, int]:
        height, width = (max(1, round(side * self.factor)) for side in shape[-2:])
        return height, width


def check_transformations(who: str, transformations: tuple[object, ...]) -> None:
    """Hold that these are transformations.

    Raises:
        SettingError: one is not.
    """
    for each in transformations:
        if not isinstance(each, Transformation):
            raise SettingError(f"{who} takes transformations such as Rotate(20); got {each!r}.")


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    if size[0] >= x.shape[2]:
        return interpolate(x, size, mode="nearest-exact")
    return interpolate(x, size, mode="area")
