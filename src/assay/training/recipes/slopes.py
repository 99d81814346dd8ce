"""Gradients of the loss with respect to the inputs, through which a penalty on them can be trained."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor, nn

from assay.attribution.surrogate import twice
from assay.training.recipes.base import Batch


def slopes(model: nn.Module, batch: Batch, x: Tensor, *, graph: bool = True) -> tuple[Tensor, Tensor]:
    """The cross-entropy of each sample at x, and its own gradient there.

    The gradients are those of the sum of the losses: they do not shrink as the batch grows.

    Args:
        model: the network, in the mode in which it shall answer.
        batch: whose labels count.
        x: inputs, `(b, *shape)`; where they have a history, the way back to it stays.
        graph: keep what is needed to differentiate both by the parameters.

    Shapes:
        Returns `(b,)` and `(b, *shape)`.
    """
    x = x if x.requires_grad else x.detach().requires_grad_()
    with torch.enable_grad(), twice() if graph else nullcontext():
        values = batch.cross_entropy(model(x), reduction="none")
        (grad,) = torch.autograd.grad(values.sum(), x, create_graph=graph)
    return (values, grad) if graph else (values.detach(), grad)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each sample's two tensors, `(b,)`."""
    return (a * b).flatten(1).sum(dim=1)
