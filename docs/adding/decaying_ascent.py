"""A small attack of one's own, from the page `docs/adding/attack.md`: ascent whose step shrinks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from assay.attacks import Attack
from assay.errors import SettingError
from assay.goals import Goal
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import Threat


@final
@dataclass(frozen=True, kw_only=True)
class DecayingAscent(Attack):
    """Projected ascent from the clean input; the first step is eps long, each later one `decay` times the one before.

    Args:
        threat: which moves are allowed; it needs a budget eps.
        steps: gradient steps.
        decay: length of a step as a share of the one before.

    Raises:
        SettingError: a setting is out of range.
    """

    threat: Threat
    steps: int = 20
    decay: float = 0.8

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingError(f"steps must be at least 1; got {self.steps}.")
        if not 0 < self.decay <= 1:
            raise SettingError(f"decay must be above 0 and at most 1; got {self.decay}.")

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """The search: propose, ask, improve."""
        theta = self.threat.identity(x)
        step = self.threat.budget(x)  # (b,): every sample may have a budget of its own
        for _ in range(self.steps):
            _, grad, _ = oracle.gradient(theta)
            theta = self.threat.project(x, self.threat.ascend(x, theta, grad, step))
            step = step * self.decay
            if oracle.finished:
                return theta
        oracle.judge(theta)  # nobody has asked about the last move yet
        return theta
