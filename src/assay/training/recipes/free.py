"""Free adversarial training: the backward pass of a step moves the weights and the inputs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from assay.errors import ModelError, SettingError, ThreatError
from assay.threats import L1, L2, Linf, Threat
from assay.threats.base import need_budget
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Recipe, Views, warmed_threat

_DELTA = "delta"


@final
@dataclass(frozen=True, kw_only=True)
class FreeAT(Recipe):
    """Free adversarial training: `CE(f(clip(x + delta)), y)`, and after its backward pass `delta <- P(ascend(delta))`.

    Each batch is used `replays` times, each time with a step of the optimizer. Both steps follow the gradients of one
    backward pass in train mode. Delta, one perturbation for each place in the batch, goes on from replay to replay and
    from batch to batch; P projects it on the ball of the norm.

    Args:
        threat: what to defend against: a budget of Linf, L2 or L1.
        replays: how often each batch is used; a run of as many steps has so many times fewer epochs.
        rel_step: length of delta's step as a share of eps.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat is another, or has no budget.

    Deviations:
        Where the bounds cut the moved input, the gradient passes to delta all the same; in the released code it is 0.

    References:
        Shafahi, Najibi, Ghiasi, Xu, Dickerson, Studer, Davis, Taylor, Goldstein, "Adversarial training for free!",
        NeurIPS 2019, https://arxiv.org/abs/1904.12843 (8 replays on CIFAR-10, 4 on ImageNet).

    Example:
        >>> import assay
        >>> FreeAT(threat=assay.Linf(8 / 255)).replays
        8
    """

    threat: Threat
    replays: int = 8
    rel_step: float = 1.0

    def __post_init__(self) -> None:
        if self.replays < 1:
            raise SettingError(f"replays must be at least 1; got {self.replays}.")
        check_range(self, "rel_step", above=True)
        need_budget(self.threat, type(self).__name__)
        if not isinstance(self.threat, (Linf, L2, L1)):
            raise ThreatError(f"FreeAT carries perturbations on: under Linf, L2 or L1, not {self.threat!r}.")

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The perturbation as it was left, which asks for a gradient, and the inputs that it moves."""
        delta = torch.zeros_like(batch.x)
        kept = batch.memory.get(_DELTA, delta)[: len(delta)]
        delta[: len(kept)] = kept
        delta.requires_grad_()
        return {_DELTA: delta, "x_adv": self.threat.apply(batch.x, delta)}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Cross-entropy on the moved inputs."""
        return batch.cross_entropy(model(views["x_adv"]))

    def after(self, model: nn.Module, batch: Batch, views: Views) -> None:
        """Move the perturbation along its gradient."""
        leaf = views[_DELTA]
        if leaf.grad is None:
            raise ModelError("no gradient of the loss reaches the inputs, which FreeAT moves by it.")
        delta = leaf.detach()
        threat = self._around_any(warmed_threat(self.threat, batch.eps_share))
        step = self.rel_step * threat.budget(delta)
        moved = threat.project(batch.x, threat.ascend(batch.x, delta, leaf.grad, step))
        batch.memory[_DELTA] = torch.cat([moved, batch.memory.get(_DELTA, moved)[len(moved) :]])

    @staticmethod
    def _around_any(threat: Threat) -> Threat:
        """The whole ball: what the bounds of this image forbid may be wanted for the next one."""
        low, high = threat.bounds
        eps = float(threat.eps.max() if isinstance(threat.eps, Tensor) else threat.eps or 0.0)
        reach = min(eps, high - low)  # no image has more room
        return replace(threat, bounds=(low - reach, high + reach))
