"""A picture of a universal perturbation: itself at full contrast, and samples before and after."""

from __future__ import annotations

import io
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from assay.attacks.base import evaluating
from assay.data import Data
from assay.drawing.tiles import fitted
from assay.evaluation.chunks import placement
from assay.goals import Untargeted
from assay.oracle import Oracle, granted_access
from assay.threats import Threat

_SIDE, _GAP, _LINE = 112, 8, 14  # pixels: a tile, the space around it, a line of text


def draw(perturbation: Tensor, threat: Threat, model: Any, data: Any, examples: int) -> bytes:
    """The picture as PNG.

    Args:
        perturbation: `(*shape)`.
        threat: the ball that it belongs to.
        model: for the decisions below the samples, or None.
        data: the samples, or None.
        examples: how many samples.

    Raises:
        InputError: the inputs can not be drawn.
    """
    low, high = threat.bounds
    peak = float(perturbation.abs().max()) or 1.0
    columns = [[(tile(0.5 + perturbation / (2 * peak)), f"largest {peak:.3g}")]]
    if data is not None:
        samples = Data.of(data)
        x, y, _ = samples.batch(0, examples)
        moved = threat.apply(x, perturbation.to(x).cpu())
        words = [said(model, inputs, y, threat, samples.classes) for inputs in (x, moved)]
        for row in range(len(x)):
            pair = ((inputs[row] - low) / (high - low) for inputs in (x, moved))
            columns.append([(tile(share), found[row]) for share, found in zip(pair, words, strict=True)])
    return compose(columns)


def said(model: Any, x: Tensor, y: Tensor, threat: Threat, classes: tuple[str, ...] | None) -> list[str]:
    """What the model calls each sample; nothing without a model."""
    if model is None:
        return [""] * len(x)
    place, dtype = placement(model, x.device)
    with evaluating(model), torch.inference_mode(False), torch.no_grad():
        oracle = Oracle(
            model, x.to(place, dtype or x.dtype), Untargeted(y.to(place)), threat, access=granted_access(model)
        )
        oracle.judge_clean()
    found = oracle.record.prediction.tolist()
    return [classes[k] if classes and k < len(classes) else str(k) for k in found]


def tile(share: Tensor) -> Image.Image:
    """An image of shares in [0, 1] at the size of a tile."""
    return fitted(share, _SIDE)


def compose(columns: list[list[tuple[Image.Image, str]]]) -> bytes:
    """The tiles side by side, each with its words below."""
    rows = max(len(column) for column in columns)
    wide, high = _SIDE + _GAP, _SIDE + _LINE + _GAP
    sheet = Image.new("RGB", (wide * len(columns) + _GAP, high * rows + _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=_LINE - 3)
    for place, column in enumerate(columns):
        for row, (tile, words) in enumerate(column):
            left, top = _GAP + wide * place, _GAP + high * row
            sheet.paste(tile, (left, top))
            pen.text((left, top + _SIDE), _fitting(words, font), fill="black", font=font)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _fitting(words: str, font: Any) -> str:
    """The words, cut where they are longer than a tile is wide."""
    while words and font.getlength(words) > _SIDE:
        words = words[:-1]
    return words
