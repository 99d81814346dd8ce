"""Changed values: patches in their outline, and signed differences."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from assay.drawing.tiles import ACCENT, Canvas, Tile, fitted, pale, shares
from assay.threats import Patch, Threat


def patch(threat: Patch, x: Tensor, theta: Tensor) -> Tile:
    """The patch in its place, outlined, on a pale image: the square around the change, or the mask."""
    moved = threat.apply(x, theta)
    height, width = x.shape[-2:]
    changed = (moved != x).reshape(-1, height, width).any(dim=0)
    if threat.mask is not None:
        region = threat.mask.reshape(-1, height, width)[0].cpu()
        told = f"{int(region.sum())} pixels"
    else:
        rows, columns = (changed.any(dim=axis).nonzero().flatten() for axis in (1, 0))
        region = torch.zeros_like(changed)
        told = "nothing changed"
        if len(rows):
            region[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
            told = f"{int(columns[-1] - columns[0]) + 1} by {int(rows[-1] - rows[0]) + 1} pixels"
    image = fitted(shares(moved[0], threat.bounds)).convert("RGB")
    inside = fitted(region.float()).resize(image.size)
    canvas = Canvas(Image.composite(image, pale(fitted(shares(x[0], threat.bounds))), inside.convert("1")))
    _outline(canvas, region.numpy())
    share = float(region.float().mean())
    return Tile(head=threat.name, image=canvas.image(), words=f"{told}, {share:.1%} of the image")


def difference(threat: Threat, x: Tensor, theta: Tensor) -> Tile:
    """The signed difference around mid-grey, amplified as far as it goes."""
    change = shares(threat.apply(x, theta), threat.bounds) - shares(x, threat.bounds)
    times = amplification(float(change.abs().max()), 0.5)
    image = fitted(0.5 + times * change[0])
    return Tile(head=threat.name, image=image, words=f"change, {times} times" if times > 1 else "change")


def amplification(largest: float, room: float) -> int:
    """The largest of 1, 2, 5, 10, 20, ... that keeps the amplified difference inside the room.

    Args:
        largest: the largest difference.
        room: how large it may become.

    Example:
        >>> amplification(0.1, 0.5), amplification(8 / 255, 0.5), amplification(0.0, 0.5)
        (5, 10, 1)
    """
    if not np.isfinite(largest) or largest <= 0:
        return 1
    series = [base * 10**power for power in range(4) for base in (1, 2, 5)]
    return max((times for times in series if times * largest <= room * 1.01), default=1)


def _outline(canvas: Canvas, region: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> None:
    """Lines along all edges between pixels of the region and others."""
    height, width = region.shape
    wide, high = canvas.width / width, canvas.height / height
    padded = np.pad(region, 1)
    for row, column in zip(*np.nonzero(padded[:, :-1] != padded[:, 1:]), strict=True):
        canvas.line([(column * wide, (row - 1) * high), (column * wide, row * high)], ACCENT, 2)
    for row, column in zip(*np.nonzero(padded[:-1] != padded[1:]), strict=True):
        canvas.line([((column - 1) * wide, row * high), (column * wide, row * high)], ACCENT, 2)
