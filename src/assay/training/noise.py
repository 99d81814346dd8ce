"""Noise on training inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from assay.rng import Keyed
from assay.training.augmentation import Augmentation
from assay.training.ranges import check_range


@final
@dataclass(frozen=True, kw_only=True)
class AddNoise(Augmentation):
    """Gaussian noise on every value: `clip(x + u n)`, n standard normal and u uniform on [0, std] for each sample.

    Args:
        std: the largest standard deviation.

    Raises:
        SettingError: it is out of range.

    Deviations:
        The paper draws one standard deviation for half of a batch and leaves the other half clean; here each sample
        has its own.

    References:
        Rusak et al., "A simple way to make neural networks robust against diverse image corruptions", ECCV 2020,
        https://arxiv.org/abs/2001.06057

    Example:
        >>> x, y = torch.full((2, 8), 0.5), torch.tensor([0, 1])
        >>> noisy, _ = AddNoise(std=0.2)(x, y, None, Keyed(0, torch.arange(2)), classes=2)
        >>> bool((noisy == x).any())
        False
    """

    std: float = 0.2

    def __post_init__(self) -> None:
        check_range(self, "std", high=1)

    def __call__(
        self, x: Tensor, y: Tensor, targets: Tensor | None, rng: Keyed, *, classes: int
    ) -> tuple[Tensor, Tensor | None]:
        """The inputs with noise, inside [0, 1]; the same targets."""
        strength = rng.uniform(high=self.std).reshape(-1, *[1] * (x.ndim - 1)).to(x)
        return torch.addcmul(x, rng.normal(*x.shape[1:]).to(x), strength).clamp_(0, 1), targets
