"""Noise of sensors and memories."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from assay.corruptions.base import Corruption, Group
from assay.corruptions.draws import normal, poisson
from assay.rng import Keyed

_STEPS = 1 << 16  # values of a coarse draw


@final
@dataclass(frozen=True, repr=False)
class GaussianNoise(Corruption):
    """Noise of a sensor in low light: `x + s n`, n standard normal for every value.

    Args:
        severity: from 1 to 5; s is 0.08 to 0.38 for large images, 0.04 to 0.10 for small ones.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        n is one of 65,536 quantiles of the normal distribution, at most 4.3 from 0.

    References:
        Hendrycks, Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR
        2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> noisy = GaussianNoise(severity=5, table="imagenet")(torch.full((2, 3, 64, 64), 0.5))
        >>> round(float(noisy.mean()), 1), bool((noisy[0] == noisy[1]).all())
        (0.5, False)
    """

    slug: ClassVar[str] = "gaussian_noise"
    group: ClassVar[Group] = "noise"

    def apply(self, x: Tensor, parameters: float, rng: Keyed) -> Tensor:
        """With the noise."""
        return normal(rng, *x.shape[1:]).mul_(parameters).add_(x)


@final
@dataclass(frozen=True, repr=False)
class ShotNoise(Corruption):
    """Few photons: `P / c`, P a Poisson count with the mean `c x` for every value.

    Args:
        severity: from 1 to 5; a white pixel is c photons: 60 to 3 for large images, 500 to 50 for small ones.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        x is rounded to whole 255ths, and a count is one of 4,096 quantiles of its distribution.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> ShotNoise(severity=5)(torch.zeros(1, 1, 4, 4)).max()
        tensor(0.)
    """

    slug: ClassVar[str] = "shot_noise"
    group: ClassVar[Group] = "noise"

    def apply(self, x: Tensor, parameters: float, rng: Keyed) -> Tensor:
        """As counted."""
        return poisson(rng, x, parameters).div_(parameters)


@final
@dataclass(frozen=True, repr=False)
class ImpulseNoise(Corruption):
    """Salt and pepper, as bit errors make them: every value becomes 0 or 1 with probability p / 2 each.

    Args:
        severity: from 1 to 5; p is 0.03 to 0.27 for large images, 0.01 to 0.07 for small ones.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> ImpulseNoise(severity=5)(torch.full((1, 1, 32, 32), 0.4)).unique()
        tensor([0.0000, 0.4000, 1.0000])
    """

    slug: ClassVar[str] = "impulse_noise"
    group: ClassVar[Group] = "noise"

    def apply(self, x: Tensor, parameters: float, rng: Keyed) -> Tensor:
        """With the impulses."""
        drawn, half = rng.coarse(*x.shape[1:]), round(parameters * _STEPS / 2)
        return x.masked_fill(drawn < half, 0.0).masked_fill_(drawn >= _STEPS - half, 1.0)


@final
@dataclass(frozen=True, repr=False)
class SpeckleNoise(Corruption):
    """Noise in proportion to the light: `x + s x n`, n standard normal for every value.

    Args:
        severity: from 1 to 5; s is 0.15 to 0.6 for large images, 0.06 to 0.2 for small ones.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        n as in `GaussianNoise`.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import torch
        >>> SpeckleNoise(severity=5)(torch.zeros(1, 1, 4, 4)).max()
        tensor(0.)
    """

    slug: ClassVar[str] = "speckle_noise"
    group: ClassVar[Group] = "noise"
    extra: ClassVar[bool] = True

    def apply(self, x: Tensor, parameters: float, rng: Keyed) -> Tensor:
        """With the noise."""
        return normal(rng, *x.shape[1:]).mul_(parameters).add_(1).mul_(x)
