"""Jacobian-based augmentation: new inputs along the slopes of what a substitute has learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_TOGETHER = 256  # inputs in one pass


def along_slopes(model: nn.Module, x: Tensor, labels: Tensor, step: float, bounds: tuple[float, float]) -> Tensor:
    """`clip(x + step * sign(dF_label(x) / dx))`, F the substitute's probability of the target's label.

    Args:
        model: the substitute, in eval mode.
        x: inputs, `(n, *shape)`.
        labels: the target's decisions on them.
        step: the length of the step; a negative one leads away from the label.
        bounds: the smallest and largest valid input value.
    """
    moved = []
    for part, own in zip(torch.split(x, _TOGETHER), torch.split(labels, _TOGETHER), strict=True):
        inputs = part.detach().clone().requires_grad_()
        with torch.enable_grad():
            value = model(inputs).log_softmax(dim=1).gather(1, own[:, None]).sum()  # its slope has the same signs
            (slope,) = torch.autograd.grad(value, inputs)
        moved.append((part + step * slope.sign()).clamp(*bounds))
    return torch.cat(moved)


def step_of(number: int, length: float, period: int) -> float:
    """The step of an augmentation: its sign changes after every `period` of them, and never where that is 0."""
    return -length if period and (number // period) % 2 else length


def chosen(n: int, most: int | None, generator: torch.Generator) -> Tensor:
    """Which of n inputs are augmented: all, or `most` of them, each with the same chance; sorted."""
    if most is None or n <= most:
        return torch.arange(n)
    return torch.randperm(n, generator=generator)[:most].sort().values
