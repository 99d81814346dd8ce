"""Small convolutional autoencoders: those of MagNet."""

from __future__ import annotations

from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.defenses.base import check_count
from assay.defenses.generative import Autoencoder
from assay.errors import InputError


@final
class ConvAutoencoder(Autoencoder):
    """Convolutions of 3x3 with sigmoids, and a coarse grid between them unless `pooled=False`.

    Pooled, the network is conv, mean over 2x2, conv, conv, each pixel doubled, conv, conv: MagNet's autoencoder I, its
    detector with p = 2 and its reformer. Otherwise it is three convolutions: its autoencoder II, the detector with
    p = 1. The last convolution has as many channels as the images.

    Args:
        channels: channels of the images.
        width: channels inside.
        pooled: whether there is a coarse grid.

    Shapes:
        `(b, channels, h, w)` -> the same, in [0, 1]; h and w are even where it is pooled.

    Raises:
        SettingError: a setting is out of range.
        InputError: on a call, the inputs are no images of so many channels, or of odd size.

    References:
        Meng, Chen, "MagNet: a two-pronged defense against adversarial examples", CCS 2017,
        https://arxiv.org/abs/1705.09064

    Example:
        >>> ConvAutoencoder()(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(self, channels: int = 1, width: int = 3, pooled: bool = True) -> None:
        super().__init__()
        self.channels = check_count("ConvAutoencoder", "channels", channels, 1)
        width = check_count("ConvAutoencoder", "width", width, 1)
        self.pooled = pooled
        sizes = [channels, *[width] * (4 if pooled else 2), channels]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(sizes))

    def activations(self, x: Tensor) -> list[Tensor]:
        """What each convolution gives after its sigmoid; the last is the reconstruction."""
        if x.ndim != 4 or x.shape[1] != self.channels or (self.pooled and (x.shape[2] % 2 or x.shape[3] % 2)):
            even = " of even height and width" if self.pooled else ""
            raise InputError(
                f"this autoencoder takes (batch, {self.channels}, height, width){even}; got shape {tuple(x.shape)}."
            )
        found = []
        for place, conv in enumerate(self.convs):
            x = torch.sigmoid(conv(x))
            found.append(x)
            if self.pooled and place == 0:
                x = F.avg_pool2d(x, 2)
            if self.pooled and place == 2:
                x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return found
