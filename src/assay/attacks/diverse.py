"""Diverse inputs: images at a random smaller size, at a random place in a frame of the old size."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.attacks.images import image_shape
from assay.rng import Keyed


def draw(rng: Keyed, x: Tensor) -> Tensor:
    """What `resized_and_padded` needs to know of each image: four uniform numbers, `(b, 4)`."""
    return rng.uniform(4).to(x.device)


def resized_and_padded(x: Tensor, drawn: Tensor, probability: float, fill: float) -> Tensor:
    """Images shrunk to a random share of their size and put at a random place in a frame of the old size.

    Sides of `ceil(0.9 side)` to `side` pixels, bilinear; differentiable in x.

    Args:
        x: images `(n, c, h, w)`, or signals `(n, c, w)` and `(n, w)`.
        drawn: four uniform numbers for each: whether, how large, how far down, how far to the right.
        probability: of an image to be changed at all.
        fill: the value of the frame.

    Raises:
        ThreatError: these are no images.
    """
    channels, height, width = image_shape(x, "diverse")
    image = x.reshape(-1, channels, height, width)
    changed, size, down, right = drawn.unbind(1)
    rows, columns = _weights(size, down, height), _weights(size, right, width)
    seen = rows.to(x.dtype)[:, None] @ (image - fill) @ columns.to(x.dtype)[:, None].mT + fill
    return torch.where((changed < probability).reshape(-1, 1, 1, 1), seen, image).reshape(x.shape)


def _weights(size: Tensor, place: Tensor, side: int) -> Tensor:
    """How much of each pixel of a line every pixel of the frame receives, `(n, side, side)`."""
    least = -(-9 * side // 10)  # the paper: images of 299 to 330 pixels in a frame of 330
    length = least + (size * (side - least + 1)).floor().clamp_max(side - least)
    offset = (place * (side - length + 1)).floor().minimum(side - length)
    pixel = torch.arange(side, dtype=size.dtype, device=size.device)
    inside = pixel - offset[:, None]
    source = ((inside + 0.5) * side / length[:, None] - 0.5).clamp(0, side - 1)
    weights = (1 - (source[:, :, None] - pixel).abs()).clamp_min(0)
    return weights * ((inside >= 0) & (inside < length[:, None]))[:, :, None]
