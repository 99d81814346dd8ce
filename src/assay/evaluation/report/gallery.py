"""The gallery: clean input, adversarial input, and the move or the difference, as data addresses or bar strips."""

from __future__ import annotations

import base64
import io
from collections import defaultdict
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from PIL import Image

from assay import grammar
from assay.drawing import drawn
from assay.drawing.changes import amplification
from assay.errors import AssayError
from assay.evaluation.report.classes import class_name
from assay.evaluation.report.source import WRONG, Array, Example, Record
from assay.evaluation.report.words import SPACE, size
from assay.threats import Threat
from assay.threats.additive import Additive

MOST_EXAMPLES = 24
TIMES = " \N{MULTIPLICATION SIGN} "
MOST_BYTES = 4_000_000
"""Where large images would make the page heavier than this, fewer are shown."""
LARGEST_SIDE = 256
MOST_FEATURES = 128


@final
@dataclass(frozen=True, kw_only=True)
class Bar:
    """One feature of a strip: a bar from the zero line, in a view box 100 high."""

    x: float
    y: float
    width: float
    height: float


@final
@dataclass(frozen=True, kw_only=True)
class Panel:
    """One picture of an example: an image address, or the bars of a strip."""

    caption: str
    alt: str
    address: str = ""
    bars: tuple[Bar, ...] = ()
    small: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class Card:
    """One example of the gallery in words and pictures."""

    index: int
    label: str
    before: str
    after: str
    distance: str
    attack: str
    panels: tuple[Panel, ...]


@final
@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The cards shown, how many examples the run kept, why some inputs have no picture (or nothing), what is drawn."""

    cards: list[Card]
    kept: int
    images: bool
    reason: str
    shrunk: bool
    moves: bool


def gallery(record: Record, bounds: tuple[float, float]) -> Gallery:
    """Build the gallery from the examples that the shards kept.

    A move that a shard kept is drawn in the place of the difference. A difference is amplified where the threat is one
    of perturbations; that of others says little, and stays as it is.

    Args:
        record: The run.
        bounds: The valid inputs, shown as black and white.
    """
    threat = _threat(str(record.run["settings"]["threat"]))
    additive = threat is None or isinstance(threat, Additive)
    cards: list[Card] = []
    weight, shrunk, reason, images, moves = 0, False, "", False, False
    for example in _nearest(record) if record.minimal else _spread(record.examples):
        shape = example.clean.shape
        if example.adversarial.shape != shape:
            continue
        as_image = _as_image(example.clean) is not None
        if not as_image and not (example.clean.ndim == 1 and 0 < example.clean.size <= MOST_FEATURES):
            reason = (
                f"Inputs of shape {TIMES.join(map(str, shape)) or 'scalar'} are neither images nor short feature "
                "vectors, so they are not drawn."
            )
            continue
        panels: tuple[Panel, ...] = (
            _pictures(example, bounds, amplify=additive) if as_image else _strips(example, bounds)
        )
        if not additive and as_image and (shown := _move(threat, example)):
            panels, moves = (*panels[:2], *shown), True
        weight += sum(len(panel.address) for panel in panels)
        if weight > MOST_BYTES or len(cards) == MOST_EXAMPLES:
            break
        images = images or as_image
        shrunk = shrunk or (as_image and max(shape[-2:]) > LARGEST_SIDE)
        cards.append(
            Card(
                index=example.index,
                label=class_name(record, example.label),
                before=class_name(record, example.before),
                after=class_name(record, example.after),
                distance=size(example.distance),
                attack=example.stage,
                panels=panels,
            )
        )
    return Gallery(cards=cards, kept=len(record.examples), images=images, reason=reason, shrunk=shrunk, moves=moves)


def _spread(examples: list[Example]) -> list[Example]:
    """Order the examples so that the first ones cover as many attacks and classes as they can."""
    turns: defaultdict[str, int] = defaultdict(int)
    groups: defaultdict[tuple[str, int], int] = defaultdict(int)
    ranked = []
    for example in examples:
        ranked.append((groups[example.stage, example.label], turns[example.stage], example))
        groups[example.stage, example.label] += 1
        turns[example.stage] += 1
    return [example for _, _, example in sorted(ranked, key=lambda entry: entry[:2])]


def _nearest(record: Record) -> list[Example]:
    """The examples that are the nearest adversarial input of their sample, the nearest of all first."""
    stages = [stage["name"] for stage in record.stages]
    owner = {int(i): stages[k - 1] for i, k in zip(record.index, record.outcome, strict=True) if k > WRONG}
    return sorted((e for e in record.examples if owner.get(e.index) == e.stage), key=lambda e: (e.distance, e.index))


def _as_image(x: Array) -> Array | None:
    """The values as (height, width) or (height, width, 3); None where they are no image."""
    if x.ndim == 3 and x.shape[0] in (1, 3, 4) and min(x.shape) > 0:
        return np.moveaxis(x[:3], 0, -1) if x.shape[0] > 1 else x[0]
    return None


def _threat(expression: str) -> Threat | None:
    """The threat of a run; None where its class is not installed here."""
    try:
        return grammar.threat(expression)
    except AssayError:
        return None


def _move(threat: Threat | None, example: Example) -> tuple[Panel, ...]:
    """The move that was kept, one panel for each part; none where there is none or its threat has no drawing."""
    if threat is None or example.move is None:
        return ()
    x, theta = (torch.from_numpy(value)[None] for value in (example.clean, example.move))
    tiles = drawn(threat, x, theta)
    return tuple(
        Panel(
            caption=tile.head,
            alt=f"Move of image {example.index}: {tile.head}, {tile.words}",
            address=address(tile.image),
        )
        for tile in tiles
    )


def _captions(example: Example, factor: int, what: str) -> tuple[tuple[str, str], ...]:
    return (
        ("clean", f"Clean {what} {example.index}"),
        ("adversarial", f"Adversarial {what} {example.index}"),
        (
            f"change{SPACE}{TIMES.strip()}{SPACE}{factor}",
            f"Signed difference of {what} {example.index}, {factor} times amplified",
        ),
    )


def _pictures(example: Example, bounds: tuple[float, float], *, amplify: bool) -> tuple[Panel, Panel, Panel]:
    low, high = bounds
    difference = (example.adversarial - example.clean) / (high - low)
    factor = amplification(float(np.abs(difference).max()), 0.5) if amplify else 1
    shares = (
        (example.clean - low) / (high - low),
        (example.adversarial - low) / (high - low),
        0.5 + factor * difference,
    )
    captions = _captions(example, factor, "image")
    clean, adversarial, change = (
        Panel(caption=caption, alt=alt, address=png(share), small=max(share.shape[-2:]) <= 96)
        for share, (caption, alt) in zip(shares, captions, strict=True)
    )
    return clean, adversarial, change


def png(share: Array) -> str:
    """An image of shares in [0, 1] as a data address."""
    pixels = _as_image(np.rint(np.clip(np.nan_to_num(share), 0.0, 1.0) * 255).astype(np.uint8))
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if max(picture.size) > LARGEST_SIDE:
        picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    return address(picture)


def address(picture: Image.Image) -> str:
    """A picture as a data address."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _strips(example: Example, bounds: tuple[float, float]) -> tuple[Panel, Panel, Panel]:
    difference = example.adversarial - example.clean
    low = float(min(0.0, example.clean.min(), example.adversarial.min()))
    high = float(max(0.0, example.clean.max(), example.adversarial.max()))
    factor = amplification(float(np.abs(difference).max()), max(high, -low) / 2)
    captions = _captions(example, factor, "features of sample")
    span = float(np.abs(factor * difference).max()) or 1.0
    drawn = (
        _bars(example.clean, low, high),
        _bars(example.adversarial, low, high),
        _bars(factor * difference, -span, span),
    )
    clean, adversarial, change = (
        Panel(caption=caption, alt=alt, bars=bars) for bars, (caption, alt) in zip(drawn, captions, strict=True)
    )
    return clean, adversarial, change


def _bars(values: Array, low: float, high: float) -> tuple[Bar, ...]:
    scale, width = 100 / ((high - low) or 1.0), 100 / len(values)
    return tuple(
        Bar(
            x=round(i * width, 2),
            y=round((high - max(float(v), 0.0)) * scale, 2),
            width=round(width * 0.86, 2),
            height=round(max(abs(float(v)) * scale, 0.4), 2),
        )
        for i, v in enumerate(values)
    )
