"""Parts of a data set: the samples to fit on, those to measure on, and mini-batches of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset

from assay.data.dataset import Data
from assay.errors import SettingError
from assay.rng import Keyed, derive

_ROWS, _VALUES = 1000, 1 << 25  # samples and input values that are read at once


def part(data: Data, positions: Tensor) -> Data:
    """The samples at these positions, in this order; they keep their sample numbers, and lazy data stay lazy."""
    y = None if data.y is None else data.y[positions.to(data.y.device)]
    index = positions if data.index is None else data.index[positions.to(data.index.device)]
    pairs: Any = data.x
    x = pairs[positions.to(pairs.device)] if isinstance(pairs, Tensor) else Subset(pairs, positions.tolist())
    return replace(data, x=x, y=y, index=index)


def shuffled(count: int, seed: int, number: int = 0) -> Tensor:
    """The numbers below `count` in an order that depends on the seed and the number of the order, `(count,)` int64."""
    return Keyed(seed, torch.tensor([number])).choice(count, count).squeeze(0)


def split(data: Data, fit: int, *, seed: int = 0) -> tuple[Data, Data]:
    """The samples to fit a perturbation on, drawn at random, and the rest to measure it on.

    Args:
        data: all samples.
        fit: how many are fitted on.
        seed: key of the draw.

    Raises:
        SettingError: one of the two would be empty.

    Example:
        >>> data = Data(torch.zeros(10, 4), torch.zeros(10, dtype=torch.int64))
        >>> [len(half) for half in split(data, 6)]
        [6, 4]
    """
    if not 0 < fit < len(data):
        raise SettingError(
            f"of {len(data)} samples {fit} are to be fitted on: both parts need some, give 1 to {len(data) - 1}."
        )
    order = shuffled(len(data), derive(seed, "split"))
    return part(data, order[:fit].sort().values), part(data, order[fit:].sort().values)


def chunk(data: Data) -> int:
    """How many samples to read at once."""
    return max(1, min(_ROWS, _VALUES // max(1, data[0][0].numel())))
