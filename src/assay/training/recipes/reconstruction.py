"""Denoising autoencoders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast, final

from torch import Tensor, nn

from assay.defenses.generative import Autoencoder
from assay.errors import ModelError
from assay.rng import Keyed, derive
from assay.threats.additive import widened
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Views
from assay.training.recipes.generative import GenerativeRecipe


@final
@dataclass(frozen=True, kw_only=True)
class Reconstruction(GenerativeRecipe):
    r"""A denoising autoencoder: images are found again from themselves with noise.

    $$\frac1d \lVert f(\operatorname{clip}(x + \text{noise}\, n)) - x \rVert_2^2
      + \text{activity} \sum_l \lVert h_l \rVert_2^2, \qquad n \sim N(0, 1)$$

    with `h_l` what each layer gives.

    Args:
        noise: standard deviation of the noise, in the unit of the inputs.
        activity: weight of the squared activations.

    Raises:
        SettingError: a setting is out of range.

    References:
        Meng, Chen, "MagNet: a two-pronged defense against adversarial examples", CCS 2017,
        https://arxiv.org/abs/1705.09064

    Example:
        >>> import torch
        >>> from assay.models.networks import ConvAutoencoder
        >>> batch = Batch(x=torch.rand(2, 1, 4, 4), y=torch.zeros(2, dtype=torch.int64), index=torch.arange(2))
        >>> recipe = Reconstruction()
        >>> net = ConvAutoencoder()
        >>> recipe.loss(net, batch, recipe.prepare(net, batch)).ndim
        0
    """

    noise: float = 0.1
    activity: float = 1e-9

    quality: ClassVar[str] = "squared error"
    trains: ClassVar[type[nn.Module]] = Autoencoder

    def __post_init__(self) -> None:
        check_range(self, "noise")
        check_range(self, "activity")

    def check(self, model: nn.Module, x: Tensor) -> None:
        """The reconstruction has the shape of the inputs."""
        found = model(x)
        if found.shape != x.shape:
            raise ModelError(f"the autoencoder answers {tuple(found.shape)} to inputs of shape {tuple(x.shape)}.")

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The noisy images."""
        draw = Keyed(derive(batch.seed, "noise"), batch.index).normal(*batch.x.shape[1:])
        return {"noisy": (batch.x + self.noise * draw.to(batch.x)).clamp(0, 1)}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """The mean squared error, and the activations' size."""
        layers = cast("list[Tensor]", cast("Any", model).activations(views["noisy"]))
        error = (widened(layers[-1]) - batch.x).square().mean()
        size = sum((widened(h).square().flatten(1).sum(dim=1).mean() for h in layers), start=error.new_zeros(()))
        return error + self.activity * size

    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        """The mean squared error of each image, without noise."""
        return (widened(model(batch.x)) - batch.x).square().flatten(1).mean(dim=1)
