"""Generators: from normal numbers to images."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from assay.defenses.generative import Generator
from assay.errors import InputError
from assay.models.networks.critics import check_counts, check_quarters


@final
class DenseGenerator(Generator):
    """Images from normal numbers by fully connected layers: `h = relu(W_2 relu(W_1 z + b_1) + b_2)`, `G(z) = W h + b`.

    Nothing comes after the last layer, so that values may leave [0, 1] by a little, and the distance of an image to
    G(z) is a quadratic function of h: searches in z use that.

    Args:
        channels: of the images.
        size: their height and width in pixels.
        latent: how many normal numbers.
        hidden: width of both hidden layers.

    Shapes:
        (b, latent) -> (b, channels, size, size)

    Raises:
        SettingError: a setting is out of range.
        InputError: on a call, the inputs are no such numbers.

    Example:
        >>> DenseGenerator()(torch.zeros(2, 128)).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(self, channels: int = 1, size: int = 28, latent: int = 128, hidden: int = 256) -> None:
        super().__init__()
        check_counts(self, channels=channels, size=size, latent=latent, hidden=hidden)
        self.shape, self.latent = (channels, size, size), latent
        self.first = nn.Linear(latent, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, channels * size * size)

    def features(self, z: Tensor) -> Tensor:
        """What the last layer is given, `(b, hidden)`."""
        _check_latent(self, z)
        return torch.relu(self.second(torch.relu(self.first(z))))

    def forward(self, z: Tensor) -> Tensor:
        """The images."""
        images: Tensor = self.head(self.features(z)).reshape(-1, *self.shape)
        return images


@final
class ConvGenerator(Generator):
    """Images from normal numbers by transposed convolutions: a linear layer and two of 4x4 with stride 2.

    The first image has a quarter of the sides and `2 width` channels, the next half of them and `width`; rectified
    units between, a sigmoid at the end.

    Args:
        channels: of the images.
        size: their height and width in pixels, a multiple of 4.
        latent: how many normal numbers.
        width: channels before the last layer.

    Shapes:
        (b, latent) -> (b, channels, size, size), in [0, 1]

    Raises:
        SettingError: a setting is out of range.
        InputError: on a call, the inputs are no such numbers.

    References:
        Radford, Metz, Chintala, "Unsupervised representation learning with deep convolutional generative adversarial
        networks", ICLR 2016, https://arxiv.org/abs/1511.06434

    Example:
        >>> ConvGenerator(channels=3, size=32, width=8)(torch.zeros(2, 128)).shape
        torch.Size([2, 3, 32, 32])
    """

    def __init__(self, channels: int = 1, size: int = 28, latent: int = 128, width: int = 16) -> None:
        super().__init__()
        check_counts(self, channels=channels, size=size, latent=latent, width=width)
        check_quarters(self, size)
        self.latent, self.start = latent, (2 * width, size // 4, size // 4)
        self.first = nn.Linear(latent, 2 * width * (size // 4) ** 2)
        self.second = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.head = nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """The images."""
        _check_latent(self, z)
        h = torch.relu(self.first(z)).reshape(-1, *self.start)
        return torch.sigmoid(self.head(torch.relu(self.second(h))))


def _check_latent(network: Generator, z: Tensor) -> None:
    if z.ndim != 2 or z.shape[1] != network.latent:
        raise InputError(
            f"this {type(network).__name__} makes images of {network.latent} normal numbers each; got shape "
            f"{tuple(z.shape)}."
        )
