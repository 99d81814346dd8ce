"""Schedules of the learning rate: pure functions of how far training is, so that a resumed run needs no state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

from assay.errors import SettingError
from assay.training.ranges import check_range


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """Which share of the peak learning rate is in force. Subclasses are frozen dataclasses."""

    @abstractmethod
    def at(self, progress: float) -> float:
        """The factor of the peak rate at this share of training, both in [0, 1]."""


@final
@dataclass(frozen=True, kw_only=True)
class Constant(Schedule):
    """The peak rate throughout: 1, after a linear rise from 0.

    Args:
        warmup: share of training that the rise takes; 0 for none.

    Raises:
        SettingError: it is out of range.

    Example:
        >>> Constant(warmup=0.5).at(0.25)
        0.5
    """

    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "warmup", high=1, below=True)

    def at(self, progress: float) -> float:
        """`min(progress / warmup, 1)`."""
        return _rise(progress, self.warmup)


@final
@dataclass(frozen=True, kw_only=True)
class Cyclic(Schedule):
    """One linear cycle: from 0 to the peak rate, and back to 0.

    Args:
        peak: share of training at which the peak is reached.

    Raises:
        SettingError: it is out of range.

    References:
        Smith, "Cyclical learning rates for training neural networks", WACV 2017, https://arxiv.org/abs/1506.01186
        Wong, Rice, Kolter, "Fast is better than free: revisiting adversarial training", ICLR 2020,
        https://arxiv.org/abs/2001.03994 (its released code peaks at 0.5 on CIFAR-10).

    Example:
        >>> cyclic = Cyclic(peak=0.5)
        >>> [cyclic.at(progress) for progress in (0, 0.25, 0.5, 1)]
        [0.0, 0.5, 1.0, 0.0]
    """

    peak: float = 0.4

    def __post_init__(self) -> None:
        check_range(self, "peak", high=1, above=True, below=True)

    def at(self, progress: float) -> float:
        """`progress / peak` before the peak, `(1 - progress) / (1 - peak)` after it."""
        return min(progress / self.peak, (1 - progress) / (1 - self.peak))


@final
@dataclass(frozen=True, kw_only=True)
class Piecewise(Schedule):
    """The peak rate, multiplied by a factor at each milestone.

    Args:
        milestones: shares of training at which the rate drops, ascending.
        factor: by how much.

    Raises:
        SettingError: a setting is out of range.

    References:
        Rice, Wong, Kolter, "Overfitting in adversarially robust deep learning", ICML 2020,
        https://arxiv.org/abs/2002.11569 (these defaults: epochs 100 and 150 of 200).

    Example:
        >>> Piecewise(milestones=(0.5,)).at(0.5)
        0.1
    """

    milestones: tuple[float, ...] = (0.5, 0.75)
    factor: float = 0.1

    def __post_init__(self) -> None:
        check_range(self, "factor", high=1, above=True)
        shares = self.milestones
        numbers = isinstance(shares, tuple) and all(isinstance(share, (int, float)) for share in shares)
        if not numbers or not all(0 < share < 1 for share in shares) or list(shares) != sorted(set(shares)):
            raise SettingError(
                "milestones of Piecewise are ascending shares of training between 0 and 1, such as (0.5, 0.75); got "
                f"{shares!r}."
            )

    def at(self, progress: float) -> float:
        """`factor ** (number of milestones reached)`."""
        return self.factor ** sum(progress >= share for share in self.milestones)


@final
@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """Half a cosine from the peak rate to 0, after a linear rise: `(1 + cos(pi (p - w) / (1 - w))) / 2`.

    Args:
        warmup: share w of training that the rise takes; 0 for none.

    Raises:
        SettingError: it is out of range.

    References:
        Loshchilov, Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017,
        https://arxiv.org/abs/1608.03983 (one cycle, without restarts).

    Example:
        >>> round(Cosine().at(0.5), 6)
        0.5
    """

    warmup: float = 0.0

    def __post_init__(self) -> None:
        check_range(self, "warmup", high=1, below=True)

    def at(self, progress: float) -> float:
        """The rise, then the cosine."""
        if progress < self.warmup:
            return _rise(progress, self.warmup)
        return (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup))) / 2


def _rise(progress: float, warmup: float) -> float:
    return min(progress / warmup, 1.0) if warmup else 1.0
