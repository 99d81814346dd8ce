"""Which drawing shows a move of which threat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from assay.drawing import arrows, changes, colours
from assay.drawing.tiles import Tile
from assay.threats import Combined, Flow, Patch, Recolor, Rotation, Threat, ToneCurve, Translation

_DRAWINGS: dict[type[Threat], Callable[[Any, Tensor, Tensor], Tile]] = {
    Flow: arrows.flow,
    Rotation: arrows.rotation,
    Translation: arrows.translation,
    Recolor: colours.recolor,
    ToneCurve: colours.tone_curve,
    Patch: changes.patch,
}


def drawn(threat: Threat, x: Tensor, theta: Tensor) -> list[Tile]:
    """The move of one image: one tile, of `Combined` one for each part; of a threat not known here the difference.

    Args:
        threat: what the move belongs to.
        x: the clean input, `(1, *shape)`, on the CPU.
        theta: its move, `(1, *m)`.

    Raises:
        InputError: the inputs can not be drawn.
    """
    if isinstance(threat, Combined):
        return [tile for part, given, piece in threat.unfolded(x, theta) for tile in drawn(part, given, piece)]
    return [_DRAWINGS.get(type(threat), changes.difference)(threat, x, theta)]
