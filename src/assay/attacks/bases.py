"""Orthonormal bases of the inputs whose vectors are tried one by one: single values, or cosine waves."""

from __future__ import annotations

import math
from typing import Protocol, final

import torch
from torch import Tensor

from assay.attacks.images import image_shape


class Basis(Protocol):
    """Vectors with numbers from 0 to d - 1.

    Attributes:
        rank: `(d,)` float64: those with a smaller rank come first.
    """

    rank: Tensor

    def step(self, theta: Tensor, number: Tensor, length: Tensor) -> Tensor:
        """Moves `(b, *m)` plus `length` `(b,)` times the vectors of these numbers `(b,)`."""


@final
class Pixels:
    """Each vector is one value of the input; all have the same rank.

    Args:
        x: inputs, `(b, *shape)`.
    """

    def __init__(self, x: Tensor) -> None:
        self.rank = torch.zeros(x[0].numel(), dtype=torch.float64, device=x.device)

    def step(self, theta: Tensor, number: Tensor, length: Tensor) -> Tensor:
        """One value moves."""
        return theta.flatten(1).scatter_add(1, number[:, None], length[:, None]).reshape(theta.shape)


@final
class Cosines:
    r"""Each vector is a wave in one channel: `C[u, i] C[v, j]` with C the orthonormal DCT-II.

    $C_{ui} = \sqrt{2 / n} \cos(\pi (2 i + 1) u / 2n)$, and $\sqrt{1 / n}$ for u = 0. The waves whose frequencies u and
    v lie within the share `low` of all have rank 0; a quarter of it more has the next rank, and so on.

    Args:
        x: inputs, images `(b, c, h, w)` or signals.
        low: the share of frequencies along each axis that come first.

    Raises:
        ThreatError: the inputs are no images.
    """

    def __init__(self, x: Tensor, low: float) -> None:
        self._shape = image_shape(x, "a DCT basis")
        c, h, w = self._shape
        self._rows, self._columns = cosines(h, h, x), cosines(w, w, x)
        rank = torch.maximum(_rank(h, low)[:, None], _rank(w, low)[None, :])
        self.rank = rank.flatten().repeat(c).to(x.device)

    def step(self, theta: Tensor, number: Tensor, length: Tensor) -> Tensor:
        """One wave is added."""
        c, h, w = self._shape
        channel, u, v = number // (h * w), number // w % h, number % w
        wave = (length[:, None] * self._rows[u])[:, :, None] * self._columns[v][:, None, :]
        moved = theta.reshape(-1, c, h, w).clone()
        moved[torch.arange(len(theta), device=theta.device), channel] += wave
        return moved.reshape(theta.shape)


def cosines(n: int, count: int, like: Tensor) -> Tensor:
    """The lowest frequencies of the orthonormal DCT-II, `(count, n)`: a row for each."""
    place, frequency = torch.arange(n, dtype=torch.float64), torch.arange(count, dtype=torch.float64)
    waves = torch.cos(torch.pi * (2 * place + 1) * frequency[:, None] / (2 * n)) * math.sqrt(2 / n)
    waves[0] = math.sqrt(1 / n)
    return waves.to(like)


def _rank(n: int, low: float) -> Tensor:
    """The ranks of n frequencies."""
    first = max(1, math.ceil(low * n))
    return ((torch.arange(n, dtype=torch.float64) - first) / max(1.0, first / 4)).floor().add(1).clamp_min(0)
