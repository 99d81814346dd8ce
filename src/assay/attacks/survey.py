"""Random probes around a point of the decision boundary: which of their directions lead across it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor

from assay.attacks.decisions import wins
from assay.oracle import Oracle
from assay.rng import Keyed
from assay.threats.additive import column

# Moves and their directions, both `(n, k, *shape)`, for some samples (indices), their random numbers and a number k.
Propose: TypeAlias = Callable[[Tensor, Keyed, int], tuple[Tensor, Tensor]]

_VALUES = 1 << 20  # of one sample's probes that are drawn together: this fixes what is drawn, whatever the batch
_AT_ONCE = {"cpu": 1 << 22, "cuda": 1 << 27}  # of all samples' probes that are held together


@final
@dataclass(frozen=True)
class Survey:
    """What probes say, summed over those of each sample.

    Attributes:
        signed: `(b, *shape)`: directions, with the sign + where the probe wins and - where it does not.
        plain: `(b, *shape)`: directions.
        won: `(b,)`: probes that win.
        count: how many there are.
    """

    signed: Tensor
    plain: Tensor
    won: Tensor
    count: int

    def normal(self, *, baseline: bool) -> Tensor:
        r"""The estimated normal of the boundary, of unit length: the mean of $\phi_i u_i$, with $\phi_i = \pm 1$.

        Args:
            baseline: of $(\phi_i - \bar\phi) u_i$, unless all probes agree.
        """
        slope = self.signed
        if baseline:
            mean = 2 * self.won / self.count - 1
            agree = (self.won == 0) | (self.won == self.count)
            slope = slope - column(mean.masked_fill(agree, 0).to(slope), slope) * self.plain
        return unit(slope)


def probe(oracle: Oracle, rng: Keyed, count: int, propose: Propose) -> Survey:
    """Ask about random probes of every active sample.

    Args:
        oracle: answers about the samples.
        rng: keyed random numbers, of this survey alone.
        count: probes per sample.
        propose: makes them.
    """
    x = oracle.x
    signed, plain, won = torch.zeros_like(x), torch.zeros_like(x), x.new_zeros(len(x))
    together = max(1, min(count, _VALUES // max(1, x[0].numel())))
    held = _AT_ONCE.get(x.device.type, _AT_ONCE["cuda"])
    everyone = oracle.active.nonzero().squeeze(1)
    for rows in torch.split(everyone, max(1, held // (together * max(1, x[0].numel())))):
        part, drawn = oracle.at(rows), rng.at(rows)
        for done in range(0, count, together):
            moves, directions = propose(rows, drawn, min(together, count - done))
            won_now = wins(part, moves)
            sign = torch.where(won_now, 1.0, -1.0).to(x)
            signed[rows] += torch.einsum("bk,bkd->bd", sign, directions.flatten(2)).reshape(signed[rows].shape)
            plain[rows] += directions.sum(dim=1)
            won[rows] += won_now.sum(dim=1).to(x)
    return Survey(signed, plain, won, count)


def unit(direction: Tensor) -> Tensor:
    """Of length 1 for each sample; 0 stays 0. Scaled to a largest value of 1 first: squares of small values vanish."""
    peak = direction.flatten(1).abs().amax(dim=1)
    scaled = direction / column(torch.where(peak > 0, peak, 1), direction)
    length = torch.linalg.vector_norm(scaled.flatten(1), dim=1)
    return scaled / column(torch.where(length > 0, length, 1), direction)


def unit_each(directions: Tensor) -> Tensor:
    """Of length 1 for each candidate `(b, k, *shape)`."""
    return unit(directions.flatten(0, 1)).reshape(directions.shape)
