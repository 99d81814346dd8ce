"""The loop: every recipe, network, optimizer and number of processes goes through these steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_

from assay.errors import SettingError
from assay.rng import Keyed, derive
from assay.training.critic import Critic
from assay.training.feed import Feed
from assay.training.finite import agreed
from assay.training.folder import Row
from assay.training.memory import enough_memory
from assay.training.recipes import Batch, GenerativeRecipe, Views
from assay.training.settings import Settings
from assay.training.workers import Workers


@final
@dataclass(kw_only=True)
class Progress:
    """How far a run has come: everything in it is part of the checkpoint.

    Args:
        step: batches done.
        loss: sum of the losses of this epoch's steps.
        seconds: time spent on training, validation left out, in this epoch.
        total: time spent on the run in all attempts.
        history: one row per epoch done.
        best: the row of the best epoch.
        weights: the network of the best epoch.
        stopped: why the run ended before its last epoch; empty otherwise.
    """

    step: int = 0
    loss: float = 0.0
    seconds: float = 0.0
    total: float = 0.0
    history: list[Row] = field(default_factory=list)
    best: Row | None = None
    weights: dict[str, Tensor] = field(default_factory=dict)
    stopped: str = ""


@final
class Fit:
    """One network in training.

    Args:
        model: the network, on the device, trained in place.
        feed: its batches.
        settings: how, and by which recipe.
        workers: with whom.
        classes: number of classes, for targets of mixed inputs; None where there are none.

    Attributes:
        recipe: what a step minimises.
        progress: how far the run has come.
        critic: the second network, where the recipe has one.
        whole: whether the state is one between two steps, which a run can be taken up at.
        due: whether this process wants a checkpoint after the next step.
        asked_to_stop: whether this process wants the run to end after the present step.
        agreed: whether all processes shall write a checkpoint now: one of them wanted it.
    """

    def __init__(self, model: nn.Module, feed: Feed, settings: Settings, workers: Workers, classes: int | None) -> None:
        self.model, self.feed, self.settings, self.workers = model, feed, settings, workers
        self.recipe = settings.recipe
        self.classes = classes
        self.net: nn.Module = torch.compile(model) if settings.compile else model  # type: ignore[assignment]
        self.optimizer = settings.optimizer.build([p for p in model.parameters() if p.requires_grad])
        self.average = settings.average.start(model) if settings.average else None
        like = feed.data.batch(0, 1)[0].to(workers.device, workers.dtype)
        self.critic = Critic.of(self.recipe, model, like, settings.seed, workers)
        self.memory: dict[str, Tensor] = {}
        self.progress = Progress()
        self.steps = settings.epochs * feed.steps
        self.whole = True
        self.due = self.asked_to_stop = self.agreed = self._stopping = False

    @property
    def judged(self) -> nn.Module:
        """The network that is measured and kept: the averaged one where weights are averaged."""
        return self.model if self.average is None else self.average.module

    @property
    def epoch(self) -> int:
        """The epoch that is under way: the number of those that have ended."""
        return len(self.progress.history)

    @property
    def taken(self) -> int:
        """Steps done of this epoch."""
        return self.progress.step - self.epoch * self.feed.steps

    def steps_left(self) -> Iterator[None]:
        """Do the steps that are left of this epoch.

        Raises:
            TrainingError: the loss is no finite number any more, or the device has too little memory.
            KeyboardInterrupt: one of the processes was asked to stop; the step that it was in is done.
        """
        batches = self.feed.epoch(self.epoch, self.taken)
        done = self.progress
        while True:
            began = time.perf_counter()
            parts = next(batches, None)
            if parts is None:
                return
            if self._stopping or (self.asked_to_stop and self.workers.world == 1):
                raise KeyboardInterrupt
            self.whole = False
            with enough_memory(f"a batch of {len(parts[0])}"):
                loss = self._batch(*parts)
            spent = time.perf_counter() - began
            done.step, done.loss = done.step + 1, done.loss + loss
            done.seconds, done.total = done.seconds + spent, done.total + spent
            self.whole = True
            yield

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        return self.settings.optimizer.lr * self._share(step)

    def _share(self, step: int) -> float:
        return self.settings.schedule.at((step + 0.5) / self.steps)

    def _batch(self, x: Tensor, y: Tensor, index: Tensor) -> float:
        step, settings = self.progress.step, self.settings
        x, targets = self._augmented(x, y, index)
        if settings.channels_last and x.ndim == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        epoch = step / self.feed.steps
        share = min(1.0, (epoch + 1 / self.feed.steps) / settings.warmup) if settings.warmup else 1.0
        losses = [
            self._step(
                Batch(
                    x=x,
                    y=y,
                    index=index,
                    seed=derive(settings.seed, "step", step, replay),
                    epoch=epoch,
                    targets=targets,
                    label_smoothing=settings.label_smoothing,
                    eps_share=share,
                    memory=self.memory,
                    average=self.workers.average_all,
                    replay=replay,
                    critic=None if self.critic is None else self.critic.net,
                )
            )
            for replay in range(self.recipe.replays)
        ]
        return sum(losses) / len(losses)

    def _augmented(self, x: Tensor, y: Tensor, index: Tensor) -> tuple[Tensor, Tensor | None]:
        targets: Tensor | None = None
        key = derive(self.settings.seed, "augment", self.progress.step)
        for place, part in enumerate(self.settings.augment):
            x, targets = part(x, y, targets, Keyed(derive(key, place), index), classes=self.classes or 0)
        return x, targets

    def _step(self, batch: Batch) -> float:
        """One step of the optimizer."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(self.progress.step)
        self.workers.seed(batch.seed)  # dropout is a function of the step
        self.net.train()
        with self.workers.autocast():
            views = self.recipe.prepare(self.net, batch)
        self._critic_steps(batch, views)
        held = nullcontext() if self.critic is None else self.critic.held()
        # Anew: some versions of torch keep weights that were cast while no gradient was wanted, and use them again.
        with self.workers.autocast(), held, self.recipe.around(self.net, batch, views):
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.recipe.loss(self.net, batch, views)
            torch.autograd.backward(loss)
            self.recipe.after(self.net, batch, views)
            value = self._checked(loss)
            self.optimizer.step()
        if self.average is not None:
            self.average.update(self.model, (self.progress.step + 1) / self.steps)
        return value

    def _critic_steps(self, batch: Batch, views: Views) -> None:
        if self.critic is None or not isinstance(self.recipe, GenerativeRecipe):
            return
        self.critic.net.train()
        share = self._share(self.progress.step)
        with self.workers.autocast():
            for loss in self.recipe.critic_losses(self.net, batch, views):
                self.critic.step(loss, share, self._where)

    @property
    def _where(self) -> str:
        return f"step {self.progress.step + 1} (epoch {self.epoch + 1})"

    def _checked(self, loss: Tensor) -> float:
        """The loss as a number, once gradients are the mean over all processes and clipped; both are finite."""
        told = torch.cat([loss.detach().reshape(1), loss.new_tensor([self.due, self.asked_to_stop])])
        (value, due, stop), length = agreed(self.model, told, self.workers, self._where)
        self.agreed, self._stopping = due > 0, stop > 0
        if self.settings.clip is not None:
            own = [p for p in self.model.parameters() if p.requires_grad and p.grad is not None]
            clip_grads_with_norm_(own, self.settings.clip, length)
        return value

    def state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on."""
        done = self.progress
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "critic": None if self.critic is None else self.critic.state(),
            "memory": self.workers.joined(self.memory),
            "progress": dict(vars(done)),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a run where a checkpoint was written.

        Raises:
            SettingError: the checkpoint is one of another network.
        """
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            if self.critic is not None:
                self.critic.restore(state["critic"])
        except (RuntimeError, ValueError) as error:
            raise SettingError(f"the checkpoint is one of another network: {error}") from error
        self.memory.clear()
        self.memory.update(self.workers.own(state["memory"]))
        self.progress = Progress(**state["progress"])
