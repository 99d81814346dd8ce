"""Pictures of a patch: itself for the printer, and images without and with it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from assay.data import Data
from assay.errors import InputError
from assay.threats import Linf
from assay.universal.picture import compose, said, tile

_INCH = 2.54  # centimetres
_LARGEST = 10_000  # pixels along the side of a print


def printed(patch: Tensor, shape: str, bounds: tuple[float, float], centimetres: float, dpi: int) -> bytes:
    """A PNG of the patch at its size on paper: values between those of the patch as `Pasting` finds them.

    Raises:
        InputError: it has neither 1 nor 3 channels, or the size cannot be drawn.
    """
    pixels = round(centimetres / _INCH * dpi)
    if patch.shape[0] not in (1, 3):
        raise InputError(f"a patch of {patch.shape[0]} channels cannot be printed: 1 or 3 are needed.")
    if not 1 <= pixels <= _LARGEST:
        raise InputError(f"{centimetres:g} cm at {dpi} dpi are {pixels} pixels: choose 1 to {_LARGEST}.")
    share = _share(patch, bounds)
    values = np.rint(share.numpy() * 255).astype(np.uint8)
    small = Image.fromarray(values[0] if len(values) == 1 else np.ascontiguousarray(np.moveaxis(values, 0, -1)))
    large = small.resize((pixels, pixels), Image.Resampling.BILINEAR)
    if shape == "circle":
        paper = Image.new(large.mode, large.size, "white")
        large = Image.composite(large, paper, Image.fromarray((_disc(pixels) * 255).byte().numpy()))
    buffer = io.BytesIO()
    large.save(buffer, format="PNG", dpi=(dpi, dpi), optimize=True)
    return buffer.getvalue()


def sheet(
    patch: Tensor,
    shape: str,
    bounds: tuple[float, float],
    apply: Callable[[Tensor], Tensor],
    model: Any,
    data: Any,
    examples: int,
) -> bytes:
    """The patch, and the first images without and with it, the model's decisions below, as PNG.

    Raises:
        InputError: the patch can not be drawn.
    """
    low, high = bounds
    alone = _share(patch, bounds)
    if shape == "circle":
        alone = torch.where(_disc(patch.shape[-1]) > 0.5, alone, 1.0)
    columns = [[(tile(alone), f"patch, {patch.shape[-1]} pixels")]]
    if data is not None:
        samples, threat = Data.of(data), Linf(high - low, bounds=bounds)
        x, y, _ = samples.batch(0, examples)
        pair = x, apply(x)
        words = [said(model, inputs, y, threat, samples.classes) for inputs in pair]
        columns += [
            [(tile(_share(inputs[row], bounds)), w[row]) for inputs, w in zip(pair, words, strict=True)]
            for row in range(len(x))
        ]
    return compose(columns)


def _share(values: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Values as shares of the range."""
    low, high = bounds
    return ((values.detach().float().cpu() - low) / (high - low)).clamp(0, 1)


def _disc(pixels: int) -> Tensor:
    """How much a circle covers of each pixel of a square around it, `(pixels, pixels)`."""
    place = (torch.arange(pixels) + 0.5) * 2 / pixels - 1
    distance = (place[:, None].square() + place.square()).sqrt()
    return ((1 - distance) * pixels / 2 + 0.5).clamp(0, 1)
