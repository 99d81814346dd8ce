"""Inputs read as images: channels, rows and columns."""

from __future__ import annotations

from torch import Tensor

from assay.errors import ThreatError


def image_shape(x: Tensor, who: str) -> tuple[int, int, int]:
    """Channels, height and width of inputs: `(b, d)` is one row of d pixels, `(b, c, d)` c channels of them.

    Args:
        x: inputs.
        who: the attack, for the message.

    Raises:
        ThreatError: the inputs have more axes.
    """
    if x.ndim == 4:
        return x.shape[1], x.shape[2], x.shape[3]
    if x.ndim == 3:
        return x.shape[1], 1, x.shape[2]
    if x.ndim == 2:
        return 1, 1, x.shape[1]
    raise ThreatError(f"{who} works on images (b, c, h, w) or signals; got inputs of shape {tuple(x.shape)}.")
