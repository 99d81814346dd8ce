"""Brightness, contrast, the colour response of a device, and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from torch import Tensor

from assay.rng import Keyed
from assay.transformations.base import Drawn, Transformation, check_range, column


@final
@dataclass(frozen=True, repr=False)
class Brightness(Transformation):
    """More or less light.

    `clip(x + u)` with u uniform on [-strength, strength], the same for all values of an input.

    Args:
        strength: the most that is added or taken away, from 0 to 1.

    Raises:
        SettingError: the strength is out of range.

    Example:
        >>> import torch
        >>> Brightness(0.1).apply(torch.full((2, 1), 0.5), torch.tensor([0.05, -0.05])).flatten()
        tensor([0.5500, 0.4500])
    """

    strength: float

    def __post_init__(self) -> None:
        check_range("Brightness", "strength", self.strength, 0, 1)

    def draw(self, rng: Keyed, shape: tuple[int, ...]) -> Drawn:
        """What is added, `(n,)`."""
        return rng.uniform(low=-self.strength, high=self.strength)

    def apply(self, x: Tensor, drawn: Drawn) -> Tensor:
        """The inputs with more or less light."""
        return (x + column(drawn, x)).clamp(0, 1)


@final
@dataclass(frozen=True, repr=False)
class Contrast(Transformation):
    """More or less contrast around the input's own mean.

    `clip(m + (1 + u) (x - m))` with m the mean of all values and u uniform on [-strength, strength].

    Args:
        strength: the largest relative change of distances to the mean, from 0 to 1.

    Raises:
        SettingError: the strength is out of range.

    Example:
        >>> import torch
        >>> Contrast(0.5).apply(torch.tensor([[0.4, 0.6]]), torch.tensor([0.5]))
        tensor([[0.3500, 0.6500]])
    """

    strength: float

    def __post_init__(self) -> None:
        check_range("Contrast", "strength", self.strength, 0, 1)

    def draw(self, rng: Keyed, shape: tuple[int, ...]) -> Drawn:
        """Relative changes, `(n,)`."""
        return rng.uniform(low=-self.strength, high=self.strength)

    def apply(self, x: Tensor, drawn: Drawn) -> Tensor:
        """The inputs with more or less contrast."""
        mean = x.flatten(1).mean(dim=1).reshape(-1, *[1] * (x.ndim - 1))
        return (x + column(drawn, x) * (x - mean)).clamp(0, 1)


@final
@dataclass(frozen=True, repr=False)
class ColourResponse(Transformation):
    """How a printer, a lamp and a sensor render colours: each channel has its own gain and tone curve.

    `clip((1 + g_c) (x_c + k_c x_c (1 - x_c)))`, g and k uniform on [-gain, gain] and [-curve, curve], per channel.

    Args:
        gain: the largest relative change of a channel, from 0 to 1.
        curve: the largest bend of its tone curve, from 0 to 1: black and white stay, and the middle moves by a
            quarter of this.

    Shapes:
        x: `(n, channels, ...)`.

    Raises:
        SettingError: a setting is out of range.

    Example:
        >>> import torch
        >>> ColourResponse(0.2).apply(torch.full((1, 2), 0.5), (torch.tensor([[0.2, 0.0]]), torch.zeros(1, 2)))
        tensor([[0.6000, 0.5000]])
    """

    gain: float
    curve: float = 0.0

    def __post_init__(self) -> None:
        check_range("ColourResponse", "gain", self.gain, 0, 1)
        check_range("ColourResponse", "curve", self.curve, 0, 1)

    def draw(self, rng: Keyed, shape: tuple[int, ...]) -> Drawn:
        """Gains and bends, each `(n, channels)`."""
        gain = rng.uniform(shape[0], low=-self.gain, high=self.gain)
        return gain, rng.uniform(shape[0], low=-self.curve, high=self.curve)

    def apply(self, x: Tensor, drawn: Drawn) -> Tensor:
        """The inputs as the device renders them."""
        gain: Tensor
        bend: Tensor
        gain, bend = (part.to(x.dtype).reshape(*x.shape[:2], *[1] * (x.ndim - 2)) for part in drawn)
        return ((1 + gain) * (x + bend * x * (1 - x))).clamp(0, 1)


@final
@dataclass(frozen=True, repr=False)
class Noise(Transformation):
    """Gaussian noise of the sensor: `clip(x + std n)`, n standard normal for each value.

    Args:
        std: its standard deviation, from 0 to 1.

    Raises:
        SettingError: it is out of range.

    Example:
        >>> import torch
        >>> from assay.rng import Keyed
        >>> noise = Noise(0.1)
        >>> noise.apply(torch.full((2, 3), 0.5), noise.draw(Keyed(0, torch.arange(2)), (3,))).shape
        torch.Size([2, 3])
    """

    std: float

    def __post_init__(self) -> None:
        check_range("Noise", "std", self.std, 0, 1)

    def draw(self, rng: Keyed, shape: tuple[int, ...]) -> Drawn:
        """Standard normal numbers, `(n, *shape)`."""
        return rng.normal(*shape)

    def apply(self, x: Tensor, drawn: Drawn) -> Tensor:
        """The inputs with the noise."""
        noise: Tensor = drawn.to(x.dtype)
        return (x + self.std * noise).clamp(0, 1)
