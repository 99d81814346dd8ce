"""Goals that only training has: away from mixed labels or the network's own answer, and up a measure of the inputs."""

from __future__ import annotations

from collections.abc import Callable
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


@final
class Largest(Goal):
    """Where a measure of the moved inputs is largest: the loss is that measure; no decision is asked for.

    Args:
        measure: from the model, moved inputs `(n, *shape)` and their samples' places in the batch, `(n,)`, to one value
            each, with the way back to the inputs.
        rows: the places of the samples.

    Example:
        >>> import assay
        >>> attack = assay.attacks.PGD(threat=assay.Linf(0.1), steps=3)
        >>> goal = Largest(lambda model, x, rows: x.flatten(1).sum(dim=1), torch.arange(2))
        >>> attack.perturb(None, torch.full((2, 1), 0.5), goal)
        tensor([[0.6000],
                [0.6000]])
    """

    def __init__(self, measure: Callable[[Any, Tensor, Tensor], Tensor], rows: Tensor) -> None:
        self._measure, self._rows = measure, rows

    def __len__(self) -> int:
        return len(self._rows)

    def at(self, rows: Tensor) -> Goal:
        """The goal of a part of the batch."""
        return Largest(self._measure, self._rows[rows])

    def to(self, device: torch.device) -> Goal:
        """The same goal on another device."""
        return Largest(self._measure, self._rows.to(device))

    def seen(self, model: Any, x: Tensor) -> Tensor:
        """The measure."""
        return self._measure(model, x, self._rows)

    def loss(self, output: Any) -> Tensor:
        """The measure itself."""
        value: Tensor = output
        return value

    def labels(self, output: Any) -> Tensor:
        """None: -1."""
        return torch.full_like(self._rows, -1)

    def reached(self, output: Any) -> Tensor:
        """Never: there may always be more."""
        return self.reached_labels(self._rows)

    def reached_labels(self, labels: Tensor) -> Tensor:
        """Never."""
        return torch.zeros_like(labels, dtype=torch.bool)
