"""Which samples each step sees: a fresh order every epoch, shared out over the processes, with extra data mixed in."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from assay.data import Data
from assay.errors import DataError, SettingError
from assay.rng import derive

_READERS = 2  # processes that read data which are not in memory
_FAR = 1 << 40  # sample numbers of extra data begin here


@final
@dataclass(frozen=True, kw_only=True)
class Feed:
    """The batches of a run: a pure function of seed, epoch and step, so that any of them can be made again.

    Args:
        data: what to train on.
        batch: samples of a step, over all processes.
        seed: key of the order.
        rank: this process.
        world: how many processes share a batch.
        extra: further samples, for instance synthetic ones.
        extra_share: their share of every batch; an epoch is one pass over `data`.
        device: where batches go.
        dtype: what floating-point inputs become.

    Raises:
        SettingError: a batch is larger than the data, or cannot be shared out evenly.
    """

    data: Data
    batch: int
    seed: int
    rank: int = 0
    world: int = 1
    extra: Data | None = None
    extra_share: float = 0.0
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        if not 1 <= self.batch <= len(self.data):
            raise SettingError(
                f"batch must lie between 1 and the {len(self.data)} samples to train on; got {self.batch}."
            )
        if self.batch % self.world:
            raise SettingError(f"a batch of {self.batch} cannot be shared evenly by {self.world} processes.")
        if not 0 <= self.extra_share < 1 or (self.extra is None) != (self.extra_share == 0):
            raise SettingError("extra data and extra_share, between 0 and 1, are given together.")
        if self.extra is not None and not 0 < self._extras < self.batch:
            raise SettingError(
                f"extra_share={self.extra_share} of a batch of {self.batch} is {self._extras} samples: both data need "
                "some."
            )

    @property
    def steps(self) -> int:
        """Batches of an epoch; what does not fill the last one is left out, another remainder every epoch."""
        return len(self.data) // (self.batch - self._extras)

    @property
    def _extras(self) -> int:
        return round(self.batch * self.extra_share)

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """This process's part of each batch of an epoch: inputs, labels, sample numbers.

        Args:
            number: the epoch.
            first: the batch to begin with.
        """
        own = list(self._plan(number)[first:, self.rank :: self.world])
        if isinstance(self.data.x, Tensor) and (self.extra is None or isinstance(self.extra.x, Tensor)):
            for rows in own:
                yield self._moved(*_gathered(self.data, self.extra, rows))
            return
        seeds = [derive(self.seed, "read", number, step, self.rank) for step in range(first, self.steps)]
        pairs = _Batches(self.data, self.extra, own, seeds)
        for parts in DataLoader(pairs, batch_size=None, num_workers=_READERS):
            if isinstance(parts, DataError):
                raise parts
            yield self._moved(*parts)

    def _moved(self, x: Tensor, y: Tensor, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x.to(self.device, self.dtype), y.to(self.device), index.to(self.device)

    def _plan(self, epoch: int) -> Tensor:
        """The positions of every batch of an epoch, `(steps, batch)`; extra data lie behind the data."""
        own = self.batch - self._extras
        plan = self._order(epoch, len(self.data), "order")[: self.steps * own].view(self.steps, own)
        if self.extra is None:
            return plan
        count = self.steps * self._extras
        turn, at = divmod(epoch * count, len(self.extra))  # one endless sequence of orders
        turns = range(turn, turn + 2 + count // len(self.extra))
        order = torch.cat([self._order(each, len(self.extra), "extra") for each in turns])
        return torch.cat([plan, order[at : at + count].view(self.steps, -1) + len(self.data)], dim=1)

    def _order(self, turn: int, count: int, name: str) -> Tensor:
        draw = torch.Generator().manual_seed(derive(self.seed, name, turn))
        return torch.randperm(count, generator=draw)


@final
class _Batches(Dataset[Any]):
    """The batches of an epoch, for processes that read them ahead; each with random numbers of its own."""

    def __init__(self, data: Data, extra: Data | None, rows: list[Tensor], seeds: list[int]) -> None:
        self.data, self.extra, self.rows, self.seeds = data, extra, rows, seeds

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor] | DataError:
        seed = self.seeds[step]
        torch.manual_seed(seed)  # users' data sets draw from these three
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            return _gathered(self.data, self.extra, self.rows[step])
        except DataError as error:  # which would arrive as a traceback
            return error


def _gathered(data: Data, extra: Data | None, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The samples at these positions: inputs, labels, sample numbers."""
    own = rows[rows < len(data)]
    found = data.gather(own)
    if extra is None:
        return found
    more = extra.gather(rows[rows >= len(data)] - len(data))
    if more[0].shape[1:] != found[0].shape[1:]:
        raise DataError(
            f"extra data hold inputs of shape {tuple(more[0].shape[1:])}, the data of {tuple(found[0].shape[1:])}."
        )
    x, y, index = (torch.cat(pair) for pair in zip(found, more, strict=True))
    index[len(own) :] += _FAR
    return x, y, index
