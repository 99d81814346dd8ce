"""Training on the inputs that an attack finds, and the named recipes that are settings of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor, nn

from assay.attacks import FGSM, PGD, Attack
from assay.threats import Threat
from assay.training.recipes.base import Batch, Recipe, Views


@final
@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(Recipe):
    """Adversarial training: the mean of `CE(f(x'), y)` with `x'` what the attack makes of x on the present network.

    Args:
        attack: the search for `x'`: any attack that has a budget.
        train_mode: run the attack's passes in train mode, where batch norm uses the batch and moves its statistics.

    Deviations:
        The attack's passes run in eval mode unless `train_mode` says otherwise: its gradients are those of the network
        that is deployed.

    References:
        Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards deep learning models resistant to adversarial attacks",
        ICLR 2018, https://arxiv.org/abs/1706.06083

    Example:
        >>> import assay
        >>> AdversarialTraining(attack=PGD(threat=assay.Linf(0.1), steps=10)).against
        Linf(0.1)
    """

    attack: Attack
    train_mode: bool = False

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The moved inputs."""
        return {"x_adv": batch.perturb(model, self.attack, train_mode=self.train_mode)}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Cross-entropy on the moved inputs."""
        return batch.cross_entropy(model(views["x_adv"]))


def PGDAT(*, threat: Threat, steps: int = 10, rel_step: float = 0.25) -> AdversarialTraining:  # noqa: N802
    """Adversarial training with PGD from a random start.

    Args:
        threat: what to defend against; it needs a budget eps.
        steps: gradient steps of the attack.
        rel_step: length of a step as a share of eps (2/255 of 8/255).

    Deviations:
        The attack's passes run in eval mode; those of Rice et al. run in train mode, as
        `AdversarialTraining(attack=..., train_mode=True)` does.

    References:
        Madry, Makelov, Schmidt, Tsipras, Vladu, "Towards deep learning models resistant to adversarial attacks",
        ICLR 2018, https://arxiv.org/abs/1706.06083
        Rice, Wong, Kolter, "Overfitting in adversarially robust deep learning", ICML 2020,
        https://arxiv.org/abs/2002.11569 (10 steps of 2/255 at 8/255).

    Example:
        >>> import assay
        >>> PGDAT(threat=assay.Linf(8 / 255)).attack.steps
        10
    """
    return AdversarialTraining(attack=PGD(threat=threat, steps=steps, rel_step=rel_step))


def FGSMAT(*, threat: Threat) -> AdversarialTraining:  # noqa: N802
    """Adversarial training with one full step from the clean input, known to overfit to that step.

    Args:
        threat: what to defend against; it needs a budget eps.

    References:
        Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015,
        https://arxiv.org/abs/1412.6572

    Example:
        >>> import assay
        >>> FGSMAT(threat=assay.Linf(8 / 255)).attack.steps
        1
    """
    return AdversarialTraining(attack=FGSM(threat=threat))


def FastAT(*, threat: Threat, rel_step: float = 1.25) -> AdversarialTraining:  # noqa: N802
    """Fast adversarial training: one step of 1.25 eps from a random start, `x' = P(x + u + 1.25 eps sign(grad))`.

    Batch norm stays in train mode in both passes. Training may collapse all at once: it then resists the single step
    alone. `assay train` stops there and keeps the best epoch before (`guard`).

    Args:
        threat: what to defend against; it needs a budget eps.
        rel_step: length of the step as a share of eps.

    Deviations:
        The released code looks for the collapse by PGD-5 on one batch of training data, from one epoch to the next; the
        guard compares PGD-10 on held-out samples with the best epoch.

    References:
        Wong, Rice, Kolter, "Fast is better than free: revisiting adversarial training", ICLR 2020,
        https://arxiv.org/abs/2001.03994

    Example:
        >>> import assay
        >>> FastAT(threat=assay.Linf(8 / 255)).train_mode
        True
    """
    attack = PGD(threat=threat, steps=1, rel_step=rel_step, look_ahead=False)
    return AdversarialTraining(attack=attack, train_mode=True)
