"""Bilinear sampling of images at any places, with gradients in the places that hold at whole pixels too."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.errors import ThreatError
from assay.threats.additive import HALF, clip
from assay.threats.base import shown

_ROUNDING = 1e-3  # pixels that a place on the border may be outside after sums

Padding: TypeAlias = Literal["zeros", "border", "reflection"]
PADDINGS = ("zeros", "border", "reflection")


def check_images(x: Tensor, who: str) -> None:
    """Hold that inputs are images.

    Raises:
        ThreatError: they are not `(b, c, height, width)`.
    """
    if x.ndim != 4:
        raise ThreatError(
            f"{who} moves the pixels of images (b, c, height, width); got inputs of shape {shown(x)}. For others "
            "use an additive threat such as Linf(8 / 255)."
        )


def check_padding(padding: str) -> None:
    """Hold that the padding is known.

    Raises:
        ThreatError: it is not.
    """
    if padding not in PADDINGS:
        raise ThreatError(f"padding must be one of {', '.join(map(repr, PADDINGS))}; got {padding!r}.")


def pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel, `(height, 1)` and `(width,)`; in float32 at least."""
    height, width = x.shape[2:]
    dtype = torch.float32 if x.dtype in HALF else x.dtype
    rows = torch.arange(height, device=x.device, dtype=dtype)
    return rows[:, None], torch.arange(width, device=x.device, dtype=dtype)


def sample(x: Tensor, row: Tensor, column: Tensor, padding: Padding, bounds: tuple[float, float]) -> Tensor:
    """The images at these places, differentiable in them.

    Between four pixels the value is bilinear, so that its slope jumps at whole places. There the gradient is the mean
    of both sides: a move that changes nothing stands at such a place in every pixel, and the slope of one side alone
    says nothing of steps to the other. Values at whole places are exact.

    Args:
        x: images, `(b, c, h, w)`.
        row: `(b, h', w')`, in pixels from the centre of the first one.
        column: the same along the width.
        padding: what is outside: "zeros" 0 (or the valid value nearest to it), "border" the nearest pixel (on the
            outermost pixels with the slope of the inside, beyond them with none), "reflection" the image mirrored at
            the centres of its outermost pixels.
        bounds: the smallest and largest valid value.

    Returns:
        `(b, c, h', w')` inside the bounds.

    Example:
        >>> x = torch.tensor([[[[0.0, 0.5, 1.0]]]])
        >>> sample(x, torch.zeros(1, 1, 2), torch.tensor([[[0.5, 2.25]]]), "zeros", (0.0, 1.0))
        tensor([[[[0.2500, 0.7500]]]])
    """
    if padding == "border":
        row, column = _to_border(row, x.shape[2]), _to_border(column, x.shape[3])
    outside = min(max(0.0, bounds[0]), bounds[1]) if padding == "zeros" else None
    pixel = _Pixels(x, padding, outside)
    top, left = row.detach().floor(), column.detach().floor()
    value = pixel.between(row, column, top, left)
    whole = ((top == row) | (left == column)).flatten(1).any(dim=1).nonzero().squeeze(1)
    if len(whole):
        part, row, column = pixel.at(whole), row[whole], column[whole]
        other = part.between(row, column, row.detach().ceil() - 1, column.detach().ceil() - 1)
        value = value.index_copy(0, whole, (value[whole] + other) / 2)
    return value.to(x.dtype)


def _to_border(place: Tensor, length: int) -> Tensor:
    """Places along an axis moved into the image; one that is outside by more than rounding has no slope."""
    beyond = (place < -_ROUNDING) | (place > length - 1 + _ROUNDING)
    return clip(torch.where(beyond, place.detach(), place), 0, length - 1)


@final
@dataclass(frozen=True)
class _Pixels:
    """Images that are asked for values between their pixels.

    Args:
        x: images, `(b, c, h, w)`.
        padding: what is outside.
        outside: the value there, where it is one.
    """

    x: Tensor
    padding: Padding
    outside: float | None

    def at(self, rows: Tensor) -> Self:
        """Those of a part of the batch."""
        return replace(self, x=self.x[rows])

    def between(self, row: Tensor, column: Tensor, top: Tensor, left: Tensor) -> Tensor:
        """Bilinear between the whole places from (top, left) on and the next."""
        b, c, height, width = self.x.shape
        if self.padding == "border":  # both neighbours inside, so that the outermost pixels have a slope
            top, left = top.clamp(0, max(height - 2, 0)), left.clamp(0, max(width - 2, 0))
        down, across = (row - top)[:, None], (column - left)[:, None]
        flat = self.x.flatten(2)
        flat = flat.float() if flat.dtype in HALF else flat
        columns = [self._seen(left + side, width) for side in (0, 1)]
        lines = []
        for side in (0, 1):
            line, known = self._seen(top + side, height)
            ends = []
            for place, there in columns:
                index = (line * width + place).flatten(1)[:, None].expand(b, c, -1)
                end = flat.gather(2, index).reshape(b, c, *row.shape[1:])
                ends.append(end if self.outside is None else end.where((known & there)[:, None], self.outside))
            lines.append(torch.lerp(ends[0], ends[1], across.to(flat)))
        return torch.lerp(lines[0], lines[1], down.to(flat))

    def _seen(self, place: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Number of the pixel that is seen at a whole place, and whether it stands there."""
        place = place.long()
        if self.padding == "reflection":
            period = max(2 * (length - 1), 1)
            seen = place.abs() % period
            seen = torch.minimum(seen, period - seen) if length > 1 else torch.zeros_like(place)
        else:
            seen = place.clamp(0, length - 1)
        return seen, seen == place
