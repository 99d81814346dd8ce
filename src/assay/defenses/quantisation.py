"""Coarser input values: fewer bits, and the thermometer code."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from assay.defenses.base import InputDefense, check_count, check_gradient


@final
class BitDepth(InputDefense):
    """Input values are rounded to so many bits: `round(x (2^bits - 1)) / (2^bits - 1)`.

    Args:
        bits: from 1 to 16.

    Raises:
        SettingError: bits is out of range.

    References:
        Xu, Evans, Qi, "Feature squeezing: detecting adversarial examples in deep neural networks", NDSS 2018,
        https://arxiv.org/abs/1704.01155

    Example:
        >>> BitDepth(bits=1)(lambda x: x, torch.tensor([[0.2, 0.7]]))
        tensor([[0., 1.]])
    """

    differentiable = False
    gradient = "straight-through"

    def __init__(self, bits: int = 3) -> None:
        super().__init__()
        self.bits = check_count("BitDepth", "bits", bits, 1, 16)

    def transform(self, x: Tensor) -> Tensor:
        """The rounded inputs."""
        most = 2**self.bits - 1
        found: Tensor = (x * most).round() / most
        return found


@final
class Thermometer(InputDefense):
    """Every value becomes a column of zeros and ones, as mercury in a thermometer: `tau_k = 1 if x > k / levels`.

    The network has to take `levels` times as many channels and to be trained on them:
    `assay train "Defended('SmallCNN(channels=16, size=28)', Thermometer(16))"`. The stand-in of the gradient is the
    column with a soft end, `clip(levels x - k, 0, 1)`.

    Args:
        levels: ones in the column of the value 1; from 2 to 255.
        gradient: "surrogate" for the soft column, "exact" for what autograd makes of the code, which is zero: an
            attacker who did not look.

    Shapes:
        `(b, c, ...)` -> `(b, c levels, ...)`, all columns of a channel together.

    Raises:
        SettingError: a setting is out of range.

    References:
        Buckman, Roy, Raffel, Goodfellow, "Thermometer encoding: one hot way to resist adversarial examples", ICLR 2018,
        https://openreview.net/forum?id=S18Su--CW
        The soft column: Athalye, Carlini, Wagner, ICML 2018, https://arxiv.org/abs/1802.00420

    Example:
        >>> Thermometer(4)(lambda x: x, torch.tensor([[[[0.6]]]])).flatten()
        tensor([1., 1., 1., 0.])
    """

    differentiable = False

    def __init__(self, levels: int = 16, gradient: str = "surrogate") -> None:
        super().__init__()
        self.levels = check_count("Thermometer", "levels", levels, 2, 255)
        self.gradient = check_gradient(self, gradient, ("surrogate", "exact"))

    def transform(self, x: Tensor) -> Tensor:
        """The columns."""
        return (self._above(x) > 0).to(x)

    def stand_in(self, x: Tensor) -> Tensor:
        """The columns with soft ends."""
        return self._above(x).clamp(0, 1)

    def _above(self, x: Tensor) -> Tensor:
        """How far each value reaches above each mark, in levels."""
        marks = torch.arange(self.levels, dtype=x.dtype, device=x.device).reshape(-1, *[1] * (x.ndim - 2))
        return (x[:, :, None] * self.levels - marks).flatten(1, 2)
