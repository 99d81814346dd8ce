"""Gradient ascent of known length: its best point, and APGD's choice of the step size."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from assay.attacks.memory import carried
from assay.losses import Loss
from assay.oracle import Oracle

_NEW = 0.75  # weight of the new point against the old direction
_SHARE_OF_GAINS = 0.75  # rho: the least share of steps that must raise the loss


def climbed(
    oracle: Oracle, x: Tensor, theta: Tensor, loss: Loss | None, steps: int, first: float = 2.0
) -> tuple[Tensor, Tensor]:
    """APGD's search from given moves.

    Args:
        oracle: answers.
        x: clean inputs.
        theta: where it begins, `(b, *m)`.
        loss: what it raises; the guide's own when None.
        steps: gradient evaluations.
        first: length of the first step, in eps.

    Returns:
        The moves of the largest loss, and these losses `(b,)`.
    """
    threat, eps = oracle.threat, oracle.threat.budget(x)
    new = _NEW if not threat.memory else 1.0
    climb = Climb(oracle, theta, loss, steps, threat.memory)
    before, eta = climb.theta, first * eps
    interval, last = max(int(0.22 * steps), 1), 0
    best_then, halved_then = climb.best_value.clone(), torch.ones_like(oracle.active)
    while climb.running:
        now = climb.theta
        ahead = threat.project(x, threat.ascend(x, now, climb.grad, eta))
        if climb.taken and new < 1:
            ahead = threat.project(x, now + new * (ahead - now) + (1 - new) * (now - before))
        before = now
        climb.step(ahead)
        if climb.taken - last == interval:
            stuck = ~halved_then & (climb.best_value <= best_then)
            halve = stuck | (climb.gains <= _SHARE_OF_GAINS * interval)
            eta = torch.where(halve, eta / 2, eta)
            climb.back_to_best(halve)
            best_then, halved_then = climb.best_value.clone(), halve
            last, interval = climb.taken, max(interval - max(int(0.03 * steps), 1), int(0.06 * steps), 1)
    return climb.best, climb.best_value


@final
class Climb:
    """The bookkeeping of a gradient ascent of known length: where it is, its best point, and its gains."""

    def __init__(self, oracle: Oracle, theta: Tensor, loss: Loss | None, steps: int, memory: float = 0.0) -> None:
        self.oracle, self.loss, self.steps, self.memory = oracle, loss, steps, memory
        self.theta, self.taken = theta, 0
        self.value, grad, _ = oracle.gradient(theta, loss)
        self.grad = carried(torch.zeros_like(grad), grad, memory)
        self.best, self.best_value, self.best_grad = theta.clone(), self.value.clone(), self.grad.clone()
        self.gains = torch.zeros_like(self.value)

    @property
    def running(self) -> bool:
        """Whether steps are left and someone still needs them."""
        return self.taken < self.steps and not self.oracle.finished

    def step(self, theta: Tensor) -> None:
        """Move there; the last move needs no gradient."""
        before, self.theta = self.value, theta
        self.taken += 1
        if self.taken < self.steps:
            self.value, grad, _ = self.oracle.gradient(theta, self.loss)
            self.grad = carried(self.grad, grad, self.memory)
        else:
            self.value = self.oracle.value(theta, self.loss)
        self.gains += self.value > before
        better = self.value > self.best_value
        rows = better.nonzero().squeeze(1)
        self.best[rows], self.best_grad[rows] = self.theta[rows], self.grad[rows]
        self.best_value = torch.where(better, self.value, self.best_value)

    def back_to_best(self, rows: Tensor) -> None:
        """Go on from the best point where `rows` says so; gains are counted anew for all."""
        column = rows.reshape(-1, *[1] * (self.theta.ndim - 1))
        self.theta = torch.where(column, self.best, self.theta)
        self.grad = torch.where(column, self.best_grad, self.grad)
        self.value = torch.where(rows, self.best_value, self.value)
        self.gains = torch.zeros_like(self.gains)
