"""Clean and robust accuracy while training, on samples that are held out of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from assay.attacks import PGD
from assay.data import Data
from assay.data.parts import chunk
from assay.threats import Threat
from assay.training.recipes.base import mode
from assay.training.workers import Workers

STEPS = 10  # of PGD: what papers report while they train


@final
@dataclass(frozen=True)
class Measured:
    """Accuracies on the held-out samples.

    Args:
        clean: share of right decisions.
        robust: share that is right and stays so under PGD-10; None where there is no threat.
    """

    clean: float
    robust: float | None


def measure(model: nn.Module, data: Data, threat: Threat | None, workers: Workers, seed: int) -> Measured:
    """Accuracy of the network, which is run in eval mode, and what PGD-10 leaves of it; shared out over the processes.

    Args:
        model: the network.
        data: the held-out samples.
        threat: the attack's; None measures clean accuracy alone.
        workers: who shares the work.
        seed: key of the attack's draws; the same for all epochs, so that epochs can be compared.
    """
    clean = robust = 0
    size = min(chunk(data), -(-len(data) // workers.world))
    for start in range(0, len(data), size)[workers.rank :: workers.world]:
        x, y, index = data.batch(start, start + size)
        x, y, index = x.to(workers.device, workers.dtype), y.to(workers.device), index.to(workers.device)
        with workers.autocast():
            right, held = _right(model, x, y, index, threat, seed)
        clean += int(right.sum())
        robust += int(held.sum())
    clean, robust = (int(count) for count in workers.total(clean, robust))
    return Measured(clean / len(data), None if threat is None else robust / len(data))


def _right(
    model: nn.Module, x: Tensor, y: Tensor, index: Tensor, threat: Threat | None, seed: int
) -> tuple[Tensor, Tensor]:
    """Which decisions are right, and which of them PGD-10 does not change; `(b,)` each."""
    with mode(model, train=False):
        with torch.no_grad():
            right = model(x).argmax(dim=1) == y
        if threat is None:
            return right, right
        attack = PGD(threat=threat, steps=STEPS)
        return right, ~attack(model, x, y, seed=seed, index=index).success
