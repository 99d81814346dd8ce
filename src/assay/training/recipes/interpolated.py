"""Interpolated adversarial training: mixup of the clean and of the adversarial half."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor, nn

from assay.attacks import Attack
from assay.rng import Keyed, derive
from assay.training.mixing import beta, mix, permutation
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Recipe, Views


@final
@dataclass(frozen=True, kw_only=True)
class InterpolatedAT(Recipe):
    """Interpolated adversarial training: `(M(x) + M(x')) / 2`, where M is the loss of mixup.

    `M(x) = mean of lam CE(f(x_lam), y) + (1 - lam) CE(f(x_lam), y_p)` at `x_lam = lam x + (1 - lam) x_p`, with a random
    permutation p and `lam ~ Beta(a, a)`, each half its own. The attack sees the batch as it is before mixing.

    Args:
        attack: the search for `x'`.
        a: both parameters of the distribution of lam.

    Raises:
        SettingError: a is not positive.

    Deviations:
        Each sample has its own lam, where mixup is often run with one for the batch; the expected loss is the same. The
        attack's passes run in eval mode. With several processes each mixes its own part of a batch.

    References:
        Lamb, Verma, Kawaguchi, Matyasko, Khosla, Kannala, Bengio, "Interpolated adversarial training: achieving robust
        neural networks without sacrificing too much accuracy", Neural Networks 2022, https://arxiv.org/abs/1906.06784
        (PGD of 7 steps of 0.007 at eps 0.031).

    Example:
        >>> import assay
        >>> assay.grammar.recipe("iat", "linf:0.031").a
        1.0
    """

    attack: Attack
    a: float = 1.0

    def __post_init__(self) -> None:
        check_range(self, "a", above=True)

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The moved inputs."""
        return {"x_adv": batch.perturb(model, self.attack)}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """The mean of both halves' loss of mixup."""
        clean = self._mixed(model, batch, batch.x, "clean")
        return (clean + self._mixed(model, batch, views["x_adv"], "adversarial")) / 2

    def _mixed(self, model: nn.Module, batch: Batch, x: Tensor, half: str) -> Tensor:
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        rng = Keyed(derive(batch.seed, "interpolated", half), batch.index, dtype=dtype)
        share, order = beta(rng, self.a), permutation(rng)
        partner = replace(batch, y=batch.y[order], targets=None if batch.targets is None else batch.targets[order])
        logits = model(mix(x, x[order], share))
        own, other = (each.cross_entropy(logits, reduction="none") for each in (batch, partner))
        return mix(own, other, share).mean()
