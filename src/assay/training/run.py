"""One run of training from its first step, or from where it was stopped, to the network that is kept."""

from __future__ import annotations

import copy
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import final

import torch
from torch import Tensor, nn

from assay.data import Data
from assay.data.parts import split
from assay.errors import AssayError, ModelError, SettingError, StoreError, TrainingError
from assay.evaluation.prepare import environment
from assay.goals import Untargeted
from assay.inputs import check_classes, check_inputs
from assay.models.load import load_model
from assay.rng import derive
from assay.training.display import Display, say
from assay.training.feed import Feed
from assay.training.fit import Fit
from assay.training.folder import Folder, Row, read_checkpoint
from assay.training.keep import keep_model, network
from assay.training.recipes.base import mode
from assay.training.settings import Settings
from assay.training.validation import STEPS, Measured, measure
from assay.training.workers import Workers

_EVERY = 300.0  # seconds between two checkpoints within an epoch
_SETTLED = 100  # batches that settle the statistics of averaged weights


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
    """

    model: nn.Module
    history: list[Row]
    best: Row | None
    path: Path | None
    stopped: str

    @property
    def clean_accuracy(self) -> float | None:
        """Share of right decisions on held-out samples."""
        return None if self.best is None else self.best["clean"]

    @property
    def robust_accuracy(self) -> float | None:
        """Share that PGD-10 leaves of it."""
        return None if self.best is None else self.best["robust"]


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
        self.held: Data | None = None
        if settings.validation:
            key = derive(settings.seed, "validation")
            training, self.held = split(data, len(data) - settings.validation, seed=key)
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
        self.classes = self._tried(data, extra)
        workers.same_start(self.model)
        self.fit = Fit(self.model, self.feed, settings, workers, self.classes)

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
        first = self.workers.rank == 0
        folder = self._folder(out, resume=resume, overwrite=overwrite) if out is not None and first else None
        if folder is not None and Workers.restarted() and folder.run["state"] == "failed":
            raise TrainingError(folder.run["error"])  # it would fail again
        self.workers.wait()  # nobody reads a checkpoint before the folder is ready
        self._find_teacher(out, resume=resume, overwrite=overwrite, show=show)
        state = read_checkpoint(out) if out is not None and resume else None
        if state is not None:
            self.fit.restore(state)
        done = self.fit.progress
        with Display(self.settings.epochs, self.feed.steps, self.settings.batch, show=show and first) as display:
            for row in done.history:
                display.epoch(row)
            try:
                with _between_steps(self.fit):
                    self._epochs(folder, display)
            except (TrainingError, KeyboardInterrupt) as error:
                if folder is not None:
                    self._stopped(folder, error, display)
                raise
            if done.stopped:
                display.say(done.stopped)
        return self._finished(folder, out)

    def _find_teacher(self, out: Path | None, *, resume: bool, overwrite: bool, show: bool) -> None:
        """Load what the recipe learns from, or train it first."""
        recipe = self.settings.recipe
        if recipe.teacher is not None:
            self.fit.recipe = recipe.with_teacher(load_model(recipe.teacher, device=self.workers.device))
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
            "model": self.text or type(self.model).__name__,
            "data": self.data.name,
            "data_digest": self.data.fingerprint(),
            "extra": None if self.feed.extra is None else self.feed.extra.name,
            "extra_digest": None if self.feed.extra is None else self.feed.extra.fingerprint(),
            **self.settings.record(),
        }
        around = dict(environment(self.workers.device)) | {"processes": self.workers.world}
        return Folder.begin(out, settings, around, resume=resume, overwrite=overwrite)

    def _tried(self, data: Data, extra: Data | None) -> int:
        """The number of classes, once network and data are known to go together."""
        threat, classes = self.settings.measured, 0
        bounds = (0.0, 1.0) if threat is None else threat.bounds
        for samples in (data,) if extra is None else (data, extra):
            x, y, _ = samples.batch(0, 2)
            check_inputs(samples.x if isinstance(samples.x, Tensor) else x, bounds)
            try:
                with mode(self.model, train=False), torch.no_grad():
                    output = self.model(x.to(self.workers.device, self.workers.dtype))
            except AssayError:
                raise
            except Exception as error:
                raise ModelError(
                    f"the network {self.text or type(self.model).__name__} cannot take the data {samples.name!r}, "
                    f"inputs of shape {tuple(x.shape[1:])}: {error}"
                ) from error
            if not isinstance(output, Tensor) or output.ndim != 2:
                raise ModelError("the network must return logits of shape (batch, classes).")
            check_classes(Untargeted(y if samples.y is None else samples.y), output.shape[1])
            classes = output.shape[1]
        return classes

    def _epochs(self, folder: Folder | None, display: Display) -> None:
        done, settings = self.fit.progress, self.settings
        saved = time.monotonic()
        while self.fit.epoch < settings.epochs and not done.stopped:
            for _ in self.fit.steps_left():
                taken = done.step - self.fit.epoch_start
                display.step(done.step, done.loss / taken, done.seconds, done.total)
                self.fit.due = time.monotonic() - saved > _EVERY
                if self.fit.agreed and done.step % self.feed.steps:
                    self._save(folder)
                    saved = time.monotonic()
            self._end_epoch(folder, display)
            saved = time.monotonic()

    def _end_epoch(self, folder: Folder | None, display: Display) -> None:
        """Measure, note the epoch, and decide whether to go on."""
        done, settings = self.fit.progress, self.settings
        found = self._measured()
        row: Row = {
            "epoch": done.step // self.feed.steps,
            "step": done.step,
            "lr": self.fit.rate(done.step - 1),
            "loss": done.loss / self.feed.steps,
            "clean": None if found is None else found.clean,
            "robust": None if found is None else found.robust,
            "images_per_second": self.feed.steps * settings.batch / max(done.seconds, 1e-9),
            "seconds": done.seconds,
        }
        done.history.append(row)
        done.loss = done.seconds = 0.0
        if found is not None:
            self._judge(row, found)
        display.epoch(row)
        if folder is not None:
            folder.write_metrics(done.history)
            self._keep(folder)
        self._save(folder)

    def _measured(self) -> Measured | None:
        if self.fit.average is not None:
            self.fit.average.settle(x for x, _, _ in islice(self.feed.epoch(0), _SETTLED))
            self.workers.average(self.fit.judged)
        if self.held is None:
            return None
        return measure(self.fit.judged, self.held, self.settings.measured, self.workers, self.settings.seed)

    def _judge(self, row: Row, found: Measured) -> None:
        """Whether this epoch is the best so far, and whether it is the last one."""
        done, settings = self.fit.progress, self.settings
        best = done.best
        if best is None or found.score > best["clean" if best["robust"] is None else "robust"]:
            done.best = row
            done.weights = {name: value.detach().cpu().clone() for name, value in self.fit.judged.state_dict().items()}
            return
        if settings.guard is not None and found.robust is not None and best["robust"] - found.robust > settings.guard:
            done.stopped = (
                f"stopped: robust accuracy fell from {best['robust']:.1%} to {found.robust:.1%} (catastrophic "
                f"overfitting); the network of epoch {best['epoch']} is kept. A stronger attack, GradAlign or a "
                "smaller step avoids it; --no-guard goes on."
            )
        elif settings.patience is not None and row["epoch"] - best["epoch"] >= settings.patience:
            done.stopped = (
                f"stopped: no better epoch in {settings.patience}; the network of epoch {best['epoch']} is kept."
            )

    def _chosen(self) -> tuple[dict[str, Tensor], Row | None]:
        """The weights to keep so far, and the epoch that they are of."""
        done = self.fit.progress
        if done.best is not None and (self.settings.keep == "best" or done.stopped):
            return done.weights, done.best
        return self.fit.judged.state_dict(), done.history[-1] if self.held is not None and done.history else None

    def _keep(self, folder: Folder) -> None:
        weights, row = self._chosen()
        accuracies = {} if row is None else {"clean": row["clean"], f"pgd-{STEPS}": row["robust"]}
        threat = self.settings.measured
        facts = {
            "recipe": repr(self.settings.recipe),
            "data": self.data.name,
            "classes": None if self.data.classes is None else list(self.data.classes),
            "threat": None if threat is None else repr(threat),
            "epoch": None if row is None else row["epoch"],
            "held_out_accuracy": accuracies,
            "settings": folder.run["settings"],
            "environment": folder.run["environment"],
        }
        keep_model(folder.path, weights, self.text, facts)

    def _save(self, folder: Folder | None) -> None:
        state = self.fit.state()  # every process has a part in it
        if folder is not None:
            folder.write_checkpoint(state)

    def _stopped(self, folder: Folder, error: BaseException, display: Display) -> None:
        """Keep what there is, and say how to go on."""
        failed = isinstance(error, TrainingError)
        with suppress(StoreError):  # the disk may be what failed
            if self.workers.world == 1:
                self._save(folder)
            folder.save(state="failed" if failed else "interrupted", error=str(error))
        done = self.fit.progress
        how = "failed" if failed else "interrupted"
        kept = f"epoch {done.history[-1]['epoch']}" if done.history else "no epoch yet"
        display.say(f"{how} after step {done.step}; the network so far ({kept}) is kept in {folder.path}.")

    def _finished(self, folder: Folder | None, out: Path | None) -> Training:
        done = self.fit.progress
        weights, row = self._chosen()
        self.model.load_state_dict(weights)
        self.model.eval()
        if folder is not None:
            self._keep(folder)
            folder.save(state="done", results={"best": row, "last": done.history[-1], "stopped": done.stopped})
        self.workers.wait()
        return Training(model=self.model, history=done.history, best=row, path=out, stopped=done.stopped)


@contextmanager
def _between_steps(fit: Fit) -> Iterator[None]:
    """Let the first Ctrl-C end the step it falls in, so that all of it is kept; the second one ends at once."""
    if fit.workers.world > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return

    def pressed(number: int, frame: FrameType | None) -> None:
        if fit.asked_to_stop:
            signal.default_int_handler(number, frame)
        fit.asked_to_stop = True

    before = signal.signal(signal.SIGINT, pressed)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
