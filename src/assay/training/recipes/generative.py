"""The interface of recipes that train no classifier: autoencoders, densities and generators, some against a critic."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar, final

from torch import Tensor, nn

from assay.threats import Threat
from assay.training.optimizers import Optimizer
from assay.training.recipes.base import Batch, Recipe, Views


class GenerativeRecipe(Recipe):
    """What a step of training a generative network minimises. Subclasses are frozen dataclasses.

    Labels, clean and robust accuracy play no part: after each epoch the mean of `measure` over held-out samples is told
    under the name of `quality`, and the epoch in which it is lowest is the best.

    Where `critic` gives a second network, the steps of its own optimizer come between `prepare` and `loss`: one for
    each loss that `critic_losses` yields. Its weights and the moments of its optimizer are part of the checkpoint, and
    are not kept with the trained network.

    Attributes:
        quality: what is measured, in at most 16 characters; the lower the better.
        trains: the kind of network that it trains.
    """

    quality: ClassVar[str]
    trains: ClassVar[type[nn.Module]] = nn.Module

    @property
    @final
    def against(self) -> Threat | None:
        """Nothing: robust accuracy is that of a classifier."""
        return None

    @abstractmethod
    def check(self, model: nn.Module, x: Tensor) -> None:
        """Hold that network and inputs go together, before training.

        Args:
            model: the network, in eval mode, without gradients.
            x: two inputs, or one.

        Raises:
            ModelError: they do not.
        """

    @abstractmethod
    def measure(self, model: nn.Module, batch: Batch) -> Tensor:
        """The quality on each sample of a held-out batch, `(b,)`; the network is in eval mode, without gradients."""

    def critic(self, model: nn.Module, x: Tensor) -> tuple[nn.Module, Optimizer] | None:
        """The second network, untrained, and its optimizer, whose rate follows the run's schedule; none by default.

        Args:
            model: the network in training.
            x: inputs, for their shape.
        """
        del model, x
        return None

    def critic_losses(self, model: nn.Module, batch: Batch, views: Views) -> Iterator[Tensor]:
        """The losses of the critic's steps, which come before the network's own; each is taken after the step before.

        `batch.critic` is the critic. Only its parameters get gradients here, and only the network's in `loss`.
        """
        del model, batch, views
        yield from ()
