"""Rotations and translations of whole images: moves of one or two numbers."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

from torch import Tensor

from assay.threats.boxed import Boxed
from assay.threats.sampling import check_images, check_padding, pixels, sample


@dataclass(frozen=True, eq=False, repr=False)
class _WholeImage(Boxed):
    """A move of all pixels together, which brings in what is outside of the image."""

    padding: Literal["zeros", "border", "reflection"] = field(default="zeros", kw_only=True)

    numbers: ClassVar[int]  # that a move consists of

    def __post_init__(self) -> None:
        super().__post_init__()
        check_padding(self.padding)

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """The moved image."""
        check_images(x, type(self).__name__)
        return sample(x, *self._places(x, theta), self.padding, self.bounds)

    @abstractmethod
    def _places(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Row and column of the place that each pixel is taken from, `(b, height, width)`."""

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        check_images(x, type(self).__name__)
        return (self.numbers,)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Rotation(_WholeImage):
    r"""The image turned about its centre by at most eps degrees, counter-clockwise where the angle is positive.

    $x'(p) = x(c + R(\theta) (p - c))$, with c the centre of the image, by bilinear interpolation. A move is one angle,
    `(b, 1)`.

    Args:
        eps: the largest angle in degrees.
        bounds: the smallest and largest valid input value.
        padding: what comes in from outside: "zeros" (or the valid value nearest to 0), "border" for the nearest pixel,
            or "reflection".

    Shapes:
        x `(b, c, height, width)`.

    Raises:
        ThreatError: the padding is unknown; at use, the inputs are not images.

    References:
        Engstrom, Tran, Tsipras, Schmidt, Madry, "Exploring the landscape of spatial robustness", ICML 2019,
        https://arxiv.org/abs/1712.02779 (at most 30 degrees, zeros outside).

    Example:
        >>> import torch
        >>> x = torch.tensor([[[[0.0, 1.0], [0.0, 0.0]]]])
        >>> Rotation(90).apply(x, torch.tensor([[90.0]])).round(decimals=4)
        tensor([[[[1., 0.],
                  [0., 0.]]]])
    """

    name: ClassVar[str] = "rotation"
    numbers: ClassVar[int] = 1

    def _places(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        row, column = pixels(x)
        middle_row, middle_column = (x.shape[2] - 1) / 2, (x.shape[3] - 1) / 2
        angle = (theta.to(row) * (math.pi / 180))[:, :, None]
        cos, sin = angle.cos(), angle.sin()
        down, right = row - middle_row, column - middle_column
        return down * cos + right * sin + middle_row, right * cos - down * sin + middle_column


@final
@dataclass(frozen=True, eq=False, repr=False)
class Translation(_WholeImage):
    r"""The image shifted by at most eps pixels down or up, and by as many to the right or left.

    $x'(p) = x(p - \theta)$ by bilinear interpolation: shifts need not be whole. A move is (down, right), `(b, 2)`.

    Args:
        eps: the longest shift along each axis, in pixels.
        bounds: the smallest and largest valid input value.
        padding: what comes in from outside: "zeros" (or the valid value nearest to 0), "border" for the nearest pixel,
            or "reflection".

    Shapes:
        x `(b, c, height, width)`.

    Raises:
        ThreatError: the padding is unknown; at use, the inputs are not images.

    References:
        Engstrom, Tran, Tsipras, Schmidt, Madry, "Exploring the landscape of spatial robustness", ICML 2019,
        https://arxiv.org/abs/1712.02779 (at most a tenth of the image's side, zeros outside).

    Example:
        >>> import torch
        >>> x = torch.tensor([[[[0.2, 1.0], [0.4, 0.6]]]])
        >>> Translation(1).apply(x, torch.tensor([[0.0, 0.5]]))
        tensor([[[[0.1000, 0.6000],
                  [0.2000, 0.5000]]]])
    """

    name: ClassVar[str] = "translation"
    numbers: ClassVar[int] = 2

    def _places(self, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        row, column = pixels(x)
        down, right = theta.to(row)[:, :, None, None].unbind(1)
        shape = (len(x), *x.shape[2:])
        return (row - down).expand(shape), (column - right).expand(shape)
