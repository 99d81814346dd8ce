"""Critics: from images to one number each, which generators are trained against."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from assay.defenses.base import check_count
from assay.errors import InputError, SettingError


@final
class ConvCritic(nn.Module):
    """One number for each image: two 4x4 convolutions with stride 2, leaky rectified units, and a linear layer.

    Without batch norm, so that each number, and its slope, is that of its own image. Images in [0, 1] become [-1, 1].

    Args:
        channels: of the images.
        size: their height and width in pixels, a multiple of 4.
        width: channels of the first convolution; the second has twice as many.

    Shapes:
        (b, channels, size, size) -> (b,)

    Raises:
        SettingError: a setting is out of range.

    Example:
        >>> import torch
        >>> ConvCritic(width=4)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2])
    """

    def __init__(self, channels: int = 1, size: int = 28, width: int = 32) -> None:
        super().__init__()
        check_counts(self, channels=channels, size=size, width=width)
        check_quarters(self, size)
        self.first = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.head = nn.Linear(2 * width * (size // 4) ** 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The numbers."""
        h = nn.functional.leaky_relu(self.first(2 * x - 1), 0.2)
        h = nn.functional.leaky_relu(self.second(h), 0.2)
        found: Tensor = self.head(h.flatten(1))
        return found[:, 0]


@final
class DenseCritic(nn.Module):
    """One number for each image: two hidden layers of leaky rectified units. Images in [0, 1] become [-1, 1].

    Args:
        channels: of the images.
        size: their height and width in pixels.
        width: units of each hidden layer.

    Shapes:
        (b, channels, size, size) -> (b,)

    Raises:
        SettingError: a setting is out of range.

    Example:
        >>> import torch
        >>> DenseCritic(width=4)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2])
    """

    def __init__(self, channels: int = 1, size: int = 28, width: int = 256) -> None:
        super().__init__()
        check_counts(self, channels=channels, size=size, width=width)
        self.first = nn.Linear(channels * size * size, width)
        self.second = nn.Linear(width, width)
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The numbers."""
        h = nn.functional.leaky_relu(self.first((2 * x - 1).flatten(1)), 0.2)
        h = nn.functional.leaky_relu(self.second(h), 0.2)
        found: Tensor = self.head(h)
        return found[:, 0]


def critic_of(x: Tensor, *, convolutional: bool, width: int) -> nn.Module:
    """A critic for images of this shape.

    Raises:
        InputError: they are no square images.
        SettingError: a critic with convolutions needs another size.
    """
    if x.ndim != 4 or x.shape[2] != x.shape[3]:
        raise InputError(f"critics take square images (b, c, size, size); got shape {tuple(x.shape)}.")
    kind = ConvCritic if convolutional else DenseCritic
    return kind(channels=x.shape[1], size=x.shape[2], width=width)


def check_counts(network: nn.Module, **counts: object) -> None:
    """Hold that settings are whole numbers of at least 1.

    Raises:
        SettingError: one is none.
    """
    for name, count in counts.items():
        check_count(type(network).__name__, name, count, 1)


def check_quarters(network: nn.Module, size: int) -> None:
    """Hold that images can be halved twice.

    Raises:
        SettingError: they cannot.
    """
    if size % 4:
        raise SettingError(
            f"size of {type(network).__name__} must be a multiple of 4, it is halved twice; got {size}. Pad or resize "
            "the images."
        )
