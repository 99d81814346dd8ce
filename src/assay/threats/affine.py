"""Rotations and translations of whole images: moves of one or two numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

from torch import Tensor

from assay.threats.boxed import Boxed
from assay.threats.sampling import check_images, check_padding, pixels, sample


@final
@dataclass(frozen=True, eq=False, repr=False)
class Rotation(Boxed):
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

    padding: Literal["zeros", "border", "reflection"] = field(default="zeros", kw_only=True)

    name: ClassVar[str] = "rotation"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_padding(self.padding)

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """The turned image."""
        check_images(x, "Rotation")
        row, column = pixels(x)
        middle_row, middle_column = (x.shape[2] - 1) / 2, (x.shape[3] - 1) / 2
        angle = (theta.to(row) * (math.pi / 180))[:, :, None]
        cos, sin = angle.cos(), angle.sin()
        down, right = row - middle_row, column - middle_column
        return sample(
            x,
            down * cos + right * sin + middle_row,
            right * cos - down * sin + middle_column,
            self.padding,
            self.bounds,
        )

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        check_images(x, "Rotation")
        return (1,)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Translation(Boxed):
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

    padding: Literal["zeros", "border", "reflection"] = field(default="zeros", kw_only=True)

    name: ClassVar[str] = "translation"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_padding(self.padding)

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """The shifted image."""
        check_images(x, "Translation")
        row, column = pixels(x)
        down, right = theta.to(row)[:, :, None, None].unbind(1)
        shape = (len(x), *x.shape[2:])
        return sample(x, (row - down).expand(shape), (column - right).expand(shape), self.padding, self.bounds)

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        check_images(x, "Translation")
        return (2,)
