"""PixelCNN++: the density of an image, pixel by pixel in raster order."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.defenses.base import check_count
from assay.defenses.generative import Density, Scan
from assay.defenses.logistic_mixture import LEVELS, LogisticMixture
from assay.errors import InputError, SettingError


@final
class PixelCNN(Density):
    """Two streams of gated residual blocks with shifted convolutions, and a logistic mixture for each pixel.

    The upper stream sees the rows above a pixel, with convolutions of 2x3; the left stream also sees what is left of
    it, with convolutions of 2x2, and takes the upper one in. Each convolution of block k reaches `dilations[k]` pixels
    further.

    Args:
        channels: channels of the images.
        width: channels inside.
        dilations: the distances in the convolutions of each block.
        components: logistic distributions of a mixture.
        dropout: share of the activations left out in training.

    Shapes:
        `(b, channels, h, w)` in [0, 1] -> `(b,)`, the logarithm of the probability of the image in 256 levels

    Raises:
        SettingError: a setting is out of range.
        InputError: on a call, the inputs are no images of so many channels.

    Deviations:
        The resolution stays, where the paper halves it twice and doubles it again with short-cuts in between; far
        pixels are reached by dilation. Weights are not normalised.

    References:
        Salimans, Karpathy, Chen, Kingma, "PixelCNN++: improving the PixelCNN with discretized logistic mixture
        likelihood and other modifications", ICLR 2017, https://arxiv.org/abs/1701.05517

    Example:
        >>> PixelCNN(width=4, dilations=(1,))(torch.zeros(2, 1, 5, 5)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 16,
        dilations: tuple[int, ...] = (1, 2, 4, 2, 1),
        components: int = 5,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.channels = check_count("PixelCNN", "channels", channels, 1)
        self.width = check_count("PixelCNN", "width", width, 1)
        self.components = check_count("PixelCNN", "components", components, 1)
        if not isinstance(dilations, (tuple, list)) or not dilations:  # a card has lists
            raise SettingError(f"dilations of PixelCNN holds a number for each block, as (1, 2); got {dilations!r}.")
        if not 0 <= dropout < 1:
            raise SettingError(f"dropout of PixelCNN has to lie in [0, 1); got {dropout!r}.")
        self.dilations = tuple(check_count("PixelCNN", "dilations", each, 1) for each in dilations)
        self.above = nn.Conv2d(channels + 1, width, (2, 3))
        self.row_above = nn.Conv2d(channels + 1, width, (1, 3))
        self.left = nn.Conv2d(channels + 1, width, (2, 1))
        self.upper = nn.ModuleList(GatedBlock(width, d, dropout, wide=True) for d in self.dilations)
        self.lefts = nn.ModuleList(GatedBlock(width, d, dropout, wide=False) for d in self.dilations)
        self.out = nn.Conv2d(width, LogisticMixture.size(channels, components), 1)

    def numbers(self, levels: Tensor) -> Tensor:
        """The numbers of each pixel's mixture."""
        x = self.encoded(levels)
        h, w = x.shape[2:]
        u = self.above(F.pad(x, (1, 1, 2, 0)))[:, :, :h]
        left = self.row_above(F.pad(x, (1, 1, 1, 0)))[:, :, :h] + self.left(F.pad(x, (1, 0, 1, 0)))[:, :, :, :w]
        for upper, block in zip(self.upper, self.lefts, strict=True):
            u = upper(u)
            left = block(left, u)
        numbers: Tensor = self.out(F.elu(left))
        return numbers

    def encoded(self, levels: Tensor) -> Tensor:
        """Levels on [-1, 1], and a channel of ones, which tells the image from what lies beyond its edge."""
        if levels.ndim != 4 or levels.shape[1] != self.channels:
            raise InputError(f"this PixelCNN takes images (b, {self.channels}, h, w); got shape {tuple(levels.shape)}.")
        x = levels.to(self.out.weight) * (2 / (LEVELS - 1)) - 1
        return torch.cat([x, torch.ones_like(x[:, :1])], dim=1)

    def scan(self, levels: Tensor) -> Scan:
        """A scan that computes of each pixel what those before it changed, and keeps the rest."""
        from assay.models.networks.pixelcnn_scan import CachedScan  # which knows this class

        return CachedScan(self, levels)


@final
class GatedBlock(nn.Module):
    """`x + a sigmoid(b)` with `(a, b) = conv(act(conv(act(x)) + mix(act(y))))`, and act the pair elu(x), elu(-x).

    Args:
        width: channels.
        dilation: distance of the values that a convolution sees.
        dropout: share left out between the convolutions.
        wide: convolutions of 2x3, which see above and to both sides, in place of 2x2, above and left; only the latter
            take another stream y in.
    """

    def __init__(self, width: int, dilation: int, dropout: float, *, wide: bool) -> None:
        super().__init__()
        self.dilation, self.wide, self.dropout = dilation, wide, dropout
        kernel = (2, 3 if wide else 2)
        self.first = nn.Conv2d(2 * width, width, kernel, dilation=dilation)
        self.second = nn.Conv2d(2 * width, 2 * width, kernel, dilation=dilation)
        self.mix = None if wide else nn.Conv2d(2 * width, width, 1)

    def forward(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """The stream after the block."""
        h = self.first(self._padded(paired(x)))
        if self.mix is not None and other is not None:
            h = h + self.mix(paired(other))
        h = F.dropout(paired(h), self.dropout, self.training)
        a, b = self.second(self._padded(h)).chunk(2, dim=1)
        gated: Tensor = x + a * torch.sigmoid(b)
        return gated

    def _padded(self, x: Tensor) -> Tensor:
        """Zeros above, left and, for the wide kernel, right, so that the size stays."""
        d = self.dilation
        return F.pad(x, (d, d if self.wide else 0, d, 0))


def paired(x: Tensor) -> Tensor:
    """`elu(x)` and `elu(-x)`, one after the other in the channels."""
    return F.elu(torch.cat([x, -x], dim=1))
