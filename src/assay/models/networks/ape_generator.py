"""The generator of APE-GAN: from adversarial to clean images."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from assay.defenses.generative import Autoencoder
from assay.errors import InputError
from assay.models.networks.critics import check_counts


@final
class APEGenerator(Autoencoder):
    """The generator of APE-GAN: from an image that may be adversarial to the image that it was made from.

    Two 4x4 convolutions with stride 2, of `width` and `2 width` channels, and two transposed ones back, with batch norm
    and leaky rectified units between. Inside, images lie in [-1, 1]; the last activation is tanh.

    Args:
        channels: of the images.
        width: channels after the first convolution.

    Shapes:
        (b, channels, h, w) -> the same, in [0, 1]; h and w are multiples of 4

    Raises:
        SettingError: a setting is out of range.
        InputError: on a call, the inputs are no such images.

    References:
        Shen, Jin, Gao, Zhang, "APE-GAN: adversarial perturbation elimination with GAN", 2017,
        https://arxiv.org/abs/1707.05474

    Example:
        >>> APEGenerator(width=4)(torch.zeros(2, 1, 28, 28)).shape
        torch.Size([2, 1, 28, 28])
    """

    def __init__(self, channels: int = 1, width: int = 16) -> None:
        super().__init__()
        check_counts(self, channels=channels, width=width)
        self.channels = channels
        self.down1 = nn.Conv2d(channels, width, 4, stride=2, padding=1)
        self.down2 = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)
        self.up2 = nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1)
        self.norm1, self.norm2, self.norm3 = (nn.BatchNorm2d(n) for n in (width, 2 * width, width))

    def activations(self, x: Tensor) -> list[Tensor]:
        """What each layer gives, the last of them the cleaned images."""
        if x.ndim != 4 or x.shape[1] != self.channels or x.shape[2] % 4 or x.shape[3] % 4:
            raise InputError(
                f"this APEGenerator takes images (b, {self.channels}, h, w) with h and w multiples of 4; got shape "
                f"{tuple(x.shape)}."
            )
        first = nn.functional.leaky_relu(self.norm1(self.down1(2 * x - 1)), 0.2)
        second = nn.functional.leaky_relu(self.norm2(self.down2(first)), 0.2)
        third = nn.functional.leaky_relu(self.norm3(self.up1(second)), 0.2)
        return [first, second, third, (torch.tanh(self.up2(third)) + 1) / 2]
