"""Small networks: those whose weights ship with the package, and one for images of any size."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from assay.errors import InputError, SettingError
from assay.models.networks.parts import Standardize, activation_of


@final
class FashionCNN(nn.Module):
    """Two strided convolutions and two linear layers for 28x28 grey images, normalisation inside.

    Args:
        channels: channels of the first convolution; the second has twice as many.
        hidden: width of the hidden linear layer.
        classes: number of outputs.

    Shapes:
        (b, 1, 28, 28) -> (b, classes)

    Example:
        >>> FashionCNN()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int = 32, hidden: int = 128, classes: int = 10) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.2860))
        self.register_buffer("std", torch.tensor(0.3530))
        self.conv1 = nn.Conv2d(1, channels, 4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1)
        self.hidden = nn.Linear(2 * channels * 7 * 7, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = (x - self.mean) / self.std
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(x))
        x = torch.relu(self.hidden(x.flatten(1)))
        logits: Tensor = self.head(x)
        return logits


@final
class SmallCNN(nn.Module):
    """Four convolutions and two linear layers, for images of a given size: 0.63 million parameters for 32x32.

    Two pairs of a 3x3 and a strided 4x4 convolution, of `width` and `2 width` channels, without batch norm.

    Args:
        channels: channels of the images.
        size: their height and width in pixels.
        classes: number of outputs.
        width: channels of the first convolutions.
        hidden: width of the hidden linear layer.
        mean: of each channel, or of all; when None those of CIFAR-10 for 3 channels, else 0.5.
        std: standard deviation of each channel, or of all; when None as `mean`.
        activation: "relu", "silu" or "softplus".

    Shapes:
        (b, channels, size, size) -> (b, classes)

    Raises:
        SettingError: a setting is out of range.
        InputError: on a call, the inputs are no images of so many channels and this size.

    Example:
        >>> SmallCNN(channels=1, size=28)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        channels: int = 3,
        size: int = 32,
        classes: int = 10,
        width: int = 32,
        hidden: int = 128,
        mean: float | tuple[float, ...] | None = None,
        std: float | tuple[float, ...] | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if size < 4:
            raise SettingError(f"size of SmallCNN must be at least 4 pixels; got {size}.")
        self.size = size
        self.normalize = Standardize(channels, mean, std)
        self.act = activation_of(activation)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.conv3 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.conv4 = nn.Conv2d(2 * width, 2 * width, 4, stride=2, padding=1)
        self.hidden = nn.Linear(2 * width * (size // 4) ** 2, hidden)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = self.normalize(x)
        if x.shape[2:] != (self.size, self.size):
            raise InputError(
                f"this SmallCNN takes images of {self.size}x{self.size} pixels; got shape {tuple(x.shape)}. Build it "
                "with size= of the images."
            )
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = self.act(layer(x))
        logits: Tensor = self.head(self.act(self.hidden(x.flatten(1))))
        return logits


@final
class DigitsMLP(nn.Module):
    """One hidden layer of 20 rectified units for 8x8 digits: small enough for exact reasoning in unit tests.

    Args:
        hidden: width of the hidden layer.

    Shapes:
        (b, 1, 8, 8) -> (b, 10)

    Example:
        >>> DigitsMLP()(torch.zeros(2, 1, 8, 8)).shape
        torch.Size([2, 10])
    """

    def __init__(self, hidden: int = 20) -> None:
        super().__init__()
        self.hidden = nn.Linear(64, hidden)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        logits: Tensor = self.head(torch.relu(self.hidden(x.flatten(1))))
        return logits
