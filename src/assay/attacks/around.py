"""Attacks that run another attack."""

from __future__ import annotations

from dataclasses import dataclass

from assay.attacks.base import Attack
from assay.goals import Goal
from assay.threats import Threat


@dataclass(frozen=True, kw_only=True)
class Around(Attack):
    """An attack whose threat and aim are those of the attack that it runs.

    Args:
        attack: the inner attack.
    """

    attack: Attack

    @property
    def threat(self) -> Threat:  # type: ignore[override]
        """The inner attack's threat."""
        return self.attack.threat

    def aim(self, goal: Goal) -> Goal:
        """What the inner attack aims at."""
        return self.attack.aim(goal)
