"""Wasserstein GAN with gradient penalty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, cast, final

import torch
from torch import Tensor, nn

from assay.defenses.base import check_count
from assay.defenses.generative import Generator
from assay.defenses.latent import draw, search
from assay.errors import ModelError
from assay.models.networks.critics import critic_of
from assay.rng import Keyed, derive
from assay.threats.additive import widened
from assay.training.optimizers import Adam, Optimizer
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Views
from assay.training.recipes.generative import GenerativeRecipe

_RESTARTS, _STEPS = 4, 100  # of the search that tells how good a generator is


@final
@dataclass(frozen=True, kw_only=True)
class WGANGP(GenerativeRecipe):
    r"""A generator of images, trained against a critic whose slope is held near 1.

    The critic D minimises

    $$\operatorname{mean} D(G(z)) - \operatorname{mean} D(x)
      + \lambda \operatorname{mean} (\lVert \nabla_{\hat x} D(\hat x) \rVert_2 - 1)^2,
      \qquad \hat x = t x + (1 - t) G(z)$$

    with normal z and uniform t, in `critic_steps` steps, each on its own share of the batch; then the generator makes
    one step that minimises `-mean D(G(z))`, with as many z as such a share has images. What is measured is the mean
    square of what Defense-GAN's search leaves of each image, the best of 4 starts in 100 steps.

    Args:
        penalty: lambda.
        critic_steps: steps of the critic before each of the generator.
        convolutional: whether the critic has convolutions; two hidden layers otherwise.
        width: channels of the critic's first convolution, or units of each hidden layer.
        critic_optimizer: what moves it.

    Raises:
        SettingError: a setting is out of range.

    References:
        Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville, "Improved training of Wasserstein GANs", NeurIPS 2017,
        https://arxiv.org/abs/1704.00028 (the generator's optimizer is `Adam(lr=1e-4, betas=(0.0, 0.9))` there too)
        Samangouei, Kabkab, Chellappa, "Defense-GAN: protecting classifiers against adversarial attacks using generative
        models", ICLR 2018, https://arxiv.org/abs/1805.06605 (batches of 50 images; 250 in one batch here)

    Example:
        >>> WGANGP(width=16).critic_optimizer
        Adam(lr=0.0001, weight_decay=0.0, betas=(0.0, 0.9))
    """

    penalty: float = 10.0
    critic_steps: int = 5
    convolutional: bool = True
    width: int = 32
    critic_optimizer: Optimizer = field(default_factory=lambda: Adam(lr=1e-4, betas=(0.0, 0.9)))

    quality: ClassVar[str] = "squared error"
    trains: ClassVar[type[nn.Module]] = Generator

    def __post_init__(self) -> None:
        check_range(self, "penalty")
        check_count("WGANGP", "critic_steps", self.critic_steps, 1)
        check_count("WGANGP", "width", self.width, 1)

    def check(self, model: nn.Module, x: Tensor) -> None:
        """Made images have the shape of the inputs."""
        made = model(x.new_zeros(len(x), cast("Generator", model).latent))
        if made.shape != x.shape:
            raise ModelError(
                f"the generator makes images of shape {tuple(made.shape[1:])}, the data have {tuple(x.shape[1:])}."
            )

    def critic(self, model: nn.Module, x: Tensor) -> tuple[nn.Module, Optimizer]:
        """A critic for images of this shape."""
        return critic_of(x, convolutional=self.convolutional, width=self.width), self.critic_optimizer

    def critic_losses(self, model: nn.Module, batch: Batch, views: Views) -> Iterator[Tensor]:
        """The critic's loss on each share of the batch."""
        critic = cast("nn.Module", batch.critic)
        parts = zip(batch.x.chunk(self.critic_steps), batch.index.chunk(self.critic_steps), strict=True)
        for place, (real, index) in enumerate(parts):
            rng = Keyed(derive(batch.seed, "critic", place), index)
            with torch.no_grad():
                made = _made(model, rng, real)
            t = rng.uniform(1).to(real).reshape(-1, *[1] * (real.ndim - 1))
            between = (t * real + (1 - t) * made).requires_grad_()
            low, high = widened(critic(torch.cat([made, real]))).chunk(2)
            (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            penalty = (widened(slope).flatten(1).norm(dim=1) - 1).square().mean()
            yield low.mean() - high.mean() + self.penalty * penalty

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """How bad the critic finds what the generator makes."""
        count = -(-len(batch.x) // self.critic_steps)
        rng = Keyed(derive(batch.seed, "z"), batch.index[:count])
        return -widened(cast("nn.Module", batch.critic)(_made(model, rng, batch.x))).mean()

    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        """What the search leaves of each image."""
        starts = draw(Keyed(derive(batch.seed, "starts"), batch.index), _RESTARTS, cast("Generator", model).latent)
        return search(model, batch.x, starts.to(batch.x), steps=_STEPS)[1]


def _made(model: nn.Module, rng: Keyed, like: Tensor) -> Tensor:
    """Images of new normal numbers, one for each row of the stream."""
    made: Tensor = model(rng.normal(cast("Generator", model).latent).to(like))
    return made
