"""Averages of a network's weights over training, kept in a second network of the same kind."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from assay.training.ranges import check_range


@final
class Averaged:
    """The average so far.

    Args:
        rule: how weights are averaged.
        model: the network in training; it is copied.

    Attributes:
        module: a network with the averaged weights, in eval mode; its parameters take no gradients.
        count: how often the weights were taken into the average.
    """

    def __init__(self, rule: Average, model: nn.Module) -> None:
        self.rule = rule
        self.module = copy.deepcopy(model).eval().requires_grad_(False)
        self.module.zero_grad(set_to_none=True)
        self.count = 0

    def update(self, model: nn.Module, progress: float) -> None:
        """Take in the weights after a step.

        Args:
            model: the network in training, wrapped or not.
            progress: share of training that is done, in [0, 1].
        """
        self.rule.update(self, model, progress)

    def settle(self, batches: Iterable[Tensor]) -> None:
        """Make the averaged network ready once training has ended.

        Args:
            batches: training inputs, on the device of the network.
        """
        self.rule.settle(self, batches)

    @torch.no_grad()
    def take(self, model: nn.Module, weight: float) -> None:
        """Move the average by this share of the way to the weights and floating buffers; copy what is counted."""
        mine: list[Tensor] = []
        theirs: list[Tensor] = []
        for average, now in zip(_tensors(self.module), _tensors(model), strict=True):
            if weight < 1 and average.is_floating_point():
                mine.append(average.detach())
                theirs.append(now.detach().to(average))
            else:
                average.copy_(now)
        if mine:
            torch._foreach_lerp_(mine, theirs, weight)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"count": self.count, "module": self.module.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.count = int(state["count"])
        self.module.load_state_dict(state["module"])


@dataclass(frozen=True, kw_only=True)
class Average(ABC):
    """How weights are averaged. Subclasses are frozen dataclasses; what they have seen is in `Averaged`."""

    def start(self, model: nn.Module) -> Averaged:
        """The average before the first step: the network as it is."""
        return Averaged(self, model)

    @abstractmethod
    def update(self, holder: Averaged, model: nn.Module, progress: float) -> None:
        """Move the average so far in place, see `Averaged.update`."""

    def settle(self, holder: Averaged, batches: Iterable[Tensor]) -> None:
        """Make the averaged network ready in place, see `Averaged.settle`; nothing by default."""
        del holder, batches


@final
@dataclass(frozen=True, kw_only=True)
class EMA(Average):
    """Exponential moving average: after step t `a <- a + (1 - d) (w - a)` with `d = min(decay, (1 + t) / (10 + t))`.

    Floating buffers, such as the statistics of batch norm, are averaged in the same way, and counters are copied.

    Args:
        decay: the largest share of the average that a step keeps; t counts from 0.

    Raises:
        SettingError: it is out of range.

    Deviations:
        The decay grows to its value, so that short trainings are not an average of random weights; a fixed decay would
        leave `decay ** steps` of the first weights.

    References:
        Polyak, Juditsky, "Acceleration of stochastic approximation by averaging", SIAM Journal on Control and
        Optimization 1992, https://doi.org/10.1137/0330046
        Gowal, Qin, Uesato, Mann, Kohli, "Uncovering the limits of adversarial training against norm-bounded adversarial
        examples", 2020, https://arxiv.org/abs/2010.03593 (in adversarial training).

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> holder = EMA(decay=0.9).start(model)
        >>> _ = nn.init.zeros_(holder.module.weight), nn.init.ones_(model.weight)
        >>> holder.update(model, 0.5)
        >>> round(float(holder.module.weight), 4)  # d = 1/10
        0.9
    """

    decay: float = 0.998

    def __post_init__(self) -> None:
        check_range(self, "decay", high=1, below=True)

    def update(self, holder: Averaged, model: nn.Module, progress: float) -> None:
        """One step of the average."""
        del progress
        holder.take(model, 1 - min(self.decay, (1 + holder.count) / (10 + holder.count)))
        holder.count += 1


@final
@dataclass(frozen=True, kw_only=True)
class SWA(Average):
    """Stochastic weight averaging: the plain mean of the weights after every step of the last part of training.

    Until then the average is the network, statistics and all. From then on `settle` computes the statistics of batch
    norm for the averaged weights.

    Args:
        start_at: share of training at which averaging starts.

    Raises:
        SettingError: it is out of range.

    Deviations:
        The paper takes the weights in once an epoch; here every step does. Its statistics of batch norm are those of a
        pass over the training data; here those of at most 100 batches, clean and without augmentation.

    References:
        Izmailov, Podoprikhin, Garipov, Vetrov, Wilson, "Averaging weights leads to wider optima and better
        generalization", UAI 2018, https://arxiv.org/abs/1803.05407
        Chen, Zhang, Liu, Chang, Wang, "Robust overfitting may be mitigated by properly learned smoothening", ICLR 2021,
        https://openreview.net/forum?id=qZzy5urZw9 (in adversarial training).

    Example:
        >>> model = nn.Linear(1, 1, bias=False)
        >>> holder = SWA(start_at=0.5).start(model)
        >>> for progress, weight in ((0.4, 7.0), (0.5, 1.0), (0.6, 2.0)):
        ...     _ = nn.init.constant_(model.weight, weight)
        ...     holder.update(model, progress)
        >>> float(holder.module.weight)
        1.5
    """

    start_at: float = 0.75

    def __post_init__(self) -> None:
        check_range(self, "start_at", high=1, below=True)

    def update(self, holder: Averaged, model: nn.Module, progress: float) -> None:
        """One more term of the mean, or a copy before it starts."""
        holder.take(model, 1 / (holder.count + 1))
        if progress >= self.start_at:
            holder.count += 1

    @torch.no_grad()
    def settle(self, holder: Averaged, batches: Iterable[Tensor]) -> None:
        """Statistics of batch norm: the means of those of the batches, with all else in eval mode.

        Layers without such statistics stay as they are, and no batch is asked for where there are none with them, or
        where averaging has not started.
        """
        model = holder.module
        layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        if not layers or not holder.count:
            return
        modes = [(module, module.training) for module in model.modules()]
        momenta = [layer.momentum for layer in layers]
        try:
            model.eval()
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # the cumulative mean
                layer.training = True
            for x in batches:
                model(x)
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
            for module, mode in modes:
                module.training = mode


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return chain(model.parameters(), model.buffers())
