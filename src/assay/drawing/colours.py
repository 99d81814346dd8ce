"""Colour maps and tone curves: what becomes of the colours of the image."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from assay.drawing.tiles import ACCENT, FAINT, INK, SIDE, Canvas, Tile, blank, fitted, shares
from assay.threats import Recolor, ToneCurve
from assay.threats.colour import luv

_ARROWS, _SWATCHES = 28, 8
_STRIP, _MARGIN = 56, 10  # pixels: the height of the swatches, the space around the arrows
_LEAST = 30.0  # of u* and v* that are shown


def recolor(threat: Recolor, x: Tensor, theta: Tensor) -> Tile:
    """Arrows in the plane of u* (to the right) and v* (up), and swatches: above before, below after."""
    low, high = threat.bounds

    def mapped(colours: Tensor) -> Tensor:
        moved = threat.apply((low + (high - low) * colours).to(x).t()[None, :, None], theta)
        return shares(moved, threat.bounds)[0, :, 0].t().double()

    canvas = Canvas(blank())
    few, many = (_palette(shares(x, threat.bounds), n) for n in (_SWATCHES, _ARROWS))
    farthest = _plane(canvas, many, mapped(many))
    _swatches(canvas, few, mapped(few))
    return Tile(head=threat.name, image=canvas.image(), words=f"CIELUV, by up to {farthest:.1f}")


def tone_curve(threat: ToneCurve, x: Tensor, theta: Tensor) -> Tile:
    """The value after over the value before, on a histogram of the image's values."""
    low, high = threat.bounds
    value = torch.linspace(low, high, SIDE + 1, dtype=torch.float64)
    after = threat.apply(value[None, None].to(x), theta)[0, 0].double()
    shifts = (after - value).abs()
    canvas = Canvas(blank())
    counts = torch.histc(shares(x, threat.bounds).float().flatten(), bins=SIDE // 4, min=0, max=1)
    for i, share in enumerate((counts / counts.max()).tolist()):
        canvas.box((4 * i, SIDE - share * SIDE / 2), (4 * i + 3, SIDE), FAINT)
    canvas.line([(0, SIDE), (SIDE, 0)], INK, 0.8)
    drawn = shares(after, threat.bounds).tolist()
    canvas.line([(float(i), SIDE - y * SIDE) for i, y in enumerate(drawn)], ACCENT, 2)
    return Tile(head="tone curve", image=canvas.image(), words=f"values move by up to {float(shifts.max()):.2g}")


def _palette(share: Tensor, colours: int) -> Tensor:
    """Colours that stand for an image's, `(n, 3)` in [0, 1]."""
    image = fitted(share[0]).convert("RGB").quantize(colours, method=Image.Quantize.MEDIANCUT)
    table = np.asarray(image.getpalette(), dtype=np.float64).reshape(-1, 3)
    return torch.from_numpy(table[np.unique(np.asarray(image))] / 255)


def _luv(colours: Tensor) -> Tensor:
    """L*, u* and v* of colours `(n, 3)`."""
    scaled = luv(colours.t()[None])[0].t()
    return scaled * scaled.new_tensor([100, 200, 200]) - scaled.new_tensor([0, 100, 100])


def _plane(canvas: Canvas, before: Tensor, after: Tensor) -> float:
    """Arrows from colours before to colours after; returns the longest way, lightness included."""
    old, new = _luv(before), _luv(after)
    ends = torch.cat([old, new])[:, 1:]
    low, high = ends.amin(dim=0), ends.amax(dim=0)
    tall = SIDE - _STRIP
    scale = min(
        (size - 2 * _MARGIN) / max(_LEAST, float(span)) for size, span in zip((SIDE, tall), high - low, strict=True)
    )
    middle = (low + high) / 2

    def place(colour: Tensor) -> tuple[float, float]:
        right, up = ((colour - middle) * scale).tolist()
        return SIDE / 2 + right, tall / 2 - up

    grey = place(torch.zeros_like(middle))
    if 0 <= grey[0] < SIDE:
        canvas.line([(grey[0], 0), (grey[0], tall)], FAINT, 0.8)
    if 0 <= grey[1] < tall:
        canvas.line([(0, grey[1]), (SIDE, grey[1])], FAINT, 0.8)
    for colour, point in zip(before, old[:, 1:], strict=True):
        canvas.dot(*place(point), 4.5, _hex(colour), rim=INK)
    for start, end in zip(old[:, 1:], new[:, 1:], strict=True):
        canvas.arrow(place(start), place(end), INK, 1.2)
    return float((new - old).norm(dim=1).max())


def _swatches(canvas: Canvas, before: Tensor, after: Tensor) -> None:
    """Colours from dark to light: above before, below after."""
    chosen = _luv(before)[:, 0].argsort()
    wide, top = SIDE / len(chosen), SIDE - _STRIP
    for place, i in enumerate(chosen.tolist()):
        left, right = round(place * wide), round((place + 1) * wide)
        canvas.box((left, top), (right, top + _STRIP / 2), _hex(before[i]))
        canvas.box((left, top + _STRIP / 2), (right, SIDE), _hex(after[i]))


def _hex(colour: Tensor) -> str:
    red, green, blue = (round(value * 255) for value in colour.tolist())
    return f"#{red:02x}{green:02x}{blue:02x}"
