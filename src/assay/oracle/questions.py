"""What can be asked of the model about moves: its output, a loss, gradients of one loss or of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from assay.goals import Goal, Look, Passes
from assay.losses import Loss
from assay.oracle.gradients import finite, gradient, loss_of
from assay.oracle.verdicts import Verdict
from assay.threats import Threat


@final
@dataclass(frozen=True)
class Case:
    """What one micro-batch of questions is about, one row per move.

    Attributes:
        x: clean inputs.
        theta: moves.
        goal: what counts as success.
        guide: the goal of the loss.
        threat: what turns moves into inputs.
        place: the samples' places in the batch that the oracle was made for.
        number: how many questions each of them was asked before; zeros where that changes no answer.
        extra: what else the question needs to know about each sample.
    """

    x: Tensor
    theta: Tensor
    goal: Goal
    guide: Goal
    threat: Threat
    place: Tensor
    number: Tensor
    extra: Tensor | None


Answers = dict[str, Any]  # `moved` and `output`; `value` and `grad` where asked for; `verdict` where there were draws
Question = Callable[[Case], Answers]
Losses = Callable[[Any], Sequence[Loss]]  # from what else is known of the samples of a micro-batch


@final
@dataclass(frozen=True)
class Second:
    """A second judgement of moves that reached the goal.

    Attributes:
        draws: forward passes per move that it takes.
        judge: its verdict on moved inputs, given their goal, their threat and their samples' places.
    """

    draws: int
    judge: Callable[[Tensor, Goal, Threat, Tensor], Verdict]


class Questions(ABC):
    """How answers come about.

    Args:
        draws: forward passes per move, at most.
        second: the judgement that confirms a success; None where there is none.
        numbered: whether answers depend on how many questions a sample was asked before.
    """

    def __init__(self, *, draws: int, second: Second | None, numbered: bool) -> None:
        self.draws, self.second, self.numbered = draws, second, numbered

    def spent(self, backwards: int) -> Passes:
        """The passes of a question about one move that goes back through the model so many times."""
        return Passes(self.draws, self.draws * backwards)

    @abstractmethod
    def output(self, case: Case) -> Answers:
        """The model's output."""

    @abstractmethod
    def value(self, case: Case, *, loss: Loss | None) -> Answers:
        """The loss alone; the guide's own when None."""

    @abstractmethod
    def gradient(self, case: Case, *, loss: Loss | None) -> Answers:
        """The loss and its gradient with respect to the move."""

    @abstractmethod
    def gradients(self, case: Case, *, losses: Losses) -> Answers:
        """Gradients of several losses with respect to the move, `(n, k, *m)`."""


@final
class Direct(Questions):
    """Asks about the moved input itself what the goal looks at: the model's output, once, unless it says otherwise.

    Args:
        model: a module or callable.
        look: how the goal looks at it.
        strict: whether NaN is taken out of gradients, and what is judged is asked for where losses lead by a proxy.
    """

    def __init__(self, model: Any, look: Look, *, strict: bool) -> None:
        super().__init__(draws=self._most(look), second=None, numbered=False)
        self._model, self._look, self._strict = model, look, strict

    @staticmethod
    def _most(look: Look) -> int:
        return look.climbed.forwards + (look.judged.forwards if look.proxy else 0)

    def spent(self, backwards: int) -> Passes:
        """The passes of a question; each way back beyond the first costs a further pass."""
        judged, climbed = self._look.judged, self._look.climbed
        if not backwards:
            return judged
        found = Passes(climbed.forwards, climbed.backwards + backwards - 1)
        return Passes(*(sum(each) for each in zip(found, judged, strict=True))) if self._look.proxy else found

    def output(self, case: Case) -> Answers:
        """What is judged."""
        with torch.no_grad():
            moved = case.threat.apply(case.x, case.theta)
            return {"moved": moved, "output": case.goal.seen(self._model, moved)}

    def value(self, case: Case, *, loss: Loss | None) -> Answers:
        """The loss of this output."""
        found = self.output(case)
        return {**found, "value": loss_of(found["output"], case.guide, loss)}

    def gradient(self, case: Case, *, loss: Loss | None) -> Answers:
        """The loss and its gradient, from one pass forward and one back."""
        with torch.enable_grad():
            theta = case.theta.detach().requires_grad_()
            moved = case.threat.apply(case.x, theta)
            output = case.guide.followed(self._model, moved)
            value, grad = gradient(output, theta, case.guide, loss)
        grad = finite(grad) if self._strict else grad
        return {**self._judged(case, moved.detach(), output), "value": value, "grad": grad}

    def gradients(self, case: Case, *, losses: Losses) -> Answers:
        """Gradients of several losses, from one pass forward and one back for each."""
        each = losses(case.extra)
        with torch.enable_grad():
            theta = case.theta.detach().requires_grad_()
            moved = case.threat.apply(case.x, theta)
            output = case.guide.followed(self._model, moved)
            grads = [
                gradient(output, theta, case.guide, loss, keep=i + 1 < len(each))[1] for i, loss in enumerate(each)
            ]
        return {**self._judged(case, moved.detach(), output), "grad": finite(torch.stack(grads, dim=1))}

    def _judged(self, case: Case, moved: Tensor, followed: Any) -> Answers:
        """The moved input and what is judged of it."""
        if not (self._look.proxy and self._strict):
            return {"moved": moved, "output": detached(followed)}
        with torch.no_grad():
            return {"moved": moved, "output": case.goal.seen(self._model, moved)}


def detached(output: Any) -> Any:
    """The output without its history."""
    if isinstance(output, tuple):
        return type(output)(*map(detached, output))
    return output.detach() if isinstance(output, Tensor) else output
