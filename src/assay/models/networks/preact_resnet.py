"""The residual network of 18 layers that most work on adversarial training of small images reports."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from assay.models.networks.parts import PreActBlock, Standardize, activation_of, first_weights, pooled

_WIDTHS = (64, 128, 256, 512)
_DEPTH = 2  # blocks of each width


@final
class PreActResNet18(nn.Module):
    """Pre-activation ResNet-18 for small images: 11.17 million parameters for 10 classes.

    A 3x3 convolution, four groups of two `PreActBlock`s of 64, 128, 256 and 512 channels, each group after the first
    at half the resolution, then batch norm, activation, the mean over all places, and a linear layer.

    Args:
        classes: number of outputs.
        channels: channels of the images.
        mean: of each channel, or of all; when None those of CIFAR-10 for 3 channels, else 0.5.
        std: standard deviation of each channel, or of all; when None as `mean`.
        activation: "relu", "silu" or "softplus".

    Shapes:
        (b, channels, h, w) -> (b, classes), for images of any size

    Raises:
        SettingError: a setting is out of range.
        InputError: on a call, the inputs are no images of so many channels.

    References:
        He, Zhang, Ren, Sun, "Identity mappings in deep residual networks", ECCV 2016, https://arxiv.org/abs/1603.05027
        Pang, Yang, Dong, Su, Zhu, "Bag of tricks for adversarial training", ICLR 2021,
        https://arxiv.org/abs/2010.00467 (smooth activations).

    Example:
        >>> model = PreActResNet18(classes=10)
        >>> sum(p.numel() for p in model.parameters())
        11172170
    """

    def __init__(
        self,
        classes: int = 10,
        channels: int = 3,
        mean: float | tuple[float, ...] | None = None,
        std: float | tuple[float, ...] | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        self.normalize = Standardize(channels, mean, std)
        self.conv = nn.Conv2d(channels, _WIDTHS[0], 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        inside = _WIDTHS[0]
        for width in _WIDTHS:
            for _ in range(_DEPTH):
                stride = 2 if width > inside else 1
                blocks.append(PreActBlock(inside, width, stride, activation))
                inside = width
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(inside)
        self.act = activation_of(activation)
        self.head = nn.Linear(inside, classes)
        first_weights(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = self.blocks(self.conv(self.normalize(x)))
        logits: Tensor = self.head(pooled(self.act(self.bn(x))))
        return logits
