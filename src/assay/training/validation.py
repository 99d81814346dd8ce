"""What is measured while training, on samples held out of it: accuracies, or the quality of a generative network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from assay.attacks import PGD
from assay.data import Data
from assay.data.parts import chunk
from assay.rng import derive
from assay.threats import Threat
from assay.training.recipes import Batch, GenerativeRecipe
from assay.training.recipes.base import mode
from assay.training.workers import Workers

STEPS = 10  # of PGD: what papers report while they train


@final
@dataclass(frozen=True)
class Measured:
    """Numbers on the held-out samples.

    Args:
        clean: share of right decisions; None for a network that decides nothing.
        robust: share that is right and stays so under PGD-10 within every threat; None where there is none.
        quality: what a `GenerativeRecipe` measures; None for others.
    """

    clean: float | None = None
    robust: float | None = None
    quality: float | None = None


def measure(model: nn.Module, data: Data, threats: Sequence[Threat], workers: Workers, seed: int) -> Measured:
    """Accuracy of the network, which is run in eval mode, and what PGD-10 leaves of it; shared out over the processes.

    Args:
        model: the network.
        data: the held-out samples.
        threats: the attack's, one after the other on what the others left; none measures clean accuracy alone.
        workers: who shares the work.
        seed: key of the attack's draws; the same for all epochs, so that epochs can be compared.
    """
    clean = robust = 0
    for x, y, index in _own(data, workers):
        with workers.autocast():
            right, held = _right(model, x, y, index, threats, seed)
        clean += int(right.sum())
        robust += int(held.sum())
    clean, robust = (int(count) for count in workers.total(clean, robust))
    return Measured(clean / len(data), robust / len(data) if threats else None)


def quality(
    model: nn.Module, data: Data, recipe: GenerativeRecipe, workers: Workers, seed: int, critic: nn.Module | None
) -> Measured:
    """The mean of what a recipe measures of a generative network, which is run in eval mode.

    Args:
        model: the network.
        data: the held-out samples.
        recipe: what measures.
        workers: who shares the work.
        seed: key of the recipe's draws; the same for all epochs.
        critic: the second network, where there is one.
    """
    total = 0.0
    key = derive(seed, "measure")
    with mode(model, train=False), torch.no_grad():
        for x, y, index in _own(data, workers):
            with workers.autocast():
                found = recipe.measure(model, Batch(x=x, y=y, index=index, seed=key, critic=critic))
            total += float(found.double().sum())
    return Measured(quality=workers.total(total)[0] / len(data))


def _own(data: Data, workers: Workers) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The batches that are this process's share."""
    size = min(chunk(data), -(-len(data) // workers.world))
    for start in range(0, len(data), size)[workers.rank :: workers.world]:
        x, y, index = data.batch(start, start + size)
        yield x.to(workers.device, workers.dtype), y.to(workers.device), index.to(workers.device)


def _right(
    model: nn.Module, x: Tensor, y: Tensor, index: Tensor, threats: Sequence[Threat], seed: int
) -> tuple[Tensor, Tensor]:
    """Which decisions are right, and which of them PGD-10 does not change within any threat; `(b,)` each."""
    with mode(model, train=False):
        with torch.no_grad():
            right = model(x).argmax(dim=1) == y
        if not threats:
            return right, right
        held = torch.ones_like(right)  # what is wrong at first every attack finds at once
        for threat in threats:
            rows = held.nonzero().squeeze(1)
            if len(rows):
                attack = PGD(threat=threat, steps=STEPS)
                held[rows] = ~attack(model, x[rows], y[rows], seed=seed, index=index[rows]).success
        return right, held
