"""Wide residual networks, in which most of the strongest results on small images are reported."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from assay.errors import SettingError
from assay.models.networks.parts import PreActBlock, Standardize, activation_of, first_weights, pooled

_STEM = 16  # channels of the first convolution


@final
class WideResNet(nn.Module):
    """WideResNet-depth-width for small images: WRN-28-10 has 36.5 million parameters, WRN-34-10 46.2 million.

    A 3x3 convolution of 16 channels, three groups of `(depth - 4) / 6` `PreActBlock`s of 16, 32 and 64 times `width`
    channels, the second and third at half the resolution each, then batch norm, activation, the mean over all places,
    and a linear layer.

    Args:
        depth: number of layers, 6 n + 4: 16, 22, 28, 34, 40, 70.
        width: factor of the channels.
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

    Deviations:
        The paper's dropout between convolutions is left out, as in work on adversarial training.

    References:
        Zagoruyko, Komodakis, "Wide residual networks", BMVC 2016, https://arxiv.org/abs/1605.07146
        Gowal, Qin, Uesato, Mann, Kohli, "Uncovering the limits of adversarial training against norm-bounded adversarial
        examples", 2020, https://arxiv.org/abs/2010.03593 (SiLU).

    Example:
        >>> import torch
        >>> WideResNet(depth=10, width=1)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        depth: int = 34,
        width: int = 10,
        classes: int = 10,
        channels: int = 3,
        mean: float | tuple[float, ...] | None = None,
        std: float | tuple[float, ...] | None = None,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise SettingError(f"depth of WideResNet is 6 n + 4, such as 16, 28 or 34; got {depth}.")
        if width < 1:
            raise SettingError(f"width of WideResNet must be at least 1; got {width}.")
        self.normalize = Standardize(channels, mean, std)
        self.conv = nn.Conv2d(channels, _STEM, 3, padding=1, bias=False)
        blocks: list[nn.Module] = []
        inside = _STEM
        for group in range(3):
            for place in range((depth - 4) // 6):
                stride = 2 if group and not place else 1
                blocks.append(PreActBlock(inside, _STEM * 2**group * width, stride, activation))
                inside = _STEM * 2**group * width
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
