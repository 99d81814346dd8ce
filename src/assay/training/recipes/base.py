"""The interface of training recipes: what one step makes of a batch, before and in its loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeAlias, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.attacks import Attack
from assay.goals import Goal, Untargeted
from assay.threats import Threat
from assay.threats.additive import widened
from assay.training.goals import SoftLabels

Views: TypeAlias = dict[str, Tensor]  # what `prepare` made of a batch, held fixed while the loss is taken


def _alone(tensors: Sequence[Tensor]) -> None:
    """The mean over a single process: nothing changes."""
    del tensors


@final
@dataclass(frozen=True, kw_only=True)
class Batch:
    """One batch of a training step and everything that a recipe may depend on.

    Args:
        x: augmented inputs, `(b, *shape)`.
        y: labels, `(b,)` int64; of mixed inputs the label of the larger part.
        index: the samples' own numbers, `(b,)` int64.
        seed: key of the step's random draws.
        epoch: epochs done so far, with the fraction of this one.
        targets: probabilities to learn in place of `y`, `(b, classes)`, where inputs were mixed.
        label_smoothing: share of each target that is spread over all classes; attacks work against the targets as they
            are.
        eps_share: share of the threat's budget that is in force while it warms up.
        memory: tensors that a recipe carries from step to step (`(b, ...)` each); saved in checkpoints.
        same_weights: whether the loss is taken at the weights that `prepare` sees, so that it may go on with what was
            found there, derivatives and all.
        replay: how often this batch was used before.
        critic: the second network of a `GenerativeRecipe` that has one.
        average: replaces tensors that each process computed on its part of the batch by their mean over the processes,
            in place, as is done with gradients; whatever else moves the weights has to be the same for all of them.

    Shapes:
        All tensors lie on the device of the model.
    """

    x: Tensor
    y: Tensor
    index: Tensor
    seed: int = 0
    epoch: float = 0.0
    targets: Tensor | None = None
    label_smoothing: float = 0.0
    eps_share: float = 1.0
    memory: dict[str, Tensor] = field(default_factory=dict)
    same_weights: bool = True
    replay: int = 0
    critic: nn.Module | None = None
    average: Callable[[Sequence[Tensor]], None] = _alone

    def cross_entropy(self, logits: Tensor, *, reduction: str = "mean") -> Tensor:
        """Cross-entropy with the labels, mixed and smoothed as the batch says; a mean, or one value per sample.

        It is taken in single precision at least, whatever the precision of the logits.
        """
        wanted = self.y if self.targets is None else self.targets
        return F.cross_entropy(widened(logits), wanted, reduction=reduction, label_smoothing=self.label_smoothing)

    def goal(self) -> Goal:
        """What an attack on this batch works against: the labels, or the mixed targets."""
        return Untargeted(self.y) if self.targets is None else SoftLabels(self.targets)

    def perturb(
        self, model: nn.Module, attack: Attack, goal: Goal | None = None, *, train_mode: bool = False
    ) -> Tensor:
        """Inputs moved by an attack whose eps has warmed up as far as this step has; detached.

        Args:
            model: the network in training; its parameters' gradients and its mode are left as they are.
            attack: the search.
            goal: what it works for; `goal()` when None.
            train_mode: run the attack's passes in train mode, where they move the statistics of batch norm.
        """
        with mode(model, train=train_mode):
            return warmed(attack, self.eps_share).perturb(
                model, self.x, self.goal() if goal is None else goal, seed=self.seed, index=self.index
            )


class Recipe(ABC):
    """What a training step minimises. Subclasses are frozen dataclasses.

    One step is: `views = prepare(model, batch)`, the search for adversarial inputs, which moves no parameter;
    `loss(model, batch, views)`, a scalar whose gradient is the step, taken within `around(...)`; then `after(...)`.

    Attributes:
        replays: how often each batch is used in turn, each time with a step of the optimizer.
        teacher: the model that it learns from, as it is named for `load_model`; None where it has to be trained first,
            as `first()` says, or where there is none.
        second_order: whether the loss holds gradients, so that the step needs second derivatives of the network.
    """

    second_order: ClassVar[bool] = False
    replays: int = 1
    teacher: str | None = None

    @property
    def against(self) -> Threat | None:
        """What the recipe defends against, its own threat or its attack's; None for nothing in particular."""
        holder = getattr(self, "attack", self)
        threat: Threat | None = getattr(holder, "threat", None)
        return threat

    @property
    def threats(self) -> tuple[Threat, ...]:
        """All threats that it defends against; the worst of them counts."""
        return () if self.against is None else (self.against,)

    @property
    def defends(self) -> bool:
        """Whether robust accuracy tells how well the recipe does its work."""
        return bool(self.threats)

    def first(self) -> Recipe | None:
        """The recipe that the teacher has to be trained with before this one; None where nothing comes first."""
        return None

    def with_teacher(self, model: nn.Module) -> Recipe:
        """This recipe, learning from that model: the trained one of `first()`, or the one that `teacher` names."""
        del model
        return self

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The adversarial inputs of a step; nothing by default."""
        del model, batch
        return {}

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """The loss of a step, a scalar: the mean over the batch, with its graph."""

    def around(self, model: nn.Module, batch: Batch, views: Views) -> Any:
        """A context in which the loss, its gradient and the step are taken, such as moved weights; empty by default."""
        del model, batch, views
        return nullcontext()

    def after(self, model: nn.Module, batch: Batch, views: Views) -> None:
        """What is left to do once the gradients are known; nothing by default."""
        del model, batch, views


def warmed(attack: Attack, share: float) -> Attack:
    """The same attack with this share of its eps."""
    if share == 1.0:
        return attack
    own: Any = attack  # a frozen dataclass: every attack is one
    if not any(each.name == "threat" for each in fields(own)):  # a wrapper has that of its inner attack
        return cast("Attack", replace(own, attack=warmed(own.attack, share)))
    return cast("Attack", replace(own, threat=warmed_threat(attack.threat, share)))


def warmed_threat(threat: Threat, share: float) -> Threat:
    """The same threat with this share of its eps."""
    return threat if threat.eps is None else threat.with_eps(threat.eps * share)


@contextmanager
def mode(model: nn.Module, *, train: bool) -> Iterator[None]:
    """All submodules in train or eval mode; each one's own flag afterwards."""
    flags = [(module, module.training) for module in model.modules()]
    model.train(train)
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Buffers, such as the statistics of batch norm, as they were before."""
    saved = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, before in saved:
                buffer.copy_(before)
