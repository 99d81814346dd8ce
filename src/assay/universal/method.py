"""What the ways of fitting a universal perturbation share: the samples, the ball, and how they tell where they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from assay.data import Data
from assay.data.parts import chunk, part, shuffled
from assay.errors import SettingError
from assay.goals import Goal, Targeted, Untargeted
from assay.oracle import Access, Oracle
from assay.rng import derive
from assay.threats import Threat
from assay.transformations import EOT


@final
@dataclass(frozen=True, kw_only=True)
class Task:
    """The samples that one perturbation shall fool, and how the model is asked about them.

    Args:
        model: the model, in the mode in which it is attacked.
        data: the samples.
        labels: the model's decisions on the clean samples, `(n,)`; the right ones of those that it rejects.
        classes: how many classes the model knows.
        rejected: the output that stands for rejected inputs, which are not fooled; None without one.
        threat: the ball of allowed perturbations.
        target: the class that all samples shall get; any other than before when None.
        seed: key of all random draws.
        place: where the model is.
        dtype: what inputs are converted to; None leaves them as they are.
        micro_batch: rows per model call; found automatically when None.
    """

    model: Any
    data: Data
    labels: Tensor
    classes: int
    rejected: int | None
    threat: Threat
    target: int | None
    seed: int
    place: torch.device
    dtype: torch.dtype | None
    micro_batch: int | None

    def __len__(self) -> int:
        return len(self.labels)

    def order(self, number: int) -> Tensor:
        """The positions of all samples as this pass takes them."""
        return shuffled(len(self), derive(self.seed, "pass"), number)

    def fooled(self, v: Tensor) -> float:
        """Share of the samples that this perturbation fools."""
        won = 0
        for positions in torch.split(torch.arange(len(self)), chunk(self.data)):
            oracle = self.about(positions)
            oracle.judge(v.expand_as(oracle.x))
            won += int(oracle.record.success.sum())
        return won / len(self)

    def about(self, positions: Tensor, *, eot: EOT | None = None, seed: int = 0) -> Oracle:
        """An oracle for the samples at these positions; what it finds fooled is a success in its record.

        Args:
            positions: which samples.
            eot: views of the moved inputs to ask about in place of them.
            seed: key of these views.
        """
        x, _, _ = part(self.data, positions).batch(0, len(positions))
        x, before = x.to(self.place, self.dtype or x.dtype), self.labels[positions].to(self.place)
        goal: Goal = Untargeted(before, rejected=self.rejected)
        if self.target is not None:
            goal = Targeted(torch.full_like(before, self.target))
        return Oracle(
            self.model,
            x,
            goal,
            self.threat,
            access=Access.GRADIENTS,
            micro_batch=self.micro_batch,
            eot=eot,
            seed=seed,
            index=positions,
        )


@final
class Ball:
    """All allowed perturbations, whatever the input: the threat's ball without the bounds of a single input.

    Values beyond the range of valid inputs change nothing more and are cut off.

    Args:
        threat: the threat.
        zero: the perturbation that changes nothing, `(1, *shape)`.
    """

    def __init__(self, threat: Threat, zero: Tensor) -> None:
        low, high = threat.bounds
        self.threat, self.zero = replace(threat, bounds=(low - high, high - low)), zero

    def project(self, v: Tensor) -> Tensor:
        """The nearest allowed perturbation."""
        return self.threat.project(self.zero, v)

    def ascend(self, v: Tensor, grad: Tensor, step: float) -> Tensor:
        """The allowed perturbation after the steepest ascent of this length."""
        return self.project(self.threat.ascend(self.zero, v, grad, self.zero.new_full((1,), step)))

    def contains(self, v: Tensor) -> bool:
        """Whether a perturbation is allowed, up to rounding."""
        return bool((self.threat.size(self.zero, v) <= self.threat.limit(self.zero)).all())


@final
@dataclass(frozen=True, kw_only=True)
class Step:
    """Where a method is.

    Args:
        v: the perturbation to go by now, `(1, *shape)`.
        passes: finished passes over the samples.
        done: samples visited in all passes together.
        total: samples that are visited at most.
        fooled: share of the samples fooled when they were last visited, in the present pass or all that was finished.
        forwards: model evaluations since the step before.
        backwards: backward passes since then.
    """

    v: Tensor
    passes: int
    done: int
    total: int
    fooled: float
    forwards: int
    backwards: int


class Method(ABC):
    """A way to fit a universal perturbation; its settings are a frozen dataclass."""

    @abstractmethod
    def fit(self, task: Task, v: Tensor) -> Iterator[Step]:
        """Improve a perturbation, step by step.

        Args:
            task: the samples and the model.
            v: where to start, `(1, *shape)`, an allowed perturbation; it is not written to.
        """


def whole(name: str, value: Any, least: int) -> None:
    """Hold that a setting is a whole number.

    Raises:
        SettingError: it is none, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SettingError(f"{name} must be a whole number, at least {least}; got {value!r}.")


def number(name: str, value: Any, *, most: float = float("inf")) -> None:
    """Hold that a setting is a positive number.

    Raises:
        SettingError: it is none, or above `most`.
    """
    fine = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not fine or not 0 < value <= most or value == float("inf"):
        upper = f" and at most {most:g}" if most < float("inf") else ""
        raise SettingError(f"{name} must be a positive number{upper}; got {value!r}.")
