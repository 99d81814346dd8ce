"""Frost on glass: five textures of ice crystals, grown by rule in place of photographs."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from assay.corruptions.filters import gaussian
from assay.rng import Keyed

_COLOURS = (  # mean of red, green and blue, and their deviation, as in the photographs of the published sets
    ((0.31, 0.58, 0.65), 0.08),
    ((0.79, 0.80, 0.84), 0.09),
    ((0.79, 0.80, 0.84), 0.09),
    ((0.54, 0.60, 0.65), 0.11),
    ((0.44, 0.48, 0.53), 0.17),
)
_SEED = 20190506  # the textures are the same for everybody
_NEEDLES = 2600  # in a square of 512 pixels
_ROUNDS = 6  # of branching


@lru_cache(maxsize=8)
def textures(height: int, width: int, scale: float) -> Tensor:
    """Five textures, `(5, 3, height, width)`, with values from 0 to 1.

    Needles of random place and direction carry shorter ones at 60 degrees on both sides, as ice does; they are drawn as
    points, blurred a little, and laid over a slow change of brightness.

    Args:
        height: of the textures in pixels.
        width: of the textures in pixels.
        scale: length of everything, 1 for photographs of about 500 pixels.
    """
    found = []
    for number, (colour, deviation) in enumerate(_COLOURS):
        rng = Keyed(_SEED, torch.tensor([number]))
        ice = _ice(rng, height, width, scale)
        coarse = rng.normal(max(2, int(height / scale / 64)), max(2, int(width / scale / 64)))[:, None]
        slow = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
        mixed = _standard(_standard(ice) + 0.5 * _standard(slow))
        found.append(torch.tensor(colour)[:, None, None] + deviation * mixed[0])
    return torch.stack(found).clamp_(0, 1)


def _ice(rng: Keyed, height: int, width: int, scale: float) -> Tensor:
    """How much ice there is at each pixel, `(1, 1, height, width)`."""
    needles = max(8, round(_NEEDLES * height * width / (512 * scale) ** 2))
    down, right = rng.uniform(needles)[0] * height, rng.uniform(needles)[0] * width
    angle = rng.uniform(needles)[0] * (2 * torch.pi)
    length = (6 + 40 * rng.uniform(needles)[0] ** 3) * scale
    ice = torch.zeros(height * width)
    bright = 0.4 + 0.6 * rng.uniform(needles)[0]
    for side in (0, 1, -1):
        for k in range(1, 2 if side == 0 else _ROUNDS):
            start = length * (k / _ROUNDS if side else 0.0)
            turned = angle + side * (torch.pi / 3)
            reach = length * (1 - k / _ROUNDS) * 0.5 if side else length
            steps = torch.linspace(0, 1, max(4, int(48 * scale)))
            rows = (down + start * angle.sin())[:, None] + (reach * turned.sin())[:, None] * steps
            columns = (right + start * angle.cos())[:, None] + (reach * turned.cos())[:, None] * steps
            place = rows.long().remainder(height) * width + columns.long().remainder(width)
            light = (bright * reach / len(steps))[:, None] * (1 - steps)
            ice.scatter_add_(0, place.flatten(), light.flatten())
    return gaussian(ice.reshape(1, 1, height, width), 0.7).sqrt()


def _standard(x: Tensor) -> Tensor:
    return (x - x.mean()) / x.std().clamp_min(1e-6)
