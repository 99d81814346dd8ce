"""Auto-PGD: projected gradient ascent that chooses its own step sizes, and its multi-targeted form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.around import Around
from assay.attacks.base import Attack, best_of
from assay.attacks.boundaries import ranked
from assay.attacks.climb import Climb, climbed
from assay.errors import LossError, SettingError, ThreatError
from assay.goals import Goal, Targeted, Untargeted
from assay.losses import Loss, resolve
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L1, Threat
from assay.threats.base import need_budget

_L1_STAGES = ((3, 0.3), (2, 0.3), (1, 0.4))  # radius in eps, share of the steps
_L1_SHRINK = 1.5
_L1_SPARSER = 0.95


@final
@dataclass(frozen=True, kw_only=True)
class APGD(Attack):
    """Auto-PGD: no step size to choose; it is halved where the loss stops rising, and the search goes on from the best.

    With `z = P(ascend(theta_k, g_k, eta))`:
    `theta_{k+1} = P(theta_k + 0.75 (z - theta_k) + 0.25 (theta_k - theta_{k-1}))`, `eta = 2 eps` at first. At
    checkpoints (after 22 % of the steps, then at intervals 3 % shorter each, at least 6 %) a sample's eta is halved and
    it restarts from its best point when less than 75 % of the steps since the last checkpoint raised its loss, or when
    neither eta nor the best loss changed since then.

    For `L1` the paper's own scheme: sparse steps of length eta on a share of the coordinates that adapts to the
    sparsity of the best point, eta shrunk by 1.5 down to eps / 10 and reset when that sparsity still changes, and three
    stages in balls of 3, 2 and 1 times eps.

    For `L0`, where a mix of sparse moves is not sparse, z itself is the next point, and `g_k` is the running sum
    `0.9 g_{k-1} + grad / ||grad||_1`.

    Args:
        threat: which moves are allowed; it needs a budget eps.
        steps: gradient evaluations of each run.
        loss: "ce", "margin", "dlr", a callable, or None for the goal's own.
        restarts: runs from different random starts; the best one counts for each sample.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat has no budget.
        LossError: the model has too few classes for the loss.

    Deviations:
        The released code spends one gradient more than `steps` (the last one is never used). In the L1 scheme
        coordinates that the bounds keep from moving on are left out of the sparse step; the start is uniform in the
        ball for every norm, where the released code starts Linf on the surface. The papers have no L0.

    References:
        Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML 2020, https://arxiv.org/abs/2003.01690
        Croce, Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", ICML 2021,
        https://arxiv.org/abs/2103.01208

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(4, 3)
        >>> attack = APGD(threat=assay.L2(0.5), steps=20, loss="dlr")
        >>> attack(model, torch.full((2, 4), 0.5), torch.tensor([0, 1])).success.shape
        torch.Size([2])
    """

    threat: Threat
    steps: int = 100
    loss: str | Loss | None = "ce"
    restarts: int = 1

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingError(f"steps must be at least 1; got {self.steps}.")
        if self.restarts < 1:
            raise SettingError(f"restarts must be at least 1; got {self.restarts}.")
        need_budget(self.threat, type(self).__name__)
        resolve(self.loss)

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """Restarts of the search that fits the threat."""
        search = self._search_l1 if isinstance(self.threat, L1) else self._search
        return best_of(oracle, [partial(search, oracle, x, rng)] * self.restarts)

    def _search(self, oracle: Oracle, x: Tensor, rng: Keyed) -> Tensor:
        theta, _ = climbed(oracle, x, self.threat.start(x, rng), resolve(self.loss), self.steps)
        return theta

    def _search_l1(self, oracle: Oracle, x: Tensor, rng: Keyed) -> Tensor:
        threat, eps = self.threat, self.threat.budget(x)
        assert isinstance(threat, L1)
        d, theta = x[0].numel(), None
        left = self.steps
        for factor, part in _L1_STAGES:
            steps = left if factor == 1 else min(left, int(part * self.steps))
            if steps == 0:
                continue
            left -= steps
            wide = threat.with_eps(factor * eps)
            first = theta is None
            theta = wide.start(x, rng) if theta is None else wide.project(x, theta)
            climb = Climb(oracle, theta, resolve(self.loss), steps)
            nonzero = _nonzero(theta) if not first else torch.full_like(eps, d)
            share = nonzero / d / _L1_SHRINK if not first else torch.full_like(eps, 0.2)
            eta, interval, last = factor * eps, max(int(0.04 * steps), 1), 0
            while climb.running:
                climb.step(wide.project(x, wide.ascend_sparse(x, climb.theta, climb.grad, eta, share)))
                if climb.taken - last == interval:
                    now = _nonzero(climb.best)
                    sparser = now < _L1_SPARSER * nonzero
                    share, nonzero, last = now / d / _L1_SHRINK, now, climb.taken
                    eta = torch.where(sparser, factor * eps, (eta / _L1_SHRINK).clamp_min(factor * eps / 10))
                    climb.back_to_best(sparser)
            theta = climb.best
        assert theta is not None
        return theta


def _nonzero(theta: Tensor) -> Tensor:
    """Number of coordinates that a move changes, `(b,)`."""
    return (theta.flatten(1) != 0).sum(dim=1).to(theta.dtype)


@final
@dataclass(frozen=True, kw_only=True)
class MultiTargeted(Around):
    """An untargeted goal attacked through targeted losses, one promising class after the other.

    Where the goal names one class, nothing is left to choose: the inner attack runs towards that one.

    For each of the `targets` classes with the largest clean logits besides the right one the inner attack runs with the
    targeted form of its loss; any wrong class counts as success, and a sample leaves as soon as it is broken.

    Args:
        attack: the inner attack; its `threat` is the threat.
        targets: how many classes to try; all others when the model has fewer.

    Raises:
        SettingError: `targets` is not positive.
        LossError: the goal is not about classes, or the model has too few for the inner attack's loss.

    References:
        Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML 2020, https://arxiv.org/abs/2003.01690 (APGD-T).
        Gowal, Uesato, Qin, Huang, Mann, Kohli, "An alternative surrogate loss for PGD-based adversarial testing",
        2019, https://arxiv.org/abs/1910.09338 (MultiTargeted).

    Example:
        >>> import torch, assay
        >>> attack = MultiTargeted(attack=APGD(threat=assay.Linf(0.1), loss="margin", steps=10), targets=2)
        >>> attack(torch.nn.Linear(4, 3), torch.full((2, 4), 0.5), torch.tensor([0, 1])).success.shape
        torch.Size([2])
    """

    targets: int = 9

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        if self.targets < 1:
            raise SettingError(f"targets must be at least 1; got {self.targets}.")

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """The inner attack towards each target in turn."""
        if isinstance(goal, Targeted):
            return self.attack.run(oracle, x, goal, rng)
        if not isinstance(goal, Untargeted):
            raise LossError("MultiTargeted chooses the targets itself: give it labels, or a Targeted goal.")
        logits = oracle.clean()
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            raise ThreatError("MultiTargeted needs a classifier's logits.")
        classes = ranked(logits, goal)[:, : self.targets]

        def towards(rank: int) -> Tensor:
            target = Targeted(classes[:, rank], away=goal.classes)
            return self.attack.run(oracle.towards(target), x, target, rng)

        return best_of(oracle, [partial(towards, rank) for rank in range(classes.shape[1])])
