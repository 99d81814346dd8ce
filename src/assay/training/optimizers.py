"""Optimizers as settings: what builds torch's own for the parameters of a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from assay.errors import SettingError
from assay.training.ranges import check_range


@dataclass(frozen=True, kw_only=True)
class Optimizer(ABC):
    """What moves the parameters along a gradient. Subclasses are frozen dataclasses.

    Attributes:
        lr: the peak of the learning rate; a `Schedule` says which share of it is in force.
    """

    lr: float

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Torch's optimizer for these parameters, at the peak rate."""


@final
@dataclass(frozen=True, kw_only=True)
class SGD(Optimizer):
    """Stochastic gradient descent: `v <- momentum v + (g + weight_decay w)`, `w <- w - lr v`.

    Args:
        lr: the peak of the learning rate.
        momentum: decay of the velocity v; 0 for none.
        weight_decay: share of each weight that joins its gradient.
        nesterov: step along `g + momentum v` in place of v.

    Raises:
        SettingError: a setting is out of range.

    References:
        Rice, Wong, Kolter, "Overfitting in adversarially robust deep learning", ICML 2020,
        https://arxiv.org/abs/2002.11569 (these defaults).

    Example:
        >>> SGD(lr=0.2).build(torch.nn.Linear(2, 1).parameters()).param_groups[0]["momentum"]
        0.9
    """

    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    nesterov: bool = False

    def __post_init__(self) -> None:
        check_range(self, "lr", above=True)
        check_range(self, "momentum", high=1, below=True)
        check_range(self, "weight_decay")
        if self.nesterov and self.momentum == 0:
            raise SettingError("nesterov of SGD needs a momentum; got momentum=0. Give momentum=0.9.")

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """`torch.optim.SGD`."""
        return torch.optim.SGD(
            parameters, self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
        )


@final
@dataclass(frozen=True, kw_only=True)
class AdamW(Optimizer):
    """Adam with weight decay apart from the gradient: `w <- (1 - lr weight_decay) w`, then Adam's step.

    Args:
        lr: the peak of the learning rate.
        weight_decay: share of each weight that a step of rate 1 would take away.
        betas: decays of the running means of the gradient and of its square.

    Raises:
        SettingError: a setting is out of range.

    References:
        Loshchilov, Hutter, "Decoupled weight decay regularization", ICLR 2019, https://arxiv.org/abs/1711.05101

    Example:
        >>> AdamW().build(torch.nn.Linear(2, 1).parameters()).param_groups[0]["weight_decay"]
        0.01
    """

    lr: float = 2e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        _check_adam(self, self.betas)

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """`torch.optim.AdamW`."""
        return torch.optim.AdamW(parameters, self.lr, betas=_floats(self.betas), weight_decay=self.weight_decay)


@final
@dataclass(frozen=True, kw_only=True)
class Adam(Optimizer):
    """Adam: `w <- w - lr m / (sqrt(v) + 1e-8)`, m and v running means of the gradient and of its square, without bias.

    Args:
        lr: the peak of the learning rate.
        weight_decay: share of each weight that joins its gradient; `AdamW` keeps the two apart.
        betas: decays of m and v.

    Raises:
        SettingError: a setting is out of range.

    References:
        Kingma, Ba, "Adam: a method for stochastic optimization", ICLR 2015, https://arxiv.org/abs/1412.6980

    Example:
        >>> Adam(lr=1e-3).build(torch.nn.Linear(2, 1).parameters()).param_groups[0]["lr"]
        0.001
    """

    lr: float = 1e-3
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        _check_adam(self, self.betas)

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """`torch.optim.Adam`."""
        return torch.optim.Adam(parameters, self.lr, betas=_floats(self.betas), weight_decay=self.weight_decay)


def _floats(betas: tuple[float, float]) -> tuple[float, float]:
    """As floats, of which torch takes no other two."""
    return float(betas[0]), float(betas[1])


def _check_adam(part: Optimizer, betas: object) -> None:
    check_range(part, "lr", above=True)
    check_range(part, "weight_decay")
    numbers = isinstance(betas, tuple) and len(betas) == 2 and all(isinstance(beta, (int, float)) for beta in betas)
    if not numbers or not all(0 <= beta < 1 for beta in betas):  # type: ignore[attr-defined]  # a tuple by now
        raise SettingError(f"betas of {type(part).__name__} must be two numbers in [0, 1); got {betas!r}.")
