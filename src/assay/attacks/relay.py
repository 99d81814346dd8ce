"""Relay: gradient ascent and random search take turns, for as long as that promises something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.around import Around
from assay.attacks.boundaries import class_goal, logits
from assay.attacks.climb import climbed
from assay.attacks.images import image_shape
from assay.attacks.remaining import Remaining
from assay.attacks.square_windows import Bumps, Stripes, Windows
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.losses import margin
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L1, L2, Linf
from assay.threats.base import need_budget

_SHARES = (0.1, 0.05, 0.025, 0.0125)  # of the pixels in a window, in this order again and again
_FIRST = 0.5  # length of an ascent's first step, in eps
_HOPE = 2.0  # times the gain of a turn that each turn to come is trusted with
_MISLED = 10.0  # the same, where random search gained more than all gradients
_LONGER = 2.5  # times the turns, there
_PATIENCE = 10  # turns that nobody is left before, there


@final
@dataclass(frozen=True, kw_only=True)
class Relay(Around):
    r"""Gradient ascent and random search take turns on one perturbation, each from where the other one ended.

    The inner attack leads to the first moves. A turn is a search of `queries` windows, as `Square` changes them, from
    the best move so far, then `steps` of `APGD` from what that found. Both raise the margin m. Where gradients are
    honest, no window improves on what they found; where they mislead, a few windows lead to places from which gradients
    lead on.

    After turn k of K a sample is left when what its last turn gained does not let the rest be hoped for:
    `m_k + 2 (K - k) (m_k - m_{k-1}) < 0`. Where the searches gained no less than the inner attack and all ascents
    together, gradients are of little use: the factor is 10 there, K larger by 2.5, what the searches gained in a turn
    on average counts where that is more than the last turn's gain, and no sample is left before turn 10.

    Args:
        attack: what leads to the first moves, such as a short `APGD`; its threat is the threat.
        turns: K, at most.
        queries: windows in a turn.
        steps: gradient evaluations in a turn.

    Shapes:
        x `(b, channels, height, width)`; `(b, d)` counts as one row of d pixels, `(b, c, d)` as c channels of them.

    Raises:
        ThreatError: the threat is none of `Linf`, `L2` and `L1`, has no budget, or the inputs are not images.
        SettingError: a setting is out of range.
        LossError: the goal is not about classes.

    References:
        Andriushchenko, Croce, Flammarion, Hein, "Square attack: a query-efficient black-box adversarial attack via
        random search", ECCV 2020, https://arxiv.org/abs/1912.00049 (the windows).
        Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML 2020, https://arxiv.org/abs/2003.01690 (the ascent).

    Example:
        >>> import torch, assay
        >>> from assay.attacks import APGD
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        >>> attack = Relay(attack=APGD(threat=assay.Linf(0.1), loss="margin", steps=5), turns=2, queries=10)
        >>> attack(model, torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1])).success.shape
        torch.Size([2])
    """

    turns: int = 20
    queries: int = 100
    steps: int = 10

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        for name in ("turns", "queries", "steps"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1; got {getattr(self, name)}.")
        need_budget(self.threat, type(self).__name__)
        if not isinstance(self.threat, (Linf, L2, L1)):
            raise ThreatError(f"Relay works in Linf, L2 and L1; got {self.threat!r}.")

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """The inner attack, then turns for whoever may hope."""
        theta = self.attack.run(oracle, x, goal, rng)
        left = Remaining(oracle, rng)
        value = oracle.value(theta, margin)
        clean = margin(logits(oracle.clean()), class_goal(goal)).to(value)
        by_gradients, by_search = (value - clean).clamp_min(0), torch.zeros_like(value)
        most = round(_LONGER * self.turns) if oracle.referee else self.turns
        for turn in range(1, most + 1):
            before = value
            theta, found = self._searched(left, theta, value)
            theta, value = climbed(left.oracle, left.x, theta, margin, self.steps, _FIRST)
            if left.oracle.finished:
                break
            by_search, by_gradients = by_search + (found - before), by_gradients + (value - found).clamp_min(0)
            misled = by_search >= by_gradients
            to_come = torch.where(misled, _MISLED * (most - turn), _HOPE * max(0, self.turns - turn))
            gain = torch.where(misled, torch.maximum(value - before, by_search / turn), value - before)
            hopeless = ~(value + to_come * gain >= 0) & ~(misled & (turn < _PATIENCE))
            state = (theta, value, by_gradients, by_search)
            theta, value, by_gradients, by_search = left.narrow(*state, done=hopeless, share=1.0)
            if len(theta) == 0:
                break
        return left.moves(theta)

    def _searched(self, left: Remaining, theta: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Windows that raise the margin, from moves of known margin; the moves found, and their margins."""
        oracle, threat, shape = left.oracle, left.threat, theta.shape
        x = left.x.reshape(len(theta), *image_shape(left.x, "Relay"))
        windows: Windows = Stripes() if isinstance(threat, Linf) else Bumps(2 if isinstance(threat, L2) else 1)
        best, eps = theta.reshape(x.shape), threat.budget(x)[:, None, None, None]
        draws = left.rng.uniform(self.queries, windows.draws(x.shape[1]))
        for query in range(self.queries):
            if oracle.finished:
                break
            move = threat.project(x, windows.move(best, eps, draws[:, query], _SHARES[query % len(_SHARES)]))
            tried = oracle.value(move.reshape(shape), margin)
            better = tried > value
            best = torch.where(better[:, None, None, None], move, best)
            value = torch.where(better, tried, value)
        return best.reshape(shape), value
