"""Pursuit: brief searches towards several classes, and long ones for the samples that came near."""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, cast, final

import torch
from torch import Tensor

from assay.attacks.around import Around
from assay.attacks.boundaries import class_goal, logits, ranked
from assay.attacks.remaining import Remaining
from assay.errors import SettingError
from assay.goals import Goal, Targeted
from assay.losses import margin
from assay.oracle import Access, Oracle
from assay.rng import Keyed

_CHANCE = 4.0  # times what two starts differ by, within which a sample counts as near


@final
@dataclass(frozen=True, kw_only=True)
class Pursuit(Around):
    r"""Brief searches towards several classes, and long ones for the samples that came near.

    The inner attack is led to each of the `targets` likeliest other classes, as in `MultiTargeted`. Most samples are
    broken then, or far from it; of those that came near, chance decides: a start, a few steps more. How much chance
    decides, a search shows that goes once more, from a new start, to the class that came nearest: it ends $c$ above or
    below the first one. With the clean margin $m_0$ and the largest one found $m$, a sample goes on while
    $-m \le \max(near (m - m_0), 4 c)$: what is missing is a small share of what was gained, or not much more than what
    chance makes of it, which is large where gradients mislead. Round r of these leads the inner attack, with `longer`
    times its steps, from a new start to the class that came nearest (every second round to the next nearest).

    Args:
        attack: the inner attack, with `steps`, such as a short `APGD`; its threat is the threat.
        targets: how many classes to try; all others when the model has fewer, the one of a targeted goal.
        rounds: long searches for a sample that stays near, at most.
        longer: how many times the steps of the inner attack these take.
        near: the share.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension.

    Raises:
        SettingError: a setting is out of range, or the inner attack has no steps and threat of its own.
        LossError: the goal is not about classes, or the model has too few for the inner attack's loss.

    References:
        Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML 2020, https://arxiv.org/abs/2003.01690 (APGD-T, the brief searches). The rounds are our own.

    Example:
        >>> import torch, assay
        >>> from assay.attacks import APGD
        >>> attack = Pursuit(attack=APGD(threat=assay.Linf(0.1), loss="margin", steps=5), targets=2, rounds=1)
        >>> attack(torch.nn.Linear(4, 3), torch.full((2, 4), 0.5), torch.tensor([0, 1])).success.shape
        torch.Size([2])
    """

    targets: int = 4
    rounds: int = 3
    longer: int = 5
    near: float = 0.1

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        for name in ("targets", "longer"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.rounds < 0:
            raise SettingError(f"rounds must not be negative; got {self.rounds}.")
        if not self.near >= 0:
            raise SettingError(f"near must not be negative; got {self.near}.")
        known: set[str] = {field.name for field in fields(self.attack)} if is_dataclass(self.attack) else set()
        if not {"threat", "steps"} <= known:
            name = type(self.attack).__name__
            raise SettingError(
                f"Pursuit lengthens the steps of an attack such as PGD or APGD; {name} has none of its own."
            )

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """The inner attack towards each class, then rounds for whoever is near."""
        known = class_goal(goal)
        scores = logits(oracle.clean())
        clean = margin(scores, known).to(x.dtype)
        classes = known.classes[:, None] if isinstance(known, Targeted) else ranked(scores, known)[:, : self.targets]
        hunt = _Hunt(Remaining(oracle, rng), classes, clean)
        for rank in range(classes.shape[1]):
            hunt.lead(self.attack, torch.full_like(hunt.classes[:, 0], rank))
            if hunt.over:
                return hunt.moves
        if self.rounds == 0:
            return hunt.moves
        hunt.repeat(self.attack)
        inner = cast(Any, self.attack)
        long = replace(inner, steps=self.longer * inner.steps)
        for number in range(self.rounds):
            hunt.leave(self.near)
            if hunt.over:
                break
            order = hunt.values.argsort(dim=1, descending=True, stable=True)
            hunt.lead(long, order[:, min(number % 2, order.shape[1] - 1)])
        return hunt.moves


@final
class _Hunt:
    """The samples that are left, with the classes that they are led to and how near they came.

    Args:
        left: those that are left.
        classes: `(b, t)`.
        clean: the clean margins, `(b,)`.
    """

    def __init__(self, left: Remaining, classes: Tensor, clean: Tensor) -> None:
        self._left, self.classes, self._clean = left, classes, clean
        self._theta = left.threat.identity(left.x)
        self.values = torch.full(classes.shape, -torch.inf, dtype=clean.dtype, device=clean.device)
        self._chance = torch.zeros_like(clean)

    def repeat(self, attack: Any) -> None:
        """Search once more towards the class that came nearest: what chance makes of it."""
        self.lead(attack, self.values.argmax(dim=1), again=True)

    def lead(self, attack: Any, rank: Tensor, *, again: bool = False) -> None:
        """Search towards one of its classes for each sample."""
        oracle, place = self._left.oracle, rank[:, None]
        goal = class_goal(oracle.goal)
        away = goal.away if isinstance(goal, Targeted) else goal.classes
        target = Targeted(self.classes.gather(1, place).squeeze(1), away=away)
        within = replace(attack, threat=oracle.threat)  # a budget for each of those that are left
        theta = within.run(oracle.towards(target), self._left.x, target, self._left.rng)
        value = oracle.value(theta, margin).to(self._clean.dtype)
        if again:
            self._chance = (value - self.values.gather(1, place).squeeze(1)).abs()
        best = self.values.max(dim=1).values
        self._theta = torch.where((value > best).reshape(-1, *[1] * (theta.ndim - 1)), theta, self._theta)
        self.values = self.values.scatter_reduce(1, place, value[:, None], "amax")
        self._narrow(None)

    def leave(self, near: float) -> None:
        """Leave the samples that are not near."""
        best = self.values.max(dim=1).values
        self._narrow(~(-best <= torch.maximum(near * (best - self._clean), _CHANCE * self._chance)))

    @property
    def over(self) -> bool:
        """Whether nobody is left."""
        return self._left.oracle.finished or len(self.classes) == 0

    @property
    def moves(self) -> Tensor:
        """The best moves of the whole batch."""
        return self._left.moves(self._theta)

    def _narrow(self, done: Tensor | None) -> None:
        state = (self._theta, self.values, self.classes, self._clean, self._chance)
        share = 0.75 if done is None else 1.0
        found = self._left.narrow(*state, done=done, share=share)
        self._theta, self.values, self.classes, self._clean, self._chance = found
