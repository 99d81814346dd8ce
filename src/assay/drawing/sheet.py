"""The picture of an attack: clean, the move itself, adversarial, and what the model said before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from assay.attacks import Result
from assay.drawing.moves import drawn
from assay.drawing.tiles import ACCENT, INK, Tile, fitted, shares
from assay.errors import InputError
from assay.threats import Threat
from assay.threats.additive import Additive

_GAP, _LINE = 12, 18  # pixels: the space around a tile, a line of text


def picture(
    threat: Threat,
    x: Tensor,
    result: Result,
    *,
    before: Tensor | None = None,
    classes: Sequence[str] | None = None,
    most: int = 4,
) -> Image.Image:
    """Show what an attack did: a row for each sample, with the clean image, the move and the adversarial image.

    Flows, rotations and translations are arrows from where a piece of the image was to where it is; colour maps are
    arrows in the plane of u* and v* over swatches of the image's colours before and after; tone curves are plots;
    patches are outlined; the parts of `Combined` stand side by side, each drawn on what the parts before it left.
    Other changes are a difference, amplified.

    Args:
        threat: that of the attack.
        x: the clean images, `(b, channels, height, width)`.
        result: what the attack found with `keep_moves=True`; threats whose move is the difference itself need not.
        before: the model's decisions on x, or the labels of samples that were right, `(b,)`.
        classes: names of the classes.
        most: rows; the first samples that the attack moved.

    Raises:
        InputError: the result holds no moves, nothing was moved, or the inputs can not be drawn.

    Example:
        >>> import assay
        >>> x, y = torch.full((2, 3, 8, 8), 0.5), torch.tensor([0, 0])
        >>> model = lambda x: torch.stack([x[:, 0].mean((1, 2)), x[:, 1].mean((1, 2)) - 0.05], dim=1)
        >>> attack = assay.attacks.PGD(threat=assay.Recolor(0.2), steps=5)
        >>> shown = assay.picture(attack.threat, x, attack(model, x, y, keep_moves=True), before=y)
        >>> shown.size
        (720, 538)
    """
    moved = (result.success & (result.distance > 0)).nonzero().flatten()[:most]
    if len(moved) == 0:
        raise InputError("the attack moved no sample: there is nothing to show.")
    theta = result.theta
    if theta is None and isinstance(threat, Additive):
        theta = result.x_adv - x
    if theta is None:
        raise InputError("the result holds no moves: call the attack with keep_moves=True.")
    rows = []
    for i in moved.tolist():
        one, found = x[i : i + 1].detach().cpu(), torch.tensor([i], device=theta.device)
        own = threat.at(found)
        said = "" if before is None else _named(int(before[i]), classes)
        clean = Tile(head="clean", image=fitted(shares(one[0], threat.bounds)), words=said)
        after = fitted(shares(result.x_adv[i].detach().cpu(), threat.bounds))
        adversarial = Tile(head="adversarial", image=after, words=_named(int(result.prediction[i]), classes))
        rows.append([clean, *drawn(own, one, theta[i : i + 1].detach().cpu()), adversarial])
    return laid_out(rows)


def _named(number: int, classes: Sequence[str] | None) -> str:
    return classes[number] if classes and 0 <= number < len(classes) else f"class {number}"


def laid_out(rows: list[list[Tile]], *, accent: bool = True) -> Image.Image:
    """Rows of tiles, with a head above each column and words below each tile.

    Args:
        rows: as many tiles in each.
        accent: whether the words of the last column stand out.
    """
    wide = [max(row[k].image.width for row in rows) + _GAP for k in range(len(rows[0]))]
    high = [max(tile.image.height for tile in row) + _LINE + _GAP for row in rows]
    sheet = Image.new("RGB", (sum(wide) + _GAP, sum(high) + _LINE + _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    left = _GAP
    for k, width in enumerate(wide):
        pen.text((left, _GAP // 2), rows[0][k].head, fill=INK, font=font)
        top = _LINE + _GAP
        for row, height in zip(rows, high, strict=True):
            sheet.paste(row[k].image, (left, top))
            colour = ACCENT if accent and k == len(wide) - 1 else INK
            words = _fitting(row[k].words, font, width - _GAP)
            pen.text((left, top + row[k].image.height + 1), words, fill=colour, font=font)
            top += height
        left += width
    return sheet


def _fitting(words: str, font: Any, width: int) -> str:
    """The words, cut where they are longer than the tile is wide."""
    while words and font.getlength(words) > width:
        words = words[:-1]
    return words
