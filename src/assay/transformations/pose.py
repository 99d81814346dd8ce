"""Where the camera stands: rotation, scale, translation and perspective."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from assay.errors import SettingError
from assay.rng import Keyed
from assay.transformations.base import Drawn, Transformation, check_images, check_range

_PADDINGS = ("zeros", "border", "reflection")


@final
@dataclass(frozen=True, repr=False)
class Rotate(Transformation):
    """Rotation about the centre by an angle uniform on [-degrees, degrees], counter-clockwise where positive.

    Args:
        degrees: the largest angle, from 0 to 180.
        padding: what comes in from outside: "zeros" (black), "border" (the nearest pixel) or "reflection".

    Raises:
        SettingError: a setting is out of range.

    Example:
        >>> import torch
        >>> Rotate(90).apply(torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]]), torch.tensor([90.0]))
        tensor([[[[0.2000, 0.4000],
                  [0.1000, 0.3000]]]])
    """

    degrees: float
    padding: Literal["zeros", "border", "reflection"] = "zeros"

    def __post_init__(self) -> None:
        check_range("Rotate", "degrees", self.degrees, 0, 180)
        _check_padding(self.padding)

    def draw(self, rng: Keyed, shape: tuple[int, ...]) -> Drawn:
        """Angles in degrees, `(n,)`."""
        return rng.uniform(low=-self.degrees, high=self.degrees)

    def apply(self, x: Tensor, drawn: Drawn) -> Tensor:
        """The rotated images."""
        check_images(x, self)
        angle = drawn.to(x.dtype) * (math.pi / 180)
        one, zero = torch.ones_like(angle), torch.zeros_like(angle)
        cos, sin = angle.cos(), angle.sin()
        rows = [cos, -sin, zero, sin, cos, zero, zero, zero, one]  # rows grow downwards
        return _warped(x, torch.stack(rows, dim=1).reshape(-1, 3, 3), self.padding)


@final
@dataclass(frozen=True, repr=False)
class Scale(Transformation):
    """A change of size about the centre by a factor uniform on [1 - strength, 1 + strength].

    Args:
        strength: the largest relative change of size, from 0 to below 1.
        padding: as for `Rotate`.

    Raises:
        SettingError: a setting is out of range.

    Example:
        >>> import torch
        >>> Scale(0.5, padding="border").apply(torch.rand(2, 3, 8, 8), torch.tensor([0.5, 1.5])).shape
        torch.Size([2, 3, 8, 8])
    """

    strength: float
    padding: Literal["zeros", "border", "reflection"] = "zeros"

    def __post_init__(self) -> None:
        check_range("Scale", "strength", self.strength, 0, 0.99)
        _check_padding(self.padding)

    def draw(self, rng: Keyed, shape: tuple[int, ...]) -> Drawn:
        """Factors, `(n,)`."""
        return rng.uniform(low=1 - self.strength, high=1 + self.strength)

    def apply(self, x: Tensor, drawn: Drawn) -> Tensor:
        """The larger or smaller images, in the frame that they had."""
        check_images(x, self)
        factor = 1 / drawn.to(x.dtype)
        return _warped(x, torch.diag_embed(torch.stack([factor, factor, torch.ones_like(factor)], dim=1)), self.padding)


@final
@dataclass(frozen=True, repr=False)
class Translate(Transformation):
    """A shift, along each axis uniform on [-pixels, pixels].

    Args:
        pixels: the largest shift along an axis; fractions are allowed.
        padding: as for `Rotate`.

    Raises:
        SettingError: a setting is out of range.

    Example:
        >>> import torch
        >>> Translate(1).apply(torch.tensor([[[[0.1, 0.2, 0.3]]]]), torch.tensor([[1.0, 0.0]]))
        tensor([[[[0.0000, 0.1000, 0.2000]]]])
    """

    pixels: float
    padding: Literal["zeros", "border", "reflection"] = "zeros"

    def __post_init__(self) -> None:
        check_range("Translate", "pixels", self.pixels, 0, math.inf)
        _check_padding(self.padding)

    def draw(self, rng: Keyed, shape: tuple[int, ...]) -> Drawn:
        """Shifts to the right and downwards in pixels, `(n, 2)`."""
        return rng.uniform(2, low=-self.pixels, high=self.pixels)

    def apply(self, x: Tensor, drawn: Drawn) -> Tensor:
        """The shifted images."""
        check_images(x, self)
        matrix = torch.eye(3, dtype=x.dtype, device=x.device).repeat(len(x), 1, 1)
        matrix[:, :2, 2] = -drawn.to(x.dtype)
        return _warped(x, matrix, self.padding)


@final
@dataclass(frozen=True, repr=False)
class Perspective(Transformation):
    """A view from aside: each corner of the image moves on its own, and what is between follows the homography.

    Args:
        strength: the farthest that a corner moves along an axis, as a share of the side, from 0 to 0.4.
        padding: as for `Rotate`.

    Raises:
        SettingError: a setting is out of range.

    Example:
        >>> import torch
        >>> x = torch.rand(1, 3, 8, 8)
        >>> bool(torch.allclose(Perspective(0.1).apply(x, torch.zeros(1, 4, 2)), x, atol=1e-5))
        True
    """

    strength: float
    padding: Literal["zeros", "border", "reflection"] = "zeros"

    def __post_init__(self) -> None:
        check_range("Perspective", "strength", self.strength, 0, 0.4)
        _check_padding(self.padding)

    def draw(self, rng: Keyed, shape: tuple[int, ...]) -> Drawn:
        """How far the corners move (top left, top right, bottom left, bottom right) in shares, `(n, 4, 2)`."""
        return rng.uniform(4, 2, low=-self.strength, high=self.strength)

    def apply(self, x: Tensor, drawn: Drawn) -> Tensor:
        """The images as seen from aside."""
        check_images(x, self)
        height, width = x.shape[2:]
        size = torch.tensor([width, height], dtype=torch.float64, device=x.device)
        corners = torch.tensor([[-1, -1], [1, -1], [-1, 1], [1, 1]], dtype=torch.float64, device=x.device) * size / 2
        moved = corners + drawn.double() * size
        return _warped(x, _homography(moved, corners.expand_as(moved)).to(x.dtype), self.padding)


def _check_padding(padding: str) -> None:
    if padding not in _PADDINGS:
        raise SettingError(f"padding must be one of {', '.join(map(repr, _PADDINGS))}; got {padding!r}.")


def _homography(source: Tensor, target: Tensor) -> Tensor:
    """The matrices that take four points `(n, 4, 2)` to four others, `(n, 3, 3)` with 1 in the last place."""
    one, zero = torch.ones_like(source[..., :1]), torch.zeros_like(source[..., :1])
    zeros = torch.cat([zero, zero, zero], dim=2)
    point = torch.cat([source, one], dim=2)
    across = torch.cat([point, zeros, -target[..., :1] * source], dim=2)
    down = torch.cat([zeros, point, -target[..., 1:] * source], dim=2)
    known = torch.cat([target[..., 0], target[..., 1]], dim=1)
    found = torch.linalg.solve(torch.cat([across, down], dim=1), known)
    return torch.cat([found, torch.ones_like(found[:, :1])], dim=1).reshape(-1, 3, 3)


def _warped(x: Tensor, matrix: Tensor, padding: str) -> Tensor:
    """Images whose pixel at p shows what was at `matrix p`; p is (right, down, 1) in pixels from the centre."""
    height, width = x.shape[2:]
    right = torch.arange(width, dtype=x.dtype, device=x.device) - (width - 1) / 2
    down = torch.arange(height, dtype=x.dtype, device=x.device) - (height - 1) / 2
    point = torch.stack([right.repeat(height), down.repeat_interleave(width), x.new_ones(height * width)], dim=1)
    seen = point @ matrix.transpose(1, 2)
    place = seen[..., :2] / seen[..., 2:] * x.new_tensor([2 / width, 2 / height])
    grid = place.reshape(-1, height, width, 2)
    return grid_sample(x, grid, mode="bilinear", padding_mode=padding, align_corners=False)
