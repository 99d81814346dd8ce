"""Attributional robustness training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.attacks import PGD
from assay.attribution import softplus
from assay.attribution.base import back
from assay.attribution.similarity import largest
from assay.attribution.surrogate import twice
from assay.errors import SettingError
from assay.losses import others
from assay.threats import Threat
from assay.threats.additive import widened
from assay.training.goals import Largest
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Recipe, Views, mode


@final
@dataclass(frozen=True, kw_only=True)
class ART(Recipe):
    r"""Attributional robustness training: the mean of `CE(f(x'), y) + weight L(x, x')`.

    The gradient of the right logit shall look like the image, that of the strongest wrong one shall not. With the
    distances `d_i(a, b) = 1 - cos(a, grad f(b)_i)` of the right class y and of the wrong one o with the largest logit,
    the triplet of each of both images, a = x and a = x', is that of the gradients which fit it worst,
    `p_a = max_b d_y(a, b)` and `n_a = min_b d_o(a, b)` over b = x, x', and `L = mean_a log(1 + exp(p_a - n_a))`. The
    search for x' is PGD on `log(1 + exp(d_y(x', x') - d_o(x', x')))`, distances taken over the k features with the
    largest gradient of the right logit at x. Wherever gradients are compared, softplus stands in the place of ReLU.

    Args:
        threat: what to defend against; it needs a budget eps.
        weight: lambda, of the alignment.
        steps: gradient steps of the search, from a random start.
        rel_step: length of a step as a share of eps.
        k: features that count in the search; a third, rounded up, when None.
        beta: of the softplus.
        train_mode: search and align in train mode, where batch norm uses the batch.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat has no budget.

    Deviations:
        Labels of mixed inputs count as the label of their larger part where gradients are compared. Search and
        alignment run in eval mode unless `train_mode` says otherwise. Images are compared as the network takes them, in
        [0, 1]; the released code compares them after normalisation, and takes the k features at the random start.

    References:
        Singh, Kumari, Mangla, Sinha, Balasubramanian, Krishnamurthy, "Attributional robustness training using
        input-gradient spatial alignment", ECCV 2020, https://arxiv.org/abs/1911.13073 (CIFAR-10: weight 0.5, beta 50,
        3 steps of 5/255 at 8/255, k 1000 of 3072).

    Example:
        >>> import assay
        >>> assay.grammar.recipe("art", "linf:8/255").weight
        0.5
    """

    second_order: ClassVar[bool] = True
    threat: Threat
    weight: float = 0.5
    steps: int = 3
    rel_step: float = 0.625
    k: int | None = None
    beta: float = 50.0
    train_mode: bool = False

    def __post_init__(self) -> None:
        check_range(self, "weight")
        check_range(self, "beta", above=True)
        if self.k is not None and self.k < 1:
            raise SettingError(f"k must be at least 1; got {self.k}.")
        PGD(threat=self.threat, steps=self.steps, rel_step=self.rel_step)  # says what is wrong with these

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The inputs whose gradients are aligned worst."""
        with mode(model, train=self.train_mode), softplus(model, self.beta):
            own, _ = _gradients(model, batch.x, batch.y, graph=False)
        flat = own.flatten(1).abs()
        count = flat.shape[1]
        seen = largest(flat, min(-(-count // 3) if self.k is None else self.k, count))

        def misaligned(model: Any, moved: Tensor, rows: Tensor) -> Tensor:
            with softplus(model, self.beta):
                image, *gradients = _features(model, moved, batch.y[rows])
            right, wrong = (_distance(image, each, seen[rows]) for each in gradients)
            return F.softplus(right - wrong)

        goal = Largest(misaligned, torch.arange(len(batch.x), device=batch.x.device))
        attack = PGD(threat=self.threat, steps=self.steps, rel_step=self.rel_step)
        return {"x_adv": batch.perturb(model, attack, goal, train_mode=self.train_mode)}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Cross-entropy at the moved inputs, and the alignment at both."""
        moved = views["x_adv"]
        adversarial = batch.cross_entropy(model(moved))
        with mode(model, train=self.train_mode), softplus(model, self.beta):
            images, right, wrong = zip(*(_features(model, x, batch.y) for x in (batch.x, moved)), strict=True)
        triplets = []
        for image in images:
            own = torch.maximum(*(_distance(image, each) for each in right))
            rival = torch.minimum(*(_distance(image, each) for each in wrong))
            triplets.append(F.softplus(own - rival))
        return adversarial + self.weight * torch.cat(triplets).mean()


def _gradients(model: nn.Module, x: Tensor, y: Tensor, *, graph: bool = True) -> tuple[Tensor, Tensor]:
    """The gradients of the right logit and of the largest wrong one."""
    with torch.enable_grad(), twice():
        x = x if x.requires_grad else x.detach().requires_grad_()
        logits = widened(model(x))
        own, rival = logits.gather(1, y[:, None]).sum(), others(logits, y).sum()
        (right,) = back(own, x, graph=True)
        (wrong,) = back(rival, x, graph=graph)
    return (right, wrong) if graph else (right.detach(), wrong)


def _features(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The inputs and both their gradients, `(b, d)` each."""
    with torch.enable_grad():
        x = x if x.requires_grad else x.detach().requires_grad_()
        image, right, wrong = (widened(each.flatten(1)) for each in (x, *_gradients(model, x, y)))
    return image, right, wrong


def _distance(image: Tensor, gradient: Tensor, seen: Tensor | None = None) -> Tensor:
    """One minus the cosine of inputs and gradients, `(b,)`; over the features seen alone."""
    if seen is not None:
        image, gradient = (torch.where(seen, each, 0) for each in (image, gradient))
    return 1 - F.cosine_similarity(image, gradient)
