"""Stochastic gradient ascent on the mean loss of mini-batches."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from assay.losses import cross_entropy
from assay.universal.method import Ball, Method, Step, Task, number, whole


@final
@dataclass(frozen=True, kw_only=True)
class StochasticAscent(Method):
    """One step of steepest ascent for each mini-batch, on the mean of its clipped cross-entropies.

    `v <- P(ascend(v, g, step))`, where g is the gradient of `mean_i min(-log p_{c_i}(x_i + v), clip)`, `c_i` the
    model's decision on the clean input, `ascend` the steepest ascent of the norm (for Linf `v + step * sign(g)`) and P
    the projection on the ball. A sample whose loss has reached `clip` no longer pulls, which leaves the perturbation to
    those that are not fooled yet. The step falls from `rel_step * eps` to 0 in a straight line.

    Args:
        epochs: passes over the samples.
        batch: samples in a mini-batch.
        rel_step: length of the first step as a share of eps.
        clip: the largest loss of a sample that counts; None takes the logarithm of the number of classes, from which on
            the decision has changed for certain.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        The paper maximises the loss of the right label, here that of the decision on the clean input, which is what the
        fooling rate counts. The paper's steps are those of several optimisers; here they are the steepest ascent of the
        norm with a falling length. Inputs are clipped to the bounds before the model sees them, with a gradient that
        passes. Towards a target the loss is `log p_t`, which needs no clipping.

    References:
        Shafahi, Najibi, Xu, Dickerson, Davis, Goldstein, "Universal adversarial training", AAAI 2020,
        https://arxiv.org/abs/1811.11304

    Example:
        >>> StochasticAscent(epochs=5)
        StochasticAscent(epochs=5, batch=100, rel_step=0.5, clip=None)
    """

    epochs: int = 10
    batch: int = 100
    rel_step: float = 0.5
    clip: float | None = None

    def __post_init__(self) -> None:
        whole("epochs", self.epochs, 1)
        whole("batch", self.batch, 1)
        number("rel_step", self.rel_step)
        if self.clip is not None:
            number("clip", self.clip)

    def fit(self, task: Task, v: Tensor) -> Iterator[Step]:
        """A step for each mini-batch."""
        ball, eps = Ball(task.threat, torch.zeros_like(v)), float(task.threat.budget(v))
        clip = math.log(task.classes) if self.clip is None else self.clip

        def loss(output: Any, goal: Any) -> Tensor:
            return cross_entropy(output, goal).clamp(max=clip)

        n = len(task)
        for epoch in range(self.epochs):
            seen = fooled = 0
            for positions in torch.split(task.order(epoch), self.batch):
                oracle = task.about(positions)
                _, grad, _ = oracle.gradient(v.expand_as(oracle.x), loss)
                length = self.rel_step * eps * (1 - (epoch * n + seen) / (self.epochs * n))
                v = ball.ascend(v, grad.mean(dim=0, keepdim=True), length)
                seen += len(positions)
                fooled += int(oracle.record.success.sum())
                yield Step(
                    v=v,
                    passes=epoch + (seen == n),
                    done=epoch * n + seen,
                    total=self.epochs * n,
                    fooled=fooled / seen,
                    forwards=len(positions),
                    backwards=len(positions),
                )
