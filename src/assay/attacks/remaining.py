"""The samples that a search still works on: its tensors narrow while others finish."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from assay.oracle import Oracle
from assay.rng import Keyed
from assay.threats import Threat

_NARROW_AT = 0.75  # share of samples left at which tensors are narrowed


@final
class Remaining:
    """The samples of a batch that are left, with the oracle and the random numbers for them.

    Args:
        oracle: for the whole batch.
        rng: for the whole batch.

    Attributes:
        oracle: for those that are left.
        rng: for those that are left.
    """

    def __init__(self, oracle: Oracle, rng: Keyed) -> None:
        self.oracle, self.rng = oracle, rng
        self._moves = oracle.threat.identity(oracle.x)
        self._place = torch.arange(len(oracle.x), device=oracle.x.device)

    @property
    def x(self) -> Tensor:
        """Their clean inputs."""
        return self.oracle.x

    @property
    def threat(self) -> Threat:
        """What they are allowed."""
        return self.oracle.threat

    def narrow(
        self, theta: Tensor, *state: Tensor, done: Tensor | None = None, share: float = _NARROW_AT
    ) -> tuple[Tensor, ...]:
        """These tensors without the rows that nobody asks about any more, once there are enough of those.

        Args:
            theta: their moves, `(b, *m)`, which are kept where they end.
            state: whatever else has one row for each sample.
            done: `(b,)` bool: whom the search itself has done with.
            share: of the rows, at which there are few enough left; 1 for always.
        """
        live = self.oracle.active if done is None else self.oracle.active & ~done
        if not self.oracle.referee or int(live.sum()) > share * len(live) or bool(live.all()):
            return theta, *state
        self._moves[self._place] = theta
        rows = live.nonzero().squeeze(1)
        self.oracle, self.rng, self._place = self.oracle.at(rows), self.rng.at(rows), self._place[rows]
        return tuple(value[rows] for value in (theta, *state))

    def moves(self, theta: Tensor) -> Tensor:
        """The moves of the whole batch, `(b, *m)`, given those of who is left."""
        self._moves[self._place] = theta
        return self._moves
