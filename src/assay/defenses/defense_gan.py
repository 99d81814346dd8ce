"""Defense-GAN: the model sees what a generator makes that is nearest to the input."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from assay.defenses.base import InputDefense, check_count
from assay.defenses.generative import Generator, name_of, trained
from assay.defenses.latent import draw, search
from assay.errors import InputError
from assay.rng import stream
from assay.transformations.base import check_range


@final
class DefenseGAN(InputDefense):
    r"""The model answers about `G(z*)`, with z* the best of several descents on the distance of G(z) to the input.

    $$v \leftarrow m v + \nabla_z \tfrac1d \lVert G(z) - x \rVert_2^2, \qquad z \leftarrow z - \eta v,
      \qquad z_0 \sim N(0, 1 / \text{latent})$$

    with a tenth of the rate in the last fifth of the steps. The gradient counts all this as the identity.
    `ReconstructionDetector(DefenseGAN(...))` is the paper's detector, by the distance that is left.

    Broken by BPDA with the identity, and by a search in z for an image of the generator that is itself adversarial.

    Args:
        generator: a `Generator`, trained by the recipe `WGANGP` on images like the inputs: a shipped one by its name, a
            run's folder, or the network.
        restarts: R, descents for each input.
        steps: L, of each descent.
        lr: eta.
        momentum: m.

    Raises:
        SettingError: a setting is out of range, or the generator is none.
        ModelError: the generator cannot be loaded.
        InputError: on a call, the inputs have another shape than what the generator makes.

    Deviations:
        What the generator makes is cut to [0, 1] before the model sees it.

    References:
        Samangouei, Kabkab, Chellappa, "Defense-GAN: protecting classifiers against adversarial attacks using generative
        models", ICLR 2018, https://arxiv.org/abs/1805.06605
        Athalye, Carlini, Wagner, "Obfuscated gradients give a false sense of security", ICML 2018,
        https://arxiv.org/abs/1802.00420

    Example:
        >>> from assay.models.networks import DenseGenerator
        >>> defense = DefenseGAN(DenseGenerator(size=4, latent=2, hidden=3), restarts=2, steps=5)
        >>> defense(lambda x: x, torch.zeros(3, 1, 4, 4)).shape
        torch.Size([3, 1, 4, 4])
    """

    stochastic = True
    differentiable = False
    gradient = "straight-through"

    def __init__(
        self,
        generator: str | nn.Module = "fashion-wgan-gp",
        restarts: int = 10,
        steps: int = 200,
        lr: float = 10.0,
        momentum: float = 0.7,
    ) -> None:
        super().__init__()
        self._generator = trained("DefenseGAN", "generator", generator, Generator)
        self.generator = name_of(generator)
        self.restarts = check_count("DefenseGAN", "restarts", restarts, 1)
        self.steps = check_count("DefenseGAN", "steps", steps, 1)
        self.lr = check_range("DefenseGAN", "lr", lr, 0, float("inf"))
        self.momentum = check_range("DefenseGAN", "momentum", momentum, 0, 1)

    def train(self, mode: bool = True) -> DefenseGAN:
        """The generator stays as it was trained."""
        super().train(mode)
        self._generator.eval()
        return self

    def transform(self, x: Tensor) -> Tensor:
        """The reconstructions."""
        own = next(self._generator.parameters())
        starts = draw(stream(x), self.restarts, self._generator.latent).to(own)
        settings = {"lr": self.lr, "momentum": self.momentum}
        with torch.inference_mode(False), torch.no_grad():
            shape = self._generator(starts[:1, 0].clone()).shape[1:]
            if shape != x.shape[1:]:
                made, got = ("x".join(map(str, each)) for each in (shape, x.shape[1:]))
                raise InputError(f"the generator of DefenseGAN makes inputs of shape {made}; got {got}.")
            z, _ = search(self._generator, x.detach().to(own, copy=True), starts, steps=self.steps, **settings)
            nearest: Tensor = self._generator(z).clamp(0, 1).to(x)
        return nearest
