"""What the model is shown in place of a moved input while a search looks for its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast, final

from torch import Tensor

from assay.oracle.questions import Answers, Case, Question
from assay.threats import Threat


@final
@dataclass(frozen=True)
class View:
    """A differentiable change of moved inputs that a search takes gradients through, and that nothing is judged by.

    `L(theta) = loss(f(show(apply(x, theta), drawn)))`: the model's answer is that to another input, so it can lead the
    search and cannot decide a sample. It is counted like every other.

    Attributes:
        show: from moved inputs `(n, *shape)` and what was drawn for them to what the model sees.
        drawn: the parameters of each sample, `(b, ...)`.
    """

    show: Callable[[Tensor, Tensor], Tensor]
    drawn: Tensor

    def question(self, question: Question) -> Question:
        """The same question about what is shown."""

        def about(case: Case) -> Answers:
            assert case.extra is not None  # `drawn`, for the rows of the micro-batch
            shown = _Shown(case.threat, self.show, case.extra)
            return question(replace(case, threat=cast(Threat, shown)))

        return about


@final
@dataclass(frozen=True)
class _Shown:
    """As much of a threat as questions use."""

    threat: Threat
    show: Callable[[Tensor, Tensor], Tensor]
    drawn: Tensor

    @property
    def bounds(self) -> tuple[float, float]:
        return self.threat.bounds

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        return self.show(self.threat.apply(x, theta), self.drawn)
