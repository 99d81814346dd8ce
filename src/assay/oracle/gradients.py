"""Losses of a model's output and their gradients with respect to a move, whatever the precision."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from assay.errors import LossError, ModelError
from assay.goals import Goal
from assay.losses import Loss


def loss_of(output: Any, guide: Goal, loss: Loss | None) -> Tensor:
    """The loss of each sample, in single precision at least; the guide's own when None."""
    return _loss(output.float() if _half(output) else output, guide, loss)


def _loss(output: Any, guide: Goal, loss: Loss | None) -> Tensor:
    return guide.loss(output) if loss is None else loss(output, guide)


def chosen(output: Any, guide: Goal, *, classes: Tensor) -> Tensor:
    """One chosen output of each sample: a loss, once the classes are given.

    Raises:
        LossError: what the guide looks at is no tensor of outputs.
    """
    if not isinstance(output, Tensor):
        raise LossError(f"single outputs have gradients, a {type(output).__name__} as a whole: use PGD.")
    value: Tensor = output.gather(1, classes[:, None]).squeeze(1)
    return value


def gradient(
    output: Any, theta: Tensor, guide: Goal, loss: Loss | None, *, keep: bool = False
) -> tuple[Tensor, Tensor]:
    """The loss of each sample and its gradient with respect to the move.

    Half precision would lose both: losses are computed in float32, and the gradient at the output is scaled to a
    largest value of 1 per sample for the way back, since small ones vanish in float16. The scale is undone where the
    move's own dtype can hold the result.

    Raises:
        ModelError: no gradient reaches the input.
    """
    if not _half(output):
        value = _loss(output, guide, loss)
        return value.detach(), _backward(value.sum(), theta, keep=keep)
    wide = output.detach().float().requires_grad_()
    value = _loss(wide, guide, loss)
    (slope,) = torch.autograd.grad(value.sum(), wide)
    column = [-1, *[1] * (slope.ndim - 1)]
    scale = slope.flatten(1).abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    grad = _backward(output, theta, slope=(slope / scale.reshape(column)).to(output.dtype), keep=keep)
    if not _half(theta):
        grad = grad * scale.reshape(-1, *[1] * (grad.ndim - 1)).to(grad.dtype)
    return value.detach(), grad


def each_class(classes: Tensor) -> list[Loss]:
    """The losses that are single outputs, for classes `(b, k)`."""
    return [partial(chosen, classes=one) for one in classes.unbind(1)]


def finite(grad: Tensor) -> Tensor:
    """The gradient with NaN as 0 and infinities as the largest numbers.

    A NaN in a part of a sample's gradient (as from `torch.where(t > 0, t.sqrt(), 0)` at 0) would stop sign steps at
    that pixel and spoil the others.

    Raises:
        ModelError: there is nothing but NaN.
    """
    if bool(grad.isfinite().all()):
        return grad
    if bool(grad.isnan().all()):
        raise ModelError(
            f"the model's gradient is NaN for all {len(grad)} samples, so that a gradient attack would find nothing "
            "and make it look robust. Look for sqrt, log, division or norm at 0 (also in the branch of a torch.where "
            "that is not taken), and for infinite logits; or attack it with scores alone (Square)."
        )
    return grad.nan_to_num(nan=0.0)


def _half(output: Any) -> bool:
    return isinstance(output, Tensor) and output.dtype in (torch.float16, torch.bfloat16)


def _backward(value: Tensor, theta: Tensor, *, slope: Tensor | None = None, keep: bool = False) -> Tensor:
    """The gradient of a summed value, with the reason named when there is none."""
    grad = None
    if value.requires_grad:
        (grad,) = torch.autograd.grad(value, theta, grad_outputs=slope, retain_graph=keep, allow_unused=True)
    if grad is None:
        raise ModelError(
            "no gradient reaches the input: the model's output does not depend on it in a way that autograd can follow "
            "(.detach(), .data, torch.no_grad(), NumPy or rounding inside the model). Use an attack that needs scores "
            "only, such as Square, or make the forward pass differentiable."
        )
    return grad
