"""Tiles: images of one size, and a canvas to draw lines on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

from assay.errors import InputError

SIDE = 224
"""Pixels along the longer side of a tile; a multiple of the sides of many small images."""
INK, ACCENT, FAINT, PAPER = "#30343b", "#c2124f", "#c9ccd2", "#f7f7f8"

_FINER = 4  # times finer than the tile are lines drawn, to be smooth
_LONGEST = 512  # features of a vector that are drawn as a strip


@final
@dataclass(frozen=True, kw_only=True)
class Tile:
    """One image with words.

    Attributes:
        head: what it is.
        image: the image.
        words: what is to be said of it.
    """

    head: str
    image: Image.Image
    words: str


@final
class Canvas:
    """Lines and dots on a background, smooth at the tile's size; all places and widths are in its pixels.

    Args:
        background: what is drawn on.
    """

    def __init__(self, background: Image.Image) -> None:
        self.width, self.height = background.size
        large = (self.width * _FINER, self.height * _FINER)
        self._image = background.convert("RGB").resize(large, Image.Resampling.NEAREST)
        self._pen = ImageDraw.Draw(self._image)

    def line(self, points: list[tuple[float, float]], colour: str, width: float) -> None:
        """Straight lines from point to point, each (right, down)."""
        self._pen.line(_finer(points), fill=colour, width=max(1, round(width * _FINER)), joint="curve")

    def polygon(self, points: list[tuple[float, float]], colour: str) -> None:
        """A filled shape."""
        self._pen.polygon(_finer(points), fill=colour)

    def dot(self, right: float, down: float, radius: float, colour: str, rim: str | None = None) -> None:
        """A filled circle."""
        box = _finer([(right - radius, down - radius), (right + radius, down + radius)])
        self._pen.ellipse(box, fill=colour, outline=rim, width=_FINER)

    def box(self, corner: tuple[float, float], opposite: tuple[float, float], colour: str) -> None:
        """A filled rectangle."""
        (left, top), (right, bottom) = _finer([corner, opposite])
        self._pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), fill=colour)

    def arrow(self, start: tuple[float, float], end: tuple[float, float], colour: str, width: float) -> None:
        """A line with a head at its end, which shrinks with short ones."""
        way = np.subtract(end, start)
        length = float(np.hypot(*way))
        if length < 0.3:
            return
        along = way / length
        across = np.array([-along[1], along[0]])
        head = min(length * 0.55, 3.2 * width + 1.5)
        neck = np.asarray(end) - along * head
        self.line([start, (float(neck[0]), float(neck[1]))], colour, width)
        corners = [np.asarray(end), neck + across * head * 0.45, neck - across * head * 0.45]
        self.polygon([(float(right), float(down)) for right, down in corners], colour)

    def image(self) -> Image.Image:
        """What was drawn."""
        return self._image.resize((self.width, self.height), Image.Resampling.BOX)


def fitted(share: Tensor, side: int = SIDE) -> Image.Image:
    """An image of shares in [0, 1], enlarged by whole pixels, or made smaller to fit.

    Args:
        share: `(channels, height, width)` with 1, 3 or 4 channels, `(height, width)`, or a short vector `(features,)`.
        side: the most pixels along a side.

    Raises:
        InputError: it is neither an image nor a short vector.
    """
    values = np.rint(share.detach().float().cpu().nan_to_num().clamp(0, 1).numpy() * 255).astype(np.uint8)
    if values.ndim == 1 and len(values) <= _LONGEST:
        return Image.fromarray(values[None]).resize((side, side // 4), Image.Resampling.NEAREST)
    if values.ndim == 3 and values.shape[0] in (1, 3, 4):
        values = values[0] if values.shape[0] == 1 else np.moveaxis(values[:3], 0, -1)
    elif values.ndim != 2:
        raise InputError(f"inputs of shape {tuple(share.shape)} are neither images nor short vectors: no picture.")
    drawn = Image.fromarray(np.ascontiguousarray(values))
    times = side // max(drawn.size)
    if times >= 1:
        return drawn.resize((drawn.width * times, drawn.height * times), Image.Resampling.NEAREST)
    drawn.thumbnail((side, side), Image.Resampling.LANCZOS)
    return drawn


def shares(x: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Inputs inside the bounds as shares in [0, 1]."""
    low, high = bounds
    return (x - low) / (high - low)


def pale(image: Image.Image) -> Image.Image:
    """The image in light grey, as a background."""
    grey = np.asarray(image.convert("L"), dtype=np.float32)
    return Image.fromarray(np.rint(150 + grey * (105 / 255)).astype(np.uint8)).convert("RGB")


def blank(width: int = SIDE, height: int = SIDE) -> Image.Image:
    """An empty background for plots."""
    return Image.new("RGB", (width, height), PAPER)


def _finer(points: list[tuple[float, float]]) -> list[Any]:
    return [(right * _FINER, down * _FINER) for right, down in points]
