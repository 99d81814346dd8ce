"""The Jacobian-based saliency map attack: change the few features that raise the target and lower all others."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor

from assay.attacks.base import Attack, smallest_found
from assay.attacks.saliency_pairs import best_pair, saliency
from assay.errors import LossError, SettingError, ThreatError
from assay.goals import Goal
from assay.losses import ClassGoal, Loss
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L0, Threat
from assay.threats.additive import widened

_PAPER_GAMMA = 0.145
_VALUES_AT_ONCE = 1 << 23  # saliencies computed together


@final
@dataclass(frozen=True, kw_only=True)
class JSMA(Attack):
    r"""Step by step the pair of features with the largest saliency moves by theta, until the goal is reached.

    With the target's output `F_t` and the change `s_i` that the step makes to feature i (theta, or what the bounds
    leave of it), the effects `a_i = s_i dF_t / dx_i` and `b_i = s_i sum_{j != t} dF_j / dx_i` give the saliency
    `-(a_p + a_q) (b_p + b_q)` of the pairs with `a_p + a_q > 0` and `b_p + b_q < 0`. The best of all pairs moves.
    Features that have arrived at a bound leave the search.

    The best pair is found by sorting (`saliency_pairs`), so that memory grows as the number d of features and images of
    3x224x224 are no problem. A step costs a forward pass and a backward pass for each of the two sums; with "softmax"
    one, as there `b = -a` exactly.

    The paper's own form is `JSMA(threat=L0(), direction="increase", weight="slope")`, "decrease" its mirror image.

    Args:
        threat: `L0`, counted in features.
        theta: the change of a feature in one step, as a share of the width of the bounds.
        gamma: the share of the features that may be changed: the search ends after `floor(d gamma / 2)` pairs, or
            `floor(d gamma)` single features, and at least one step. None is the paper's 0.145, or what the threat's
            budget allows where it has one.
        pairs: pairs of features, or the single most salient one in each step.
        direction: "increase" or "decrease" features, or "both": each feature either way, but never back.
        jacobian: F is the "softmax" probabilities (JSMA-F) or the "logits" (JSMA-Z).
        weight: "change" takes `s_i` as above; "slope" takes +1 or -1, whatever the step really changes.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension; channels are features of their own.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat is not `L0`, or counts pixels.
        LossError: the goal is none on classes.

    Deviations:
        The search is greedy and takes nothing back, as the paper's: on affine problems it changes up to twice as many
        features as are needed. `FMN` and `SigmaZero` come nearer.

        "both" and "change" are additions, and the defaults: on a network for 28x28 images they change 8 features at the
        median where the paper's form changes 9 ("logits": 20). Untargeted goals, which the paper does not have, take in
        each step the likeliest class besides the right one as the target; any wrong class is a success. Features that
        are at the bound from the start are not in the search. Where no pair qualifies (as with one feature left), the
        best single feature moves. When a pair has reached the goal, it is tried with each of the two alone (2 forward
        passes), as pairs would always change an even number. The derivative of the softmax is that of `log F_t`: it
        differs by the factor `F_t`, the same for all features, and does not vanish where the target is unlikely. With
        a budget no further features are changed once it is spent.

    References:
        Papernot, McDaniel, Jha, Fredrikson, Celik, Swami, "The limitations of deep learning in adversarial settings",
        EuroS&P 2016, https://arxiv.org/abs/1511.07528

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(4, 3)
        >>> attack = JSMA(threat=assay.L0(), gamma=1.0)
        >>> attack(model, torch.full((2, 4), 0.5), torch.tensor([0, 1])).distance.shape
        torch.Size([2])
    """

    threat: L0
    theta: float = 1.0
    gamma: float | None = None
    pairs: bool = True
    direction: Literal["increase", "decrease", "both"] = "both"
    jacobian: Literal["logits", "softmax"] = "softmax"
    weight: Literal["change", "slope"] = "change"

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        if not isinstance(self.threat, L0) or self.threat.unit != "feature":
            raise ThreatError(
                f"JSMA changes single features: it needs L0() or L0(eps) with unit='feature'; got {self.threat!r}."
            )
        if not 0 < self.theta <= 1:
            raise SettingError(f"theta must be above 0 and at most 1, a share of the bounds' width; got {self.theta}.")
        if self.gamma is not None and not 0 < self.gamma <= 1:
            raise SettingError(f"gamma must be above 0 and at most 1; got {self.gamma}.")
        if self.direction not in ("increase", "decrease", "both"):
            raise SettingError(f"direction must be 'increase', 'decrease' or 'both'; got {self.direction!r}.")
        if self.jacobian not in ("logits", "softmax"):
            raise SettingError(f"jacobian must be 'logits' or 'softmax'; got {self.jacobian!r}.")
        if self.weight not in ("change", "slope"):
            raise SettingError(f"weight must be 'change' or 'slope'; got {self.weight!r}.")

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """Change features until the goal is reached, the features are used up, or none is salient."""
        oracle.track()
        flat = x.flatten(1)
        moved = flat.clone()
        latest = torch.zeros(len(x), 2, dtype=torch.int64, device=x.device)
        won = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        rows = oracle.active.nonzero().squeeze(1)
        losses: list[Loss] = [_log_probability] if self.jacobian == "softmax" else [_target, _minus_others]
        for left in range(self._steps(flat), -1, -1):
            part = oracle.at(rows)
            move = (moved[rows] - flat[rows]).reshape(-1, *x.shape[1:])
            if left == 0:
                won[rows] = part.goal.reached(part.scores(move))
                break
            grads, output = part.gradients(move, losses)
            won[rows] = part.goal.reached(output)
            going = (part.active & ~won[rows]).nonzero().squeeze(1)
            rows = rows[going]
            found = torch.zeros(len(rows), dtype=torch.bool, device=x.device)
            for some in torch.split(torch.arange(len(rows), device=x.device), max(1, _VALUES_AT_ONCE // flat.shape[1])):
                here, grad = rows[some], grads[going[some]].flatten(2)
                feature, value, found[some] = self._choose(flat[here], moved[here], grad, oracle.threat.at(here))
                here, feature, value = here[found[some]], feature[found[some]], value[found[some]]
                moved[here[:, None], feature], latest[here] = value, feature
            rows = rows[found]
            if len(rows) == 0:
                break
        move = (moved - flat).reshape(x.shape)
        self._try_without_one(oracle, move, latest, won)
        return smallest_found(oracle, x, move)

    def _steps(self, flat: Tensor) -> int:
        """How many steps gamma allows, or else the budget."""
        together = 2 if self.pairs else 1
        if self.gamma is None and self.threat.eps is not None:
            visits = math.ceil(1 / self.theta - 1e-6)  # until a feature has crossed the box
            return math.ceil(min(int(self.threat.budget(flat).max()), flat.shape[1]) * visits / together)
        gamma = _PAPER_GAMMA if self.gamma is None else self.gamma
        return max(1, int(flat.shape[1] * gamma / together + 1e-6))

    def _choose(self, x: Tensor, moved: Tensor, grads: Tensor, threat: Threat) -> tuple[Tensor, Tensor, Tensor]:
        """The most salient features `(b, 2)`, or `(b, 1)`, what they become, and which samples have such."""
        (low, high), d = threat.bounds, x.shape[1]
        gain, drop = _scaled(grads[:, 0]), _scaled(grads[:, -1])
        changed = moved != x
        free = torch.ones_like(changed)
        if threat.eps is not None:
            free = changed | (changed.sum(dim=1, keepdim=True) < threat.budget(x)[:, None])
        step = self.theta * (high - low)
        ends, gains, drops = [], [], []
        for sign in (1, -1):
            if self.direction == ("decrease" if sign > 0 else "increase"):
                continue
            end = (moved + sign * step).clamp(low, high)
            may = free & (end != moved) & (sign * (moved - x) >= 0)
            weight = (end - moved) / step if self.weight == "change" else sign
            ends.append(end)
            gains.append(torch.where(may, weight * gain, -torch.inf))
            drops.append(torch.where(may, weight * drop, -torch.inf))
        all_gains, all_drops = torch.cat(gains, dim=1), torch.cat(drops, dim=1)
        best, place = saliency(all_gains, all_drops).max(dim=1)
        place = place[:, None]
        if self.pairs:
            pair, value = best_pair(all_gains, all_drops)
            real = (value > 0) & (pair[:, 0] % d != pair[:, 1] % d)  # one feature both ways: less than one way alone
            place, best = torch.where(real[:, None], pair, place), torch.maximum(value, best)
        return place % d, torch.cat(ends, dim=1).gather(1, place), best > 0

    @staticmethod
    def _try_without_one(oracle: Oracle, move: Tensor, latest: Tensor, won: Tensor) -> None:
        """Have the goal tried with either feature of the last pair put back."""
        rows = (won & oracle.active & (latest[:, 0] != latest[:, 1])).nonzero().squeeze(1)
        if len(rows):
            two = move[rows].flatten(1)[:, None].repeat(1, 2, 1).scatter_(2, latest[rows][:, :, None], 0)
            oracle.at(rows).judge(two.reshape(len(rows), 2, *move.shape[1:]))


def _scaled(slope: Tensor) -> Tensor:
    """A sample's gradient with a largest value of 1, so that products of its sums keep in floating point."""
    slope = widened(slope)
    peak = slope.abs().amax(dim=1, keepdim=True)
    return slope / torch.where(peak > 0, peak, 1)


def _wanted(output: Any, goal: Any) -> Tensor:
    """The target of each sample, `(b, 1)`: the one that was asked for, or the likeliest wrong class."""
    if not isinstance(goal, ClassGoal):
        raise LossError(f"JSMA is for goals on classes; not for {type(goal).__name__}.")
    own = goal.classes[:, None]
    return own if goal.targeted else output.detach().scatter(1, own, -torch.inf).argmax(dim=1, keepdim=True)


def _target(output: Any, goal: Any) -> Tensor:
    """The target's logit."""
    value: Tensor = output.gather(1, _wanted(output, goal)).squeeze(1)
    return value


def _minus_others(output: Any, goal: Any) -> Tensor:
    """Minus the sum of all other logits."""
    value: Tensor = _target(output, goal) - output.sum(dim=1)
    return value


def _log_probability(output: Any, goal: Any) -> Tensor:
    """The logarithm of the target's probability."""
    return _target(output.log_softmax(dim=1), goal)
