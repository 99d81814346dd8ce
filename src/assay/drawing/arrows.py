"""Flows, rotations and translations as arrows: from where each piece of the image comes to where it goes."""

from __future__ import annotations

from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from assay.drawing.tiles import ACCENT, Canvas, Tile, fitted, pale, shares
from assay.threats import Flow, Rotation, Threat, Translation

_UNEVEN, _EVEN = 16, 7  # arrows along the longer side
_STILL = 1e-3  # pixels: no more than rounding


def flow(threat: Flow, x: Tensor, theta: Tensor) -> Tile:
    """The displacement of the pixels: of each cell of them the one that comes from farthest away."""
    row, column, inside = sources(threat, x, theta)
    down, right = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in row.shape), indexing="ij")
    far = torch.where(inside, torch.hypot(down - row, right - column), -1)
    longest, cell = float(far.max().clamp_min(0)), _cell(x, _UNEVEN)
    chosen = []
    for top in range(0, x.shape[2], cell):
        for left in range(0, x.shape[3], cell):
            part = far[top : top + cell, left : left + cell]
            place = int(part.argmax())
            chosen.append((top + place // part.shape[1], left + place % part.shape[1]))
    times = max(1, int(cell / longest)) if longest > _STILL else 1
    told = f"up to {round(longest, 3):.2g} px" + (f", arrows {times} times" if times > 1 else "")
    return Tile(head=threat.name, image=_arrows(threat, x, theta, chosen, times), words=told)


def rotation(threat: Rotation, x: Tensor, theta: Tensor) -> Tile:
    """Where the image turns."""
    angle = float(theta[0, 0])
    told = f"{abs(angle):.3g}° {'counter-clockwise' if angle > 0 else 'clockwise'}"
    return Tile(head=threat.name, image=_arrows(threat, x, theta, _even(x), 1), words=told)


def translation(threat: Translation, x: Tensor, theta: Tensor) -> Tile:
    """Where the image is shifted."""
    down, right = (float(shift) for shift in theta[0])
    across, along = "right" if right > 0 else "left", "down" if down > 0 else "up"
    told = f"{abs(right):.2g} px {across}, {abs(down):.2g} px {along}"
    return Tile(head=threat.name, image=_arrows(threat, x, theta, _even(x), 1), words=told)


def sources(threat: Threat, x: Tensor, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where each pixel of the moved image comes from: row, column `(h, w)`, and whether that is inside the image.

    The threat is asked itself: an image whose values are its own rows and columns is moved. What padding brings in
    comes from outside.

    Args:
        threat: one that resamples images and treats all channels alike.
        x: one input, `(1, c, h, w)`.
        theta: its move, `(1, *m)`.
    """
    height, width = x.shape[2:]
    if isinstance(threat, (Rotation, Translation)):
        threat = replace(threat, padding="zeros")
    low, high = threat.bounds
    span = high - low
    # The bound farther from 0 is one that padding with zeros never brings in.
    mark = high if abs(high) >= abs(low) else low
    row = torch.linspace(low, high, height, dtype=torch.float64)[:, None].expand(height, width)
    column = torch.linspace(low, high, width, dtype=torch.float64)[None].expand(height, width)
    places = torch.stack([row, column, torch.full_like(row, mark)])[None]
    moved = threat.apply(places, theta.to(places))[0]
    inside = (moved[2] - mark).abs() < 1e-6 * span
    return (moved[0] - low) / span * (height - 1), (moved[1] - low) / span * (width - 1), inside


def _arrows(threat: Threat, x: Tensor, theta: Tensor, chosen: list[tuple[int, int]], times: int) -> Image.Image:
    """Arrows to these pixels (row, column) on a pale image, so many times as long as the way."""
    image = fitted(shares(x[0], threat.bounds))
    canvas = Canvas(pale(image))
    scale = image.width / x.shape[3]
    row, column, inside = sources(threat, x, theta)
    for r, c in chosen:
        if bool(inside[r, c]):
            right, down = float(column[r, c]), float(row[r, c])
            start = ((right + 0.5) * scale, (down + 0.5) * scale)
            end = (start[0] + times * (c - right) * scale, start[1] + times * (r - down) * scale)
            canvas.arrow(start, end, ACCENT, 1.1)
    return canvas.image()


def _even(x: Tensor) -> list[tuple[int, int]]:
    """The middle pixel of each cell."""
    cell = _cell(x, _EVEN)
    rows, columns = (range((n % cell + cell) // 2 if n >= cell else n // 2, n, cell) for n in x.shape[2:])
    return [(r, c) for r in rows for c in columns]


def _cell(x: Tensor, cells: int) -> int:
    """Pixels along a cell."""
    return max(1, round(max(x.shape[2:]) / cells))
