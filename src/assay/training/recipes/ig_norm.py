"""Training with integrated gradients of the loss as a penalty: IG-NORM and IG-SUM-NORM."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from assay.attacks import PGD
from assay.errors import SettingError
from assay.threats import Threat
from assay.training.goals import Largest
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Recipe, Views, mode
from assay.training.recipes.slopes import slopes


@final
@dataclass(frozen=True, kw_only=True)
class IGNorm(Recipe):
    r"""Robust attribution, IG-NORM: the mean of `CE(f(x), y) + weight max_x' ||IG(x, x')||_1`.

    `IG(x, x')` are the integrated gradients of the loss from the input to a moved one, `(x' - x)` times the mean of the
    gradients at `segments` points between; what they sum to is by how much the loss grows. The search for x' is PGD
    on the same norm with fewer points.

    With `adversarial` it is IG-SUM-NORM, the mean of `max_x' CE(f(x'), y) + weight ||IG(x, x')||_1`: adversarial
    training with the norm as a penalty, and a search that climbs both.

    Args:
        threat: what to defend against; it needs a budget eps.
        weight: lambda (beta of IG-SUM-NORM), of the norm.
        adversarial: take the cross-entropy at the moved inputs, in the search too.
        segments: points between, for the loss.
        search_segments: points between, for the search.
        steps: gradient steps of the search, from a random start.
        rel_step: length of a step as a share of eps.
        train_mode: take norm and search in train mode, where batch norm uses the batch.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat has no budget.

    Deviations:
        The released code takes one norm of the whole batch and a sum of losses; here both are means over the batch, in
        the same proportion.

    References:
        Chen, Wu, Rastogi, Liang, Jha, "Robust attribution regularization", NeurIPS 2019,
        https://arxiv.org/abs/1905.09957 (MNIST: weight 1, 50 segments and 10 in the search, 40 steps of eps / 30;
        Flower: weight 0.1).

    Example:
        >>> import assay
        >>> assay.grammar.recipe("ignorm", "linf:0.1").against
        Linf(0.1)
    """

    second_order: ClassVar[bool] = True
    threat: Threat
    weight: float = 1.0
    adversarial: bool = False
    segments: int = 50
    search_segments: int = 10
    steps: int = 7
    rel_step: float = 0.25
    train_mode: bool = False

    def __post_init__(self) -> None:
        check_range(self, "weight")
        for name in ("segments", "search_segments"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1; got {getattr(self, name)}.")
        PGD(threat=self.threat, steps=self.steps, rel_step=self.rel_step)  # says what is wrong with these

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The inputs where the norm is largest, or loss and norm are."""

        def measure(model: Any, moved: Tensor, rows: Tensor) -> Tensor:
            part = _part(batch, rows)
            norm = _norm(model, part, moved, self.search_segments)
            if not self.adversarial:
                return norm
            return part.cross_entropy(model(moved), reduction="none") + self.weight * norm

        attack = PGD(threat=self.threat, steps=self.steps, rel_step=self.rel_step)
        goal = Largest(measure, torch.arange(len(batch.x), device=batch.x.device))
        return {"x_adv": batch.perturb(model, attack, goal, train_mode=self.train_mode)}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Cross-entropy and the norm."""
        value = batch.cross_entropy(model(views["x_adv"] if self.adversarial else batch.x))
        with mode(model, train=self.train_mode):
            norm = _norm(model, batch, views["x_adv"], self.segments)
        return value + self.weight * norm.mean()


def IGSumNorm(  # noqa: N802
    *,
    threat: Threat,
    weight: float = 0.1,
    segments: int = 50,
    search_segments: int = 10,
    steps: int = 7,
    rel_step: float = 0.25,
) -> IGNorm:
    """IG-SUM-NORM: `IGNorm(adversarial=True)`, with a weight of its own.

    Args:
        threat: what to defend against; it needs a budget eps.
        weight: beta, of the norm.
        segments: points between, for the loss.
        search_segments: points between, for the search.
        steps: gradient steps of the search, from a random start.
        rel_step: length of a step as a share of eps.

    References:
        Chen, Wu, Rastogi, Liang, Jha, "Robust attribution regularization", NeurIPS 2019,
        https://arxiv.org/abs/1905.09957 (MNIST: weight 0.1).

    Example:
        >>> import assay
        >>> found = assay.grammar.recipe("igsumnorm", "linf:0.1")
        >>> found.weight, found.adversarial
        (0.1, True)
    """
    return IGNorm(
        threat=threat, weight=weight, adversarial=True, segments=segments, search_segments=search_segments,
        steps=steps, rel_step=rel_step,
    )  # fmt: skip


def _part(batch: Batch, rows: Tensor) -> Batch:
    """Some samples of a batch, which may repeat."""
    targets = None if batch.targets is None else batch.targets[rows]
    return replace(batch, x=batch.x[rows], y=batch.y[rows], index=batch.index[rows], targets=targets)


def _norm(model: nn.Module, batch: Batch, moved: Tensor, segments: int) -> Tensor:
    """The L1 norms of the integrated gradients of the loss from each input to the moved one, `(b,)`."""
    b, way = len(moved), moved - batch.x
    share = torch.arange(1, segments + 1, device=moved.device).to(moved) / segments
    points = batch.x[:, None] + share.reshape(1, -1, *[1] * (moved.ndim - 1)) * way[:, None]
    rows = torch.arange(b, device=moved.device).repeat_interleave(segments)
    _, grad = slopes(model, _part(batch, rows), points.flatten(0, 1))
    return (way * grad.reshape(points.shape).mean(dim=1)).flatten(1).abs().sum(dim=1)
