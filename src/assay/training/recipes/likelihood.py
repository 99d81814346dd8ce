"""Maximum likelihood for densities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, cast, final

import torch
from torch import Tensor, nn

from assay.defenses.generative import Density
from assay.errors import ModelError
from assay.training.recipes.base import Batch, Views
from assay.training.recipes.generative import GenerativeRecipe


@final
@dataclass(frozen=True, kw_only=True)
class Likelihood(GenerativeRecipe):
    r"""Maximum likelihood: the mean of `-log2 p(x) / d`, bits that a code of the density spends on each of d values.

    Values are rounded to 256 levels first.

    References:
        Salimans, Karpathy, Chen, Kingma, "PixelCNN++: improving the PixelCNN with discretized logistic mixture
        likelihood and other modifications", ICLR 2017, https://arxiv.org/abs/1701.05517

    Example:
        >>> from assay.models.networks import PixelCNN
        >>> batch = Batch(x=torch.rand(2, 1, 4, 4), y=torch.zeros(2, dtype=torch.int64), index=torch.arange(2))
        >>> Likelihood().loss(PixelCNN(width=2, dilations=(1,)), batch, {}).ndim
        0
    """

    quality: ClassVar[str] = "bits per value"
    trains: ClassVar[type[nn.Module]] = Density

    def check(self, model: nn.Module, x: Tensor) -> None:
        """The density knows images of this shape."""
        bits = self.measure(model, Batch(x=x, y=x.new_zeros(len(x)).long(), index=torch.arange(len(x))))
        if bits.shape != (len(x),):
            raise ModelError(f"the density answers {tuple(bits.shape)} to {len(x)} images.")

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Bits per value."""
        return self.measure(model, batch).mean()

    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        """Bits per value of each image."""
        return cast("Tensor", cast("Any", model).bits(batch.x))
