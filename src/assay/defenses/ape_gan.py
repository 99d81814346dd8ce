"""APE-GAN: a generator in front of the model that was trained to undo adversarial perturbations."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from assay.defenses.base import InputDefense
from assay.defenses.generative import Autoencoder, called, name_of, trained


@final
class APEGANDefense(InputDefense):
    """The model answers about what a generator makes of the input, which learned to undo adversarial perturbations.

    Differentiable from end to end: attacks that know of it follow the exact gradient.

    Args:
        generator: trained by the recipe `APEGAN` on adversarial images of the model: a shipped one by its name, a run's
            folder, or the network.

    Raises:
        SettingError: the generator is none.
        ModelError: it cannot be loaded.

    References:
        Shen, Jin, Gao, Zhang, "APE-GAN: adversarial perturbation elimination with GAN", 2017,
        https://arxiv.org/abs/1707.05474
        Broken by: Carlini, Wagner, "MagNet and 'Efficient defenses against adversarial attacks' are not robust to
        adversarial examples", 2017, https://arxiv.org/abs/1711.08478

    Example:
        >>> import torch
        >>> from assay.models.networks import APEGenerator
        >>> APEGANDefense(APEGenerator(width=2))(lambda x: x, torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(self, generator: str | nn.Module = "fashion-ape-gan") -> None:
        super().__init__()
        self._generator = trained("APEGANDefense", "generator", generator, Autoencoder)  # type: ignore[type-abstract]
        self.generator = name_of(generator)

    def train(self, mode: bool = True) -> APEGANDefense:
        """The generator stays as it was trained."""
        super().train(mode)
        self._generator.eval()
        return self

    def transform(self, x: Tensor) -> Tensor:
        """The cleaned images."""
        return called(self._generator, x)
