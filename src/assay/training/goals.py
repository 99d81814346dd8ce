"""Goals that only training has: away from mixed labels, and away from the network's own answer."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.errors import InputError
from assay.goals import Goal


class _Distribution(Goal):
    """What goals share that hold a distribution over classes for each sample."""

    def __init__(self, probabilities: Tensor) -> None:
        if probabilities.ndim != 2 or not probabilities.is_floating_point():
            raise InputError(
                f"{type(self).__name__} needs probabilities of shape (b, classes); got {probabilities.dtype} of shape "
                f"{tuple(probabilities.shape)}."
            )
        self.probabilities = probabilities.detach()

    def __len__(self) -> int:
        return len(self.probabilities)

    def at(self, rows: Tensor) -> Goal:
        """The goal of a part of the batch."""
        return type(self)(self.probabilities[rows])

    def to(self, device: torch.device) -> Goal:
        """The same goal on another device."""
        return type(self)(self.probabilities.to(device))

    def labels(self, output: Any) -> Tensor:
        """The classes of the highest logits."""
        decided: Tensor = output.argmax(dim=1)
        return decided

    def reached(self, output: Any) -> Tensor:
        """Where the decision is another than the likeliest class."""
        return self.reached_labels(self.labels(output))

    def reached_labels(self, labels: Tensor) -> Tensor:
        """Where these decisions are other than the likeliest class."""
        return labels != self.probabilities.argmax(dim=1)


@final
class SoftLabels(_Distribution):
    """Away from a distribution over classes: the loss is the cross-entropy `-sum_k p_k log softmax(z)_k`.

    Args:
        probabilities: `(b, classes)`.

    Raises:
        InputError: they are no floating-point matrix.

    Example:
        >>> SoftLabels(torch.tensor([[0.5, 0.5]])).loss(torch.zeros(1, 2)).exp()
        tensor([2.])
    """

    def loss(self, output: Any) -> Tensor:
        """Cross-entropy of each sample."""
        return F.cross_entropy(output, self.probabilities.to(output.dtype), reduction="none")


@final
class Divergence(_Distribution):
    """Away from the network's answer on the clean input: the loss is `KL(p || softmax(z))`.

    Args:
        probabilities: the answers `softmax(f(x))`, `(b, classes)`; no gradient flows into them.

    Raises:
        InputError: they are no floating-point matrix.

    References:
        Zhang, Yu, Jiao, Xing, El Ghaoui, Jordan, "Theoretically principled trade-off between robustness and accuracy",
        ICML 2019, https://arxiv.org/abs/1901.08573

    Example:
        >>> Divergence(torch.tensor([[0.5, 0.5]])).loss(torch.zeros(1, 2))
        tensor([0.])
    """

    def loss(self, output: Any) -> Tensor:
        """Kullback-Leibler divergence of each sample."""
        return F.kl_div(output.log_softmax(dim=1), self.probabilities.to(output.dtype), reduction="none").sum(dim=1)
