"""Mixtures of discretised logistic distributions over the 256 levels of each channel of a pixel."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 256
_HALF = 1 / (LEVELS - 1)  # half of the distance of two levels on [-1, 1]
_LEAST = -7.0  # of log scales


@final
class LogisticMixture:
    r"""The distribution of the channels of a pixel, each level the mass of a logistic distribution around it.

    $$p(x) = \sum_k \pi_k \prod_c \left[ \sigma\!\left(\frac{x_c + h - m_{kc}}{s_{kc}}\right)
        - \sigma\!\left(\frac{x_c - h - m_{kc}}{s_{kc}}\right) \right],
      \qquad m_{kc} = \mu_{kc} + \sum_{l<c} a_{kcl} x_l$$

    with levels on [-1, 1], h half of their distance, and the outermost levels holding all that lies beyond them. The
    logarithm is taken as `log s(u) + log s(-v) + log(1 - exp(v - u))`, which is exact in the tails too.

    Args:
        numbers: what a network answers: for each of K components a weight, and for each channel a mean, a logarithm of
            the scale, and one factor a for each channel before it.
        channels: of a pixel.

    Shapes:
        numbers: `(b, K (1 + 2 c + c (c - 1) / 2), *places)`

    Deviations:
        The paper's code replaces masses below 1e-5 by the density at the middle; here nothing is replaced.

    References:
        Salimans, Karpathy, Chen, Kingma, "PixelCNN++: improving the PixelCNN with discretized logistic mixture
        likelihood and other modifications", ICLR 2017, https://arxiv.org/abs/1701.05517

    Example:
        >>> mixture = LogisticMixture(torch.zeros(1, 6), 1)
        >>> round(float(mixture.conditional([], torch.arange(256)[None]).exp().sum()), 4)
        1.0
    """

    def __init__(self, numbers: Tensor, channels: int) -> None:
        pairs = channels * (channels - 1) // 2
        parts = numbers.reshape(len(numbers), 1 + 2 * channels + pairs, -1, *numbers.shape[2:])
        self.channels = channels
        self.weights = parts[:, 0].log_softmax(dim=1)
        self.means = parts[:, 1 : 1 + channels]
        self.log_scales = parts[:, 1 + channels : 1 + 2 * channels].clamp(min=_LEAST)
        self.factors = parts[:, 1 + 2 * channels :].tanh()

    @staticmethod
    def size(channels: int, components: int) -> int:
        """How many numbers a network has to give for a pixel."""
        return components * (1 + 2 * channels + channels * (channels - 1) // 2)

    def log_prob(self, levels: Tensor) -> Tensor:
        """The logarithm of the probability of pixels, `(b, c, *places)` in 0 to 255; `(b, *places)`."""
        joint = self.weights
        for channel in range(self.channels):
            joint = joint + self._mass(channel, levels[:, channel], [levels[:, c] for c in range(channel)])
        return joint.logsumexp(dim=1)

    def conditional(self, known: list[Tensor], values: Tensor) -> Tensor:
        """The logarithm of the probability of some values of the next channel, given those before it; for one place.

        Args:
            known: levels of the channels before, `(b,)` each.
            values: levels that follow each other, `(b, n)`.
        """
        joint = self.weights
        for channel, level in enumerate(known):
            joint = joint + self._mass(channel, level, known[:channel])
        joint = joint - joint.logsumexp(dim=1, keepdim=True)
        mean, inverse = (each[:, :, None] for each in self._logistic(len(known), known))
        edges = _scaled(torch.cat([values, values[:, -1:] + 1], dim=1), mean)[:, None] - _HALF
        u = inverse * (edges - mean)
        below = F.logsigmoid(u)
        mass = _between(below[:, :, 1:], (below - u)[:, :, :-1], inverse, values[:, None])
        return (joint[:, :, None] + mass).logsumexp(dim=1)

    def _mass(self, channel: int, level: Tensor, known: list[Tensor]) -> Tensor:
        """The logarithm of the mass of a level of a channel under each component."""
        mean, inverse = self._logistic(channel, known)
        centre = _scaled(level[:, None], mean) - mean
        below, above = F.logsigmoid(inverse * (centre + _HALF)), F.logsigmoid(-inverse * (centre - _HALF))
        return _between(below, above, inverse, level[:, None])

    def _logistic(self, channel: int, known: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Mean and inverse scale of a channel, given those before it."""
        mean, first = self.means[:, channel], channel * (channel - 1) // 2
        for place, before in enumerate(known):
            mean = mean + self.factors[:, first + place] * _scaled(before[:, None], mean)
        return mean, torch.exp(-self.log_scales[:, channel])


def _between(below: Tensor, above: Tensor, inverse: Tensor, level: Tensor) -> Tensor:
    """The logarithm of the mass of levels, from those below their upper edges and above their lower ones."""
    inner = below + above + torch.log(-torch.expm1(-2 * _HALF * inverse))
    return torch.where(level == 0, below, torch.where(level == LEVELS - 1, above, inner))


def _scaled(level: Tensor, like: Tensor) -> Tensor:
    """Levels as numbers in [-1, 1]."""
    return level.to(like) * (2 / (LEVELS - 1)) - 1
