"""What can be asked of the model about moves: its output, a loss, gradients of one loss or of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from assay.goals import Goal
from assay.losses import Loss
from assay.oracle.gradients import finite, gradient, loss_of
from assay.threats import Threat


@final
@dataclass(frozen=True)
class Case:
    """What one micro-batch of questions is about, one row per move.

    Attributes:
        x: clean inputs.
        theta: moves.
        guide: the goal of the loss.
        threat: what turns moves into inputs.
        extra: what else the question needs to know about each sample.
    """

    x: Tensor
    theta: Tensor
    guide: Goal
    threat: Threat
    extra: Tensor | None


Answers = dict[str, Any]  # `moved` and `output`; `value` and `grad` where they were asked for
Question = Callable[[Case], Answers]


@final
class Questions:
    """Asks the model itself.

    Args:
        model: a module or callable.
        strict: whether NaN is taken out of gradients.
    """

    def __init__(self, model: Any, *, strict: bool) -> None:
        self._model, self._strict = model, strict

    def output(self, case: Case) -> Answers:
        """The model's output."""
        with torch.no_grad():
            moved = case.threat.apply(case.x, case.theta)
            return {"moved": moved, "output": self._model(moved)}

    def value(self, case: Case, *, loss: Loss | None) -> Answers:
        """The loss alone."""
        found = self.output(case)
        return {**found, "value": loss_of(found["output"], case.guide, loss)}

    def gradient(self, case: Case, *, loss: Loss | None) -> Answers:
        """The loss and its gradient with respect to the move."""
        with torch.enable_grad():
            theta = case.theta.detach().requires_grad_()
            moved = case.threat.apply(case.x, theta)
            output = self._model(moved)
            value, grad = gradient(output, theta, case.guide, loss)
        grad = finite(grad) if self._strict else grad
        return {"moved": moved.detach(), "output": _detach(output), "value": value, "grad": grad}

    def gradients(self, case: Case, *, losses: Callable[[Tensor | None], Sequence[Loss]]) -> Answers:
        """Gradients of several losses, which are made for the rows of the micro-batch from what else is known."""
        each = losses(case.extra)
        with torch.enable_grad():
            theta = case.theta.detach().requires_grad_()
            moved = case.threat.apply(case.x, theta)
            output = self._model(moved)
            grads = [
                gradient(output, theta, case.guide, loss, keep=i + 1 < len(each))[1] for i, loss in enumerate(each)
            ]
        return {"moved": moved.detach(), "output": _detach(output), "grad": finite(torch.stack(grads, dim=1))}


def _detach(output: Any) -> Any:
    return output.detach() if isinstance(output, Tensor) else output
