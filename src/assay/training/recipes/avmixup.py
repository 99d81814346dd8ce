"""Adversarial vertex mixup: training between each input and a point beyond its adversarial one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.attacks import Attack
from assay.rng import Keyed, derive
from assay.training.mixing import beta, mix
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Recipe, Views


@final
@dataclass(frozen=True, kw_only=True)
class AVMixup(Recipe):
    """Adversarial vertex mixup: cross-entropy at `w x + (1 - w) v` with the targets `w s(y, 1) + (1 - w) s(y, 0.1)`.

    The vertex is `v = clip(x + gamma (x' - x))`, each sample draws its own `w ~ Beta(a, a)`, and `s(y, lam)` leaves the
    share lam on the label and spreads the rest over the other classes: `y lam + (y - 1) (lam - 1) / (classes - 1)`. The
    attack's passes run in train mode, where batch norm uses the batch and moves its statistics.

    Kept for study: networks that learn soft targets around each input tend to resist gradient attacks more than others.

    Args:
        attack: the search for `x'`.
        gamma: how far the vertex lies, in lengths of the perturbation.
        clean_share: lam of the clean end.
        vertex_share: lam of the vertex.
        a: both parameters of the distribution of w.

    Raises:
        SettingError: a setting is out of range.

    References:
        Lee, Lee, Yoon, "Adversarial vertex mixup: toward better adversarially robust generalization", CVPR 2020,
        https://arxiv.org/abs/2003.02484

    Example:
        >>> import assay
        >>> assay.grammar.recipe("avmixup", "linf:8/255", ["gamma=1.5"]).vertex_share
        0.1
    """

    attack: Attack
    gamma: float = 2.0
    clean_share: float = 1.0
    vertex_share: float = 0.1
    a: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, "gamma", above=True)
        check_range(self, "clean_share", high=1.0)
        check_range(self, "vertex_share", high=1.0)
        check_range(self, "a", above=True)

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The moved inputs."""
        return {"x_adv": batch.perturb(model, self.attack, train_mode=True)}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Cross-entropy between the clean inputs and their vertices."""
        x = batch.x
        vertex = (x + self.gamma * (views["x_adv"] - x)).clamp(*self.attack.threat.bounds)
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        share = beta(Keyed(derive(batch.seed, "vertex"), batch.index, dtype=dtype), self.a)
        logits = model(mix(x, vertex, share))
        targets = F.one_hot(batch.y, logits.shape[1]) if batch.targets is None else batch.targets
        clean, far = (_smoothed(targets.to(share), lam) for lam in (self.clean_share, self.vertex_share))
        return replace(batch, targets=mix(clean, far, share)).cross_entropy(logits)


def _smoothed(targets: Tensor, share: float) -> Tensor:
    """Targets whose label keeps this share, the rest spread over the other classes."""
    return targets * share + (targets - 1) * ((share - 1) / max(targets.shape[1] - 1, 1))
