"""Gradients that all processes agree on, and the end of a run whose numbers are finite no more."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from assay.errors import DivergedError
from assay.training.workers import Workers, norm


def agreed(model: nn.Module, told: Tensor, workers: Workers, where: str) -> tuple[list[float], Tensor]:
    """Average gradients over all processes, with some numbers, the loss first; and the gradients' length.

    Args:
        model: whose gradients.
        told: the loss of this process, and what else all shall know, in one dimension.
        workers: the processes.
        where: which step it is, for people.

    Raises:
        DivergedError: the loss or the gradient is no finite number, in all processes at once.
    """
    workers.average(model, told)
    length = norm(p.grad for p in model.parameters() if p.requires_grad and p.grad is not None)
    *numbers, size = torch.cat([told, length.to(told).reshape(1)]).tolist()
    value = numbers[0]
    if not (math.isfinite(value) and math.isfinite(size)):
        what = f"the gradient became {size}" if math.isfinite(value) else f"the loss became {value}"
        raise DivergedError(
            f"{what} at {where}. Try a lower learning rate (--optimizer 'SGD(lr=0.01)'), shorter gradients (--clip 1), "
            "a slower start (--schedule 'Cyclic(peak=0.4)', --warmup 5) or --precision 32-true. No step was made with "
            "it."
        )
    return numbers, length
