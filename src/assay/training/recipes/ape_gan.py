"""APE-GAN: a generator that learns to undo adversarial perturbations, against a discriminator."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.attacks import Attack
from assay.defenses.base import check_count
from assay.defenses.generative import Autoencoder
from assay.errors import ModelError, SettingError
from assay.models.networks.critics import critic_of
from assay.threats.additive import widened
from assay.training.optimizers import Adam, Optimizer
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Views
from assay.training.recipes.generative import GenerativeRecipe


@final
@dataclass(frozen=True, kw_only=True)
class APEGAN(GenerativeRecipe):
    r"""A generator from adversarial to clean images, `x' = attack(x)` on the classifier, against a discriminator.

    $$\text{content} \sqrt{\operatorname{mean} (G(x') - x)^2} + \text{adversarial} \operatorname{BCE}(D(G(x')), 1)$$

    is what the generator minimises, with values in [-1, 1]. Before, on the same batch, the discriminator makes one step
    along `BCE(D(x), 1) + BCE(D(G(x')), 0)`; the generator makes two, as the released code does.

    Args:
        attack: what makes the adversarial images, FGSM in the paper.
        teacher: the classifier that they are made on, which the defense will stand in front of.
        content: weight of the distance to the clean image.
        adversarial: weight of the discriminator's verdict.
        replays: steps of the generator for one of the discriminator.
        width: channels of the discriminator's first convolution.
        critic_optimizer: what moves it.

    Raises:
        SettingError: a setting is out of range; in a step, the classifier was not handed over.

    Deviations:
        The weights are those of the released code; the paper has 0.7 for the mean square itself, without the root, and
        0.3. The discriminator has no batch norm. Where several processes share a batch, each takes the root of
        its own mean.

    References:
        Shen, Jin, Gao, Zhang, "APE-GAN: adversarial perturbation elimination with GAN", 2017,
        https://arxiv.org/abs/1707.05474 (two epochs of batches of 64, Adam with a rate of 2e-4 and betas (0.5, 0.999))

    Example:
        >>> import assay
        >>> assay.grammar.recipe("ape-gan", "linf:0.1").attack.threat
        Linf(0.1)
    """

    attack: Attack
    teacher: str = "fashion-cnn"
    content: float = 0.9
    adversarial: float = 0.02
    replays: int = 2
    width: int = 16
    critic_optimizer: Optimizer = field(default_factory=lambda: Adam(lr=2e-4, betas=(0.5, 0.999)))
    _model: nn.Module | None = field(default=None, init=False, repr=False, compare=False)

    quality: ClassVar[str] = "squared error"
    trains: ClassVar[type[nn.Module]] = Autoencoder

    def __post_init__(self) -> None:
        check_range(self, "content")
        check_range(self, "adversarial")
        check_count("APEGAN", "replays", self.replays, 1)
        check_count("APEGAN", "width", self.width, 1)

    def with_teacher(self, model: nn.Module) -> APEGAN:
        """This recipe with adversarial images of that classifier."""
        taught = copy.copy(self)
        object.__setattr__(taught, "_model", model.eval())
        return taught

    def check(self, model: nn.Module, x: Tensor) -> None:
        """Cleaned images have the shape of the inputs."""
        found = model(x)
        if found.shape != x.shape:
            raise ModelError(f"the generator answers {tuple(found.shape)} to inputs of shape {tuple(x.shape)}.")

    def critic(self, model: nn.Module, x: Tensor) -> tuple[nn.Module, Optimizer]:
        """A discriminator for images of this shape."""
        return critic_of(x, convolutional=True, width=self.width), self.critic_optimizer

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The adversarial images."""
        if self._model is None:
            raise SettingError("APEGAN needs its classifier: hand it over by `with_teacher(network)`.")
        return {"moved": batch.perturb(self._model, self.attack)}

    def critic_losses(self, model: nn.Module, batch: Batch, views: Views) -> Iterator[Tensor]:
        """The discriminator's loss, for the first of the generator's steps."""
        if batch.replay:
            return
        with torch.no_grad():
            cleaned = model(views["moved"])
        yield _told(batch, batch.x, 1.0) + _told(batch, cleaned, 0.0)

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """The distance to the clean images, in [-1, 1], and the discriminator's verdict."""
        cleaned = model(views["moved"])
        distance = 2 * (widened(cleaned) - batch.x).square().mean().sqrt()
        return self.content * distance + self.adversarial * _told(batch, cleaned, 1.0)

    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean square of what is left between each image and its adversarial one when cleaned."""
        cleaned = model(self.prepare(model, batch)["moved"])
        return (widened(cleaned) - batch.x).square().flatten(1).mean(dim=1)


def _told(batch: Batch, x: Tensor, real: float) -> Tensor:
    """Cross-entropy of the discriminator's answers with what they should be."""
    scores = widened(cast("nn.Module", batch.critic)(x))
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, real))
