"""Adversarial weight perturbation, around any other recipe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from assay.errors import SettingError
from assay.threats import Threat
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Recipe, Views, kept_buffers
from assay.training.recipes.generative import GenerativeRecipe


@final
@dataclass(frozen=True, kw_only=True)
class AWP(Recipe):
    """Adversarial weight perturbation: the gradient of another recipe's loss at `w + v`, where the loss is higher.

    In each layer `v = gamma ||w||_2 g / ||g||_2`, with g the gradient of that loss at w on the same inputs. The step of
    the optimizer is taken at `w + v`, where its weight decay acts too, and then the same v is subtracted. Biases and
    the parameters of batch norm, which have one dimension, are left where they are.

    Args:
        recipe: whose loss it is.
        gamma: length of v as a share of the weights' own: 0.01 around adversarial training, 0.005 around TRADES.
        warmup: epochs before v is applied; 10 around TRADES.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        The paper takes v from a copy of the network after a step of SGD on the negative loss, which leads along g; here
        g is taken on the network itself, whose buffers are put back afterwards. Where g is not finite v is 0. The
        released code around PGD runs the attack in the mode that evaluation left behind, which for the first batch of
        an epoch is another than for the rest; here the recipe says it.

    References:
        Wu, Xia, Wang, "Adversarial weight perturbation helps robust generalization", NeurIPS 2020,
        https://arxiv.org/abs/2004.05884

    Example:
        >>> import assay
        >>> assay.grammar.recipe("AWP(recipe=TRADES(), gamma=0.005, warmup=10)", "linf:0.031").against
        Linf(0.031)
    """

    recipe: Recipe
    gamma: float = 0.01
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.recipe, Recipe):
            raise SettingError(f"recipe is what AWP goes around, such as TRADES(...); got {self.recipe!r}.")
        if isinstance(self.recipe, GenerativeRecipe):
            raise SettingError(f"AWP goes around a recipe for classifiers; got {self.recipe!r}.")
        check_range(self, "gamma")
        check_range(self, "warmup")

    @property
    def defends(self) -> bool:
        """As the recipe inside."""
        return self.recipe.defends

    @property
    def against(self) -> Threat | None:
        """That of the recipe inside."""
        return self.recipe.against

    @property
    def threats(self) -> tuple[Threat, ...]:
        """Those of the recipe inside."""
        return self.recipe.threats

    @property
    def replays(self) -> int:  # type: ignore[override]
        """Those of the recipe inside."""
        return self.recipe.replays

    @property
    def second_order(self) -> bool:  # type: ignore[override]
        """As for the recipe inside."""
        return self.recipe.second_order

    @property
    def teacher(self) -> str | None:  # type: ignore[override]
        """That of the recipe inside."""
        return self.recipe.teacher

    def first(self) -> Recipe | None:
        """What comes before the recipe inside."""
        return self.recipe.first()

    def with_teacher(self, model: nn.Module) -> Recipe:
        """Around the recipe that learns from this model."""
        return replace(self, recipe=self.recipe.with_teacher(model))

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """What the recipe inside makes of the batch for a loss at other weights."""
        return self.recipe.prepare(model, replace(batch, same_weights=False))

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """The loss of the recipe inside."""
        return self.recipe.loss(model, batch, views)

    def after(self, model: nn.Module, batch: Batch, views: Views) -> None:
        """What the recipe inside has left to do."""
        self.recipe.after(model, batch, views)

    @contextmanager
    def around(self, model: nn.Module, batch: Batch, views: Views) -> Iterator[None]:
        """The weights `w + v`; afterwards v is subtracted."""
        with self.recipe.around(model, batch, views):
            if batch.epoch < self.warmup:
                yield
                return
            weights, moves = self._moves(model, batch, views)
            _move(weights, moves, 1)
            try:
                yield
            finally:
                _move(weights, moves, -1)

    def _moves(self, model: nn.Module, batch: Batch, views: Views) -> tuple[list[Tensor], list[Tensor]]:
        """The weights that are moved, and their v."""
        named = {name: p for name, p in model.named_parameters() if p.requires_grad and p.ndim > 1 and "weight" in name}
        if not named:
            return [], []
        with kept_buffers(model):
            loss = self.recipe.loss(model, batch, views)
            weights: list[Tensor] = list(named.values())
            grads = torch.autograd.grad(loss, weights, materialize_grads=True)  # 0 where this process reaches none
        batch.average(grads)
        return weights, [self._scaled(grad, w) for grad, w in zip(grads, weights, strict=True)]

    def _scaled(self, grad: Tensor, weight: Tensor) -> Tensor:
        """The gradient at gamma times the length of the weight."""
        peak = grad.abs().amax()  # squares of small gradients vanish
        unit = grad / torch.where(peak > 0, peak, 1)
        unit = unit * (self.gamma * weight.detach().norm() / unit.norm().clamp_min(1))
        return torch.where(peak.isfinite(), unit, 0)


def _move(weights: list[Tensor], moves: list[Tensor], sign: int) -> None:
    """Add or subtract the moves; autocast keeps copies of the weights, which are made anew."""
    if weights:
        with torch.no_grad():
            torch._foreach_add_(weights, moves, alpha=sign)
        torch.clear_autocast_cache()
