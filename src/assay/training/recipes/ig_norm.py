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

    Args:
        threat: what to defend against; it needs a budget eps.
        weight: lambda, of the norm.
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
    segments: int = 50
    search_segments: int = 10
    steps: int = 7
    rel_step: float = 0.25
    train_mode: bool = False

    def __post_init__(self) -> None:
        _check(self)

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The inputs where the norm is largest."""

        def norm(model: Any, moved: Tensor, rows: Tensor) -> Tensor:
            return _norm(model, _part(batch, rows), moved, self.search_segments)

        return {"x_adv": _searched(self, model, batch, norm)}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Clean cross-entropy and the norm."""
        clean = batch.cross_entropy(model(batch.x))
        with mode(model, train=self.train_mode):
            norm = _norm(model, batch, views["x_adv"], self.segments)
        return clean + self.weight * norm.mean()


@final
@dataclass(frozen=True, kw_only=True)
class IGSumNorm(Recipe):
    r"""Robust attribution, IG-SUM-NORM: the mean of `max_x' CE(f(x'), y) + weight ||IG(x, x')||_1`.

    As `IGNorm`, but of the loss at the moved input: adversarial training with the norm as a penalty, and a search that
    climbs both.

    Args:
        threat: what to defend against; it needs a budget eps.
        weight: beta, of the norm.
        segments: points between, for the loss.
        search_segments: points between, for the search.
        steps: gradient steps of the search, from a random start.
        rel_step: length of a step as a share of eps.
        train_mode: take norm and search in train mode, where batch norm uses the batch.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat has no budget.

    Deviations:
        As `IGNorm`.

    References:
        Chen, Wu, Rastogi, Liang, Jha, "Robust attribution regularization", NeurIPS 2019,
        https://arxiv.org/abs/1905.09957 (MNIST: weight 0.1).

    Example:
        >>> import assay
        >>> assay.grammar.recipe("igsumnorm", "linf:0.1").weight
        0.1
    """

    second_order: ClassVar[bool] = True
    threat: Threat
    weight: float = 0.1
    segments: int = 50
    search_segments: int = 10
    steps: int = 7
    rel_step: float = 0.25
    train_mode: bool = False

    def __post_init__(self) -> None:
        _check(self)

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The inputs where loss and norm are largest."""

        def both(model: Any, moved: Tensor, rows: Tensor) -> Tensor:
            part = _part(batch, rows)
            norm = _norm(model, part, moved, self.search_segments)
            return part.cross_entropy(model(moved), reduction="none") + self.weight * norm

        return {"x_adv": _searched(self, model, batch, both)}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Cross-entropy at the moved inputs, and the norm."""
        moved = batch.cross_entropy(model(views["x_adv"]))
        with mode(model, train=self.train_mode):
            norm = _norm(model, batch, views["x_adv"], self.segments)
        return moved + self.weight * norm.mean()


def _check(recipe: IGNorm | IGSumNorm) -> None:
    """Hold that the settings are in their ranges."""
    check_range(recipe, "weight")
    for name in ("segments", "search_segments"):
        if getattr(recipe, name) < 1:
            raise SettingError(f"{name} must be at least 1; got {getattr(recipe, name)}.")
    PGD(threat=recipe.threat, steps=recipe.steps, rel_step=recipe.rel_step)  # says what is wrong with these


def _searched(recipe: IGNorm | IGSumNorm, model: nn.Module, batch: Batch, measure: Any) -> Tensor:
    """Where PGD on a measure ends."""
    attack = PGD(threat=recipe.threat, steps=recipe.steps, rel_step=recipe.rel_step)
    rows = torch.arange(len(batch.x), device=batch.x.device)
    return batch.perturb(model, attack, Largest(measure, rows), train_mode=recipe.train_mode)


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
