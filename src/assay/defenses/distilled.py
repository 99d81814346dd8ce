"""Defensive distillation at inference."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from assay.defenses.base import Defense, Model
from assay.transformations.base import check_range


@final
class Distilled(Defense):
    """A network that learned at a temperature, as an attacker sees it who knows: `z / temperature`.

    Defensive distillation trains a network on `softmax(z / T)` and uses it at T = 1, where its logits are T times as
    far apart. In single precision the softmax is then 0 and 1, and the gradient of the cross-entropy exactly 0: attacks
    on this loss stand still, as long as nobody divides by T or takes a loss of the logits. No decision is different.
    So the bare network is what an attacker sees who does not know, and this model is the same network without the
    pitfall.

    Args:
        temperature: T of the training (the recipe `Distillation`), at least 1.

    Raises:
        SettingError: the temperature is below 1.

    References:
        Papernot, McDaniel, Wu, Jha, Swami, "Distillation as a defense to adversarial perturbations against deep neural
        networks", S&P 2016, https://arxiv.org/abs/1511.04508
        Carlini, Wagner, "Defensive distillation is not robust to adversarial examples", 2016,
        https://arxiv.org/abs/1607.04311

    Example:
        >>> import torch
        >>> Distilled(100)(torch.nn.Identity(), torch.tensor([[0.0, 500.0]]))
        tensor([[0., 5.]])
    """

    def __init__(self, temperature: float = 100.0) -> None:
        super().__init__()
        self.temperature = check_range("Distilled", "temperature", temperature, 1, float("inf"))

    def forward(self, model: Model, x: Tensor) -> Any:
        """The logits at the temperature of the training."""
        return model(x) / self.temperature
