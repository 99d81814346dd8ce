"""Maps of importance as colours: from paper over orange to black."""

from __future__ import annotations

import numpy as np
from PIL import Image
from torch import Tensor

from assay.errors import InputError

_STOPS = np.array([(255, 250, 240), (254, 200, 120), (240, 110, 60), (160, 30, 70), (30, 8, 40)], dtype=np.float64)
_BRIGHTEST = 0.99  # this quantile of the values has the last colour: single pixels do not hide the others


def heat_map(values: Tensor) -> Image.Image:
    """A map `(h, w)` or `(d,)` of values that are not negative, a pixel for each.

    Raises:
        InputError: it has another shape.

    Example:
        >>> import torch
        >>> heat_map(torch.tensor([[0.0, 1.0]])).getpixel((0, 0))
        (255, 250, 240)
    """
    if values.ndim not in (1, 2):
        raise InputError(f"a map of shape {tuple(values.shape)} cannot be drawn: (h, w) or (d,).")
    plain = np.atleast_2d(values.detach().cpu().double().numpy())
    top = float(np.quantile(plain, _BRIGHTEST)) or float(plain.max()) or 1.0
    place = np.clip(plain / top, 0, 1) * (len(_STOPS) - 1)
    colours = [np.interp(place, np.arange(len(_STOPS)), _STOPS[:, channel]) for channel in range(3)]
    return Image.fromarray(np.rint(np.stack(colours, axis=-1)).astype(np.uint8))
