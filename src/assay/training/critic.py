"""The second network of a run, which its first one is trained against: a critic with an optimizer of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn

from assay.rng import derive
from assay.training.finite import agreed
from assay.training.optimizers import Optimizer
from assay.training.recipes.generative import GenerativeRecipe
from assay.training.workers import Workers


@final
class Critic:
    """A critic in training.

    Args:
        net: the network, on the device.
        optimizer: what moves it.
        workers: with whom.
    """

    def __init__(self, net: nn.Module, optimizer: Optimizer, workers: Workers) -> None:
        self.net, self.workers, self.lr = net, workers, optimizer.lr
        self._parameters = [p for p in net.parameters() if p.requires_grad]
        self.optimizer = optimizer.build(self._parameters)

    @classmethod
    def of(cls, recipe: object, model: nn.Module, x: Tensor, seed: int, workers: Workers) -> Critic | None:
        """The critic that a recipe asks for, with weights that depend on the seed alone; None where it asks for none.

        Args:
            recipe: of the run.
            model: the network in training.
            x: inputs, on the device.
            seed: of the run.
            workers: with whom.
        """
        if not isinstance(recipe, GenerativeRecipe):
            return None
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, "critic"))
            found = recipe.critic(model, x)
        if found is None:
            return None
        net = found[0].to(workers.device, workers.dtype)
        workers.same_start(net)
        return cls(net, found[1], workers)

    def step(self, loss: Tensor, share: float, where: str) -> None:
        """A step of the optimizer along the gradient of a loss, averaged over the processes.

        Args:
            loss: a scalar with its graph.
            share: of the peak rate that is in force.
            where: which step it is, for people.

        Raises:
            DivergedError: loss or gradient is not finite; no step is made.
        """
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss, inputs=self._parameters)
        agreed(self.net, loss.detach().reshape(1), self.workers, f"the critic's step before {where}")
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * share
        self.optimizer.step()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Its parameters take no gradients for this time, in which the network's own loss is taken."""
        for p in self._parameters:
            p.requires_grad_(False)
        try:
            yield
        finally:
            for p in self._parameters:
                p.requires_grad_(True)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
