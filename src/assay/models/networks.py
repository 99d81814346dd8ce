"""The small networks whose weights ship with the package; inputs lie in [0, 1], outputs are logits."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn


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
