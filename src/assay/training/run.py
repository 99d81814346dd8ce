"""One run of training from its first step, or from where it was stopped, to the network that is kept."""

from __future__ import annotations

import copy
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

import torch
from torch import nn

from assay.data import Data
from assay.data.parts import split
from assay.errors import LostProcessError, SettingError, StoreError, TrainingError
from assay.evaluation.prepare import environment
from assay.evaluation.summary import Evaluation
from assay.models.load import load_model
from assay.rng import derive
from assay.training import tensorboard
from assay.training.display import Display, say
from assay.training.feed import Feed
from assay.training.fit import Fit
from assay.training.folder import Folder, Row, read_checkpoint
from assay.training.interrupt import between_steps
from assay.training.judge import Judge
from assay.training.keep import keep_model, network
from assay.training.matching import check_generative, check_teacher, number_of_classes
from assay.training.report import render
from assay.training.settings import Settings
from assay.training.workers import Workers

_EVERY = 300.0  # seconds between two checkpoints within an epoch


@final
@dataclass(frozen=True, kw_only=True)
class Training:
    """What a training run gave.

    Attributes:
        model: the trained network, in eval mode: the same object that was given.
        history: one row per epoch: loss, clean and robust accuracy on held-out samples, speed.
        best: the row of the epoch whose weights the network has; None where nothing was measured.
        path: the run's folder, which is a MODEL for every command; None where none was given.
        stopped: why training ended before its last epoch; empty otherwise.
        evaluation: of the kept network on test data, where there was any.
    """

    model: nn.Module
    history: list[Row]
    best: Row | None
    path: Path | None
    stopped: str
    evaluation: Evaluation | None = None

    @property
    def clean_accuracy(self) -> float | None:
        """Share of right decisions on held-out samples."""
        return None if self.best is None else self.best["clean"]

    @property
    def robust_accuracy(self) -> float | None:
        """Share that PGD-10 leaves of it."""
        return None if self.best is None else self.best["robust"]

    @property
    def quality(self) -> float | None:
        """What the recipe of a generative network measures on held-out samples; the lower the better."""
        return None if self.best is None else self.best["quality"]


@final
class Run:
    """Network, data, settings and processes, checked and ready to go.

    Args:
        model: the network, an expression of one, or a MODEL.
        data: all samples, those included that are held out for measuring.
        extra: further samples.
        settings: how.
        workers: with whom.

    Raises:
        AssayError: the named error of what does not fit together.
    """

    def __init__(
        self, model: nn.Module | str, data: Data, extra: Data | None, settings: Settings, workers: Workers
    ) -> None:
        self.settings, self.workers, self.data = settings, workers, data
        built, self.text = network(model, settings.seed)
        self.model = built.to(workers.device, workers.dtype)
        if settings.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if settings.validation >= len(data):
            raise SettingError(f"validation={settings.validation} leaves nothing of {len(data)} samples to train on.")
        training = data
        held: Data | None = None
        if settings.validation:
            key = derive(settings.seed, "validation")
            training, held = split(data, len(data) - settings.validation, seed=key)
        self.feed = Feed(
            data=training,
            batch=settings.batch,
            seed=settings.seed,
            rank=workers.rank,
            world=workers.world,
            extra=extra,
            extra_share=settings.extra_share,
            device=workers.device,
            dtype=workers.dtype,
        )
        known = (data,) if extra is None else (data, extra)
        classes = None
        if settings.generative is None:
            classes = number_of_classes(self.model, self.name, known, settings.measured, workers)
        else:
            check_generative(self.model, self.name, known, settings.generative, workers)
        workers.same_start(self.model)
        self.fit = Fit(self.model, self.feed, settings, workers, classes)
        self.judge = Judge(self.fit, held)

    def check(self, test: Data) -> None:
        """Hold that the network takes test data too.

        Args:
            test: what it is evaluated on in the end.

        Raises:
            AssayError: inputs are out of bounds, labels beyond the classes, or the network cannot take them.
        """
        number_of_classes(self.model, self.name, (test,), self.settings.measured, self.workers)

    @property
    def name(self) -> str:
        """What messages and records call the network."""
        return self.text or type(self.model).__name__

    def go(self, out: Path | None, *, resume: bool, overwrite: bool, show: bool) -> Training:
        """Train, measure after each epoch, and keep what there is.

        Args:
            out: the folder of the run; None keeps nothing.
            resume: continue the run that is there.
            overwrite: replace it.
            show: tell people how it goes.

        Raises:
            TrainingError: it cannot go on; what was reached is kept.
            StoreError: the folder cannot be used.
        """
        cards = [self.workers.device] if self.workers.device.type == "cuda" else []
        with torch.random.fork_rng(cards), torch.enable_grad():
            return self._go(out, resume=resume, overwrite=overwrite, show=show)

    def _go(self, out: Path | None, *, resume: bool, overwrite: bool, show: bool) -> Training:
        first = self.workers.rank == 0
        folder = self._folder(out, resume=resume, overwrite=overwrite) if out is not None and first else None
        self.workers.wait()  # nobody reads a checkpoint before the folder is ready
        self._find_teacher(out, resume=resume, overwrite=overwrite, show=show)
        state = read_checkpoint(out) if out is not None and resume else None
        if state is None:
            self._save(folder)
        else:
            self.fit.restore(state)
        done = self.fit.progress
        quality = None if self.settings.generative is None else self.settings.generative.quality
        size = self.settings.epochs, self.feed.steps, self.settings.batch
        with Display(*size, quality=quality, show=show and first) as display:
            for row in done.history:
                display.epoch(row)
            try:
                with between_steps(self.fit):
                    self._epochs(folder, display)
            except (TrainingError, StoreError, KeyboardInterrupt) as error:
                self._stopped(folder, error, display)
                raise
            if done.stopped:
                display.say(done.stopped)
        return self._finished(folder, out)

    def _find_teacher(self, out: Path | None, *, resume: bool, overwrite: bool, show: bool) -> None:
        """Load what the recipe learns from, or train it first."""
        recipe = self.settings.recipe
        if recipe.teacher is not None:
            teacher = load_model(recipe.teacher, device=self.workers.device).to(self.workers.dtype)
            check_teacher(teacher, recipe.teacher, self.data, self.settings.measured, self.fit.classes, self.workers)
            self.fit.recipe = recipe.with_teacher(teacher)
        elif (before := recipe.first()) is not None:
            alike = copy.deepcopy(self.model) if self.text is None else self.text
            settings = replace(self.settings, recipe=before)
            place = None if out is None else out / "teacher"
            first = Run(alike, self.data, self.feed.extra, settings, self.workers)
            if show and self.workers.rank == 0:
                say(f"the teacher first: {before!r}")
            taught = first.go(place, resume=resume, overwrite=overwrite, show=show)
            self.fit.recipe = recipe.with_teacher(taught.model)

    def _folder(self, out: Path, *, resume: bool, overwrite: bool) -> Folder:
        settings = {
            "model": self.name,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "data": self.data.name,
            "data_digest": self.data.fingerprint(),
            "samples": len(self.data),
            "extra": None if self.feed.extra is None else self.feed.extra.name,
            "extra_digest": None if self.feed.extra is None else self.feed.extra.fingerprint(),
            **self.settings.record(),
        }
        around = dict(environment(self.workers.device)) | {"processes": self.workers.world}
        folder = Folder.begin(out, settings, around, resume=resume, overwrite=overwrite)
        if Workers.restarted() and folder.run["state"] == "failed":
            raise TrainingError(folder.run["error"])  # it would fail again
        recipe = self.settings.generative
        measured = [repr(threat) for threat in self.settings.measured]
        folder.save(state="running", measured=measured, quality=None if recipe is None else recipe.quality)
        return folder

    def _epochs(self, folder: Folder | None, display: Display) -> None:
        done = self.fit.progress
        saved = time.monotonic()
        while self.fit.epoch < self.settings.epochs and not done.stopped:
            for _ in self.fit.steps_left():
                display.step(done.step, done.loss / self.fit.taken, done.seconds, done.total)
                if self.fit.agreed:
                    self._save(folder)
                    saved = time.monotonic()
                self.fit.due = time.monotonic() - saved > _EVERY
            display.epoch(self.judge.end_epoch())
            if warning := self.judge.warning():
                display.say(warning)
            if folder is not None:
                folder.write_metrics(done.history)
                tensorboard.note(folder.path, done.history[-1])
                self._keep(folder)
            self._save(folder)
            saved = time.monotonic()

    def _keep(self, folder: Folder) -> None:
        weights, row = self.judge.chosen()
        keep_model(folder, weights, self.text, self.settings, self.data, row)

    def _save(self, folder: Folder | None) -> None:
        state = self.fit.state()  # every process has a part in it
        if folder is not None:
            folder.write_checkpoint(state)

    def _stopped(self, folder: Folder | None, error: BaseException, display: Display) -> None:
        """Keep what there is, and say how to go on."""
        failed = isinstance(error, TrainingError) and not isinstance(error, LostProcessError)
        together = self.workers.world == 1 or isinstance(error, KeyboardInterrupt)
        if self.fit.whole and together:
            with suppress(StoreError):  # the disk may be what failed
                self._save(folder)
        if folder is None:
            return
        with suppress(StoreError):
            folder.save(state="failed" if failed else "interrupted", error=str(error))
            render(folder.path)
        done = self.fit.progress
        if done.history:
            display.say(f"the network after epoch {done.history[-1]['epoch']} is kept in {folder.path}.")
        if not failed:
            display.say(f"--resume goes on from the checkpoint; {done.step} of {self.fit.steps} steps were done.")

    def _finished(self, folder: Folder | None, out: Path | None) -> Training:
        done = self.fit.progress
        weights, row = self.judge.chosen()
        self.model.load_state_dict(weights)
        self.model.eval().zero_grad(set_to_none=True)
        if folder is not None:
            self._keep(folder)
            folder.save(state="done", results={"best": row, "last": done.history[-1], "stopped": done.stopped})
            render(folder.path)
        self.workers.wait()
        return Training(model=self.model, history=done.history, best=row, path=out, stopped=done.stopped)
