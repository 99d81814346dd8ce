"""The PixelCNN pixel by pixel, with everything kept that a new pixel does not change."""

from __future__ import annotations

from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.defenses.generative import Scan
from assay.defenses.logistic_mixture import LogisticMixture
from assay.models.networks.pixelcnn import GatedBlock, PixelCNN, paired


@final
class CachedScan(Scan):
    """A scan of a `PixelCNN`: the upper stream is computed once a row, the left stream once a pixel.

    What a convolution needs of earlier rows and pixels is kept from when it was computed, so that a whole scan takes
    about the arithmetic of one evaluation. Pixels have to be asked about in raster order, without gradients.

    Args:
        net: the network.
        levels: the images; what they hold before a pixel is set is never looked at.
    """

    def __init__(self, net: PixelCNN, levels: Tensor) -> None:
        self.net = net
        self.x = F.pad(net.encoded(torch.zeros_like(levels)), (1, 1, 2, 0))  # zeros beyond the edge
        b, w = len(levels), levels.shape[3]
        self.upper = [_Row(cast("GatedBlock", block), b, w, self.x) for block in net.upper]
        self.lefts = [_Pixel(cast("GatedBlock", block), b, w, self.x) for block in net.lefts]
        self.left = net.left.weight.flatten(1).T.contiguous()  # of the pixel above left and the pixel left
        self.out = net.out.weight.flatten(1).T.contiguous()
        self.row = -1
        self.first = self.x

    def at(self, row: int, column: int) -> LogisticMixture:
        """The distribution of the next pixel."""
        if row != self.row:
            self._begin(row)
        net = self.net
        seen = self.x[:, :, row + 1 : row + 3, column].flatten(1)
        left = torch.addmm(self.first[column], seen, self.left)
        for block in self.lefts:
            left = block.at(left, row, column)
        return LogisticMixture(torch.addmm(_bias(net.out), F.elu(left), self.out), net.channels)

    def put(self, row: int, column: int, levels: Tensor) -> None:
        """Set the pixel."""
        self.x[:, : self.net.channels, row + 2, column + 1] = self.net.encoded(levels[:, :, None, None])[:, :-1, 0, 0]

    def _begin(self, row: int) -> None:
        """The upper stream of a row, and what the left stream takes of it."""
        self.row, net = row, self.net
        u = net.above(self.x[:, :, row : row + 2])
        self.first = _by_column(net.row_above(self.x[:, :, row + 1 : row + 2])) + _bias(net.left)
        for upper, left in zip(self.upper, self.lefts, strict=True):
            u = upper.at(u, row)
            left.begin(u)


@final
class _Row:
    """A block of the upper stream, row by row: `(b, c, 1, w)`."""

    def __init__(self, block: GatedBlock, b: int, w: int, like: Tensor) -> None:
        self.block = block
        d, inner = block.dilation, block.first.in_channels
        self.kept = [like.new_zeros(d + 1, b, inner, 1, w + 2 * d) for _ in range(2)]

    def at(self, u: Tensor, row: int) -> Tensor:
        """The stream after the block."""
        h = self._conv(0, self.block.first, paired(u), row)
        a, b = self._conv(1, self.block.second, paired(h), row).chunk(2, dim=1)
        return u + a * torch.sigmoid(b)

    def _conv(self, place: int, conv: nn.Conv2d, x: Tensor, row: int) -> Tensor:
        d, kept = self.block.dilation, self.kept[place]
        kept[row % (d + 1), :, :, :, d:-d] = x
        seen = torch.cat([kept[(row + 1) % (d + 1)], kept[row % (d + 1)]], dim=2)  # row - d, and this one
        return F.conv2d(seen, conv.weight, conv.bias, dilation=(1, d))


@final
class _Pixel:
    """A block of the left stream, pixel by pixel: `(b, c)`."""

    def __init__(self, block: GatedBlock, b: int, w: int, like: Tensor) -> None:
        self.block = block
        d, inner = block.dilation, block.first.in_channels
        self.kept = [like.new_zeros(d + 1, w + d, b, inner) for _ in range(2)]
        self.weights = [_flat(conv) for conv in (block.first, block.second)]
        self.taken = like

    def begin(self, u: Tensor) -> None:
        """Take in what the upper stream gives for a row."""
        mix = cast("nn.Conv2d", self.block.mix)
        self.taken = _by_column(mix(paired(u))) + _bias(self.block.first)

    def at(self, x: Tensor, row: int, column: int) -> Tensor:
        """The stream after the block."""
        h = self._conv(0, self.taken[column], x, row, column)
        a, b = self._conv(1, _bias(self.block.second), h, row, column).chunk(2, dim=1)
        return x + a * torch.sigmoid(b)

    def _conv(self, place: int, bias: Tensor, x: Tensor, row: int, column: int) -> Tensor:
        d, kept = self.block.dilation, self.kept[place]
        above, own = kept[(row + 1) % (d + 1)], kept[row % (d + 1)]
        own[column + d] = paired(x)
        seen = torch.cat([above[column], above[column + d], own[column], own[column + d]], dim=1)
        return torch.addmm(bias, seen, self.weights[place])


def _flat(conv: nn.Conv2d) -> Tensor:
    """The weights of a 2x2 convolution for its four inputs side by side, `(4 c, out)`."""
    return conv.weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous()


def _bias(conv: nn.Conv2d) -> Tensor:
    return cast("Tensor", conv.bias)


def _by_column(x: Tensor) -> Tensor:
    """`(b, c, 1, w)` as `(w, b, c)`."""
    return x[:, :, 0].permute(2, 0, 1).contiguous()
