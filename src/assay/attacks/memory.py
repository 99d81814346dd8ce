"""A running sum of gradients, which several searches carry from step to step."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.threats.additive import column


def carried(before: Tensor, grad: Tensor, decay: float) -> Tensor:
    """`decay * before + grad / ||grad||_1` for each sample, or the gradient itself where nothing is carried on.

    Args:
        before: the sum so far, `(b, *m)`.
        grad: the new gradient, `(b, *m)`.
        decay: share of the sum that is kept.
    """
    if not decay:
        return grad
    norm = grad.flatten(1).abs().sum(dim=1).clamp_min(torch.finfo(grad.dtype).tiny)
    return decay * before + grad / column(norm, grad)
