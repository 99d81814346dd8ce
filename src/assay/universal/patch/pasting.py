"""How a patch gets into an image: its shape and area, the places that are drawn for it, and the pasting itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import torch
from torch import Tensor
from torch.nn import functional

from assay.errors import InputError, SettingError
from assay.rng import Keyed

_SHAPES = ("circle", "square")


class Places(NamedTuple):
    """Where a patch lies in each image of a batch.

    Attributes:
        centre: column and row of its centre in pixels from the image's upper left corner, `(b, 2)`.
        half: half of its side (the radius of a circle) in pixels, `(b,)`.
        angle: by how much it is turned, in radians, `(b,)`.
    """

    centre: Tensor
    half: Tensor
    angle: Tensor


@final
@dataclass(frozen=True, kw_only=True)
class Pasting:
    r"""The operator $A(p, x, l, t)$: a patch p is scaled, turned and put over a part of each image.

    $x' = (1 - \alpha) x + \alpha \cdot p(u)$, where u is a pixel's place in the patch's own frame, $p(u)$ its bilinear
    value there, and $\alpha$ how much of the pixel the shape covers: 1 inside, 0 outside, and in between on the one
    pixel along its edge. Differentiable in p.

    Places are drawn for each image by itself: the scale and the angle uniform in their ranges, then the centre uniform
    among those where all of the patch lies inside the image.

    Args:
        area: share of the image that the patch covers at scale 1; at scale s it covers s squared times that.
        shape: "circle" or "square".
        rotation: it is turned by up to so many degrees to either side.
        scale: the least and the largest factor of its side; (0.8, 1.0) for one that never covers more than `area`.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        The paper gives no formula for the edge; one pixel of soft edge keeps the covered area at what the settings say.

    References:
        Brown, Mane, Roy, Abadi, Gilmer, "Adversarial patch", NeurIPS workshop 2017, https://arxiv.org/abs/1712.09665

    Example:
        >>> pasting = Pasting(area=0.1)
        >>> pasting.pixels(32, 32)
        14
        >>> places = pasting.draw(Keyed(0, torch.arange(2)), 32, 32)
        >>> pasting.paste(torch.zeros(2, 3, 32, 32), torch.ones(3, 14, 14), places).shape
        torch.Size([2, 3, 32, 32])
    """

    area: float = 0.1
    shape: Literal["circle", "square"] = "circle"
    rotation: float = 22.5
    scale: tuple[float, float] = (0.8, 1.2)

    def __post_init__(self) -> None:
        if not _real(self.area) or not 0 < self.area <= 1:
            raise SettingError(f"area must be above 0 and at most 1, a share of the image; got {self.area!r}.")
        if self.shape not in _SHAPES:
            raise SettingError(f"shape must be 'circle' or 'square'; got {self.shape!r}.")
        if not _real(self.rotation) or not 0 <= self.rotation <= 180:
            raise SettingError(f"rotation must lie between 0 and 180 degrees; got {self.rotation!r}.")
        pair = tuple(self.scale) if isinstance(self.scale, (tuple, list)) else ()
        if len(pair) != 2 or not all(map(_real, pair)) or not 0 < pair[0] <= pair[1] < math.inf:
            raise SettingError(f"scale must be two numbers (least, largest) above 0; got {self.scale!r}.")
        object.__setattr__(self, "scale", (float(pair[0]), float(pair[1])))

    def side(self, height: int, width: int) -> float:
        """The side (the diameter of a circle) in pixels at scale 1."""
        return math.sqrt(self.area * height * width * (4 / math.pi if self.shape == "circle" else 1))

    def pixels(self, height: int, width: int) -> int:
        """How many pixels a patch has along its side, so that it has one at least for each of the image's."""
        return max(1, math.ceil(self.side(height, width) * self.scale[1]))

    def check(self, height: int, width: int) -> None:
        """Hold that the patch fits into images of this size, however it is turned.

        Raises:
            SettingError: it does not.
        """
        turn = math.radians(min(self.rotation, 45.0))
        reach = 1.0 if self.shape == "circle" else math.cos(turn) + math.sin(turn)
        longest = self.side(height, width) * self.scale[1] * reach
        if longest > min(height, width):
            raise SettingError(
                f"a {self.shape} of area {self.area:g} is up to {longest:.1f} pixels long, and the images have "
                f"{height} x {width}: choose a smaller area, scale or rotation."
            )

    def draw(self, rng: Keyed, height: int, width: int) -> Places:
        """A place for each sample."""
        self.check(height, width)
        lot = rng.uniform(4)
        angle = (2 * lot[:, 0] - 1) * math.radians(self.rotation)
        scale = self.scale[0] + (self.scale[1] - self.scale[0]) * lot[:, 1]
        half = scale * (self.side(height, width) / 2)
        reach = half if self.shape == "circle" else half * (angle.cos().abs() + angle.sin().abs())
        room = torch.stack([width - 2 * reach, height - 2 * reach], dim=1).clamp_min(0)
        return Places(reach[:, None] + lot[:, 2:] * room, half, angle)

    def paste(self, x: Tensor, patch: Tensor, places: Places) -> Tensor:
        """The images with the patch.

        Args:
            x: images, `(b, c, h, w)`.
            patch: `(c, p, p)`.
            places: one for each image.

        Raises:
            InputError: the inputs are no images, or have other channels than the patch.
        """
        if x.ndim != 4 or x.shape[1] != patch.shape[0]:
            raise InputError(
                f"a patch of shape {tuple(patch.shape)} needs images (b, {patch.shape[0]}, height, width); got "
                f"{tuple(x.shape)}."
            )
        frame, cover = self._frame(x, places)
        value = functional.grid_sample(
            patch.expand(len(x), *patch.shape), frame, mode="bilinear", padding_mode="border", align_corners=False
        )
        return torch.lerp(x, value, cover[:, None])

    def cover(self, x: Tensor, places: Places) -> Tensor:
        """How much of each pixel the patch covers, `(b, h, w)`."""
        return self._frame(x, places)[1]

    def _frame(self, x: Tensor, places: Places) -> tuple[Tensor, Tensor]:
        """Each pixel's place in the patch, -1 to 1 from edge to edge, `(b, h, w, 2)`, and how much is covered."""
        row, col = (torch.arange(n, device=x.device, dtype=x.dtype) + 0.5 for n in x.shape[-2:])
        centre, half, angle = (part.to(x) for part in places)
        right = (col - centre[:, :1])[:, None, :]
        down = (row - centre[:, 1:])[:, :, None]
        cos, sin, half = (part[:, None, None] for part in (angle.cos(), angle.sin(), half))
        across, along = (right * cos + down * sin) / half, (down * cos - right * sin) / half
        if self.shape == "circle":
            distance = (across.square() + along.square()).sqrt()
        else:
            distance = torch.maximum(across.abs(), along.abs())
        return torch.stack([across, along], dim=-1), ((1 - distance) * half + 0.5).clamp(0, 1)


def _real(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
