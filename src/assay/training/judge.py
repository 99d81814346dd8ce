"""The end of an epoch: the network is measured, and compared with the best one so far."""

from __future__ import annotations

from itertools import islice
from typing import final

from torch import Tensor

from assay.data import Data
from assay.training.fit import Fit
from assay.training.folder import Row
from assay.training.memory import enough_memory
from assay.training.recipes import GenerativeRecipe
from assay.training.told import stuck
from assay.training.validation import Measured, measure, quality

_SETTLED = 100  # batches that settle the statistics of averaged weights


@final
class Judge:
    """Which epoch is the best, and whether there is another one.

    Args:
        fit: the network in training.
        held: samples that it is not trained on; None measures nothing.
    """

    def __init__(self, fit: Fit, held: Data | None) -> None:
        self.fit, self.held = fit, held

    def end_epoch(self) -> Row:
        """Measure the network, note the epoch, and decide whether it is the last one.

        Raises:
            TrainingError: the device has too little memory to measure.
        """
        fit, done = self.fit, self.fit.progress
        with enough_memory("measuring on held-out samples"):
            found = self._measured()
        fit.whole = False
        row: Row = {
            "epoch": fit.epoch + 1,
            "step": done.step,
            "lr": fit.rate(done.step - 1),
            "loss": done.loss / fit.feed.steps,
            "clean": None if found is None else found.clean,
            "robust": None if found is None else found.robust,
            "quality": None if found is None else found.quality,
            "images_per_second": fit.feed.steps * fit.settings.batch / max(done.seconds, 1e-9),
            "seconds": done.seconds,
        }
        done.history.append(row)
        done.loss = done.seconds = 0.0
        if found is not None:
            self._compare(row)
        fit.whole = True
        return row

    def warning(self) -> str:
        """What people should know of the epochs so far; empty where there is nothing."""
        classes = self.fit.classes
        if classes is None:  # losses of critics stay where they are while networks learn
            return ""
        return stuck(self.fit.progress.history, self.fit.settings.epochs, self.held, classes)

    def chosen(self) -> tuple[dict[str, Tensor], Row | None]:
        """The weights to keep so far, and the epoch that they are of."""
        done = self.fit.progress
        if done.best is not None and (self.fit.settings.keep == "best" or done.stopped):
            return done.weights, done.best
        return self.fit.judged.state_dict(), done.history[-1] if self.held is not None and done.history else None

    def _measured(self) -> Measured | None:
        fit = self.fit
        if fit.average is not None:
            fit.average.settle(x for x, _, _ in islice(fit.feed.epoch(0), _SETTLED))
            fit.workers.average(fit.judged)
        if self.held is None:
            return None
        if isinstance(recipe := fit.recipe, GenerativeRecipe):  # with its teacher, where it has one
            critic = None if fit.critic is None else fit.critic.net
            return quality(fit.judged, self.held, recipe, fit.workers, fit.settings.seed, critic)
        return measure(fit.judged, self.held, fit.settings.measured, fit.workers, fit.settings.seed)

    def _worth(self, row: Row) -> tuple[float, ...]:
        """What the better one of two epochs has more of."""
        if row["quality"] is not None:
            return (-row["quality"],)
        robust = self.fit.settings.recipe.defends and row["robust"] is not None
        return row["robust" if robust else "clean"], row["clean"]

    def _compare(self, row: Row) -> None:
        done, settings = self.fit.progress, self.fit.settings
        best = done.best
        if best is None or self._worth(row) > self._worth(best):
            done.best = row
            done.weights = {name: value.detach().cpu().clone() for name, value in self.fit.judged.state_dict().items()}
            return
        guard = settings.guard if settings.recipe.defends else None
        if guard is not None and row["robust"] is not None and best["robust"] - row["robust"] > guard:
            done.stopped = (
                f"stopped: robust accuracy fell from {best['robust']:.1%} to {row['robust']:.1%} (catastrophic "
                f"overfitting); the network of epoch {best['epoch']} is kept. A stronger attack, GradAlign or a "
                "smaller step avoids it; --no-guard goes on."
            )
        elif settings.patience is not None and row["epoch"] - best["epoch"] >= settings.patience:
            done.stopped = (
                f"stopped: no better epoch in {settings.patience}; the network of epoch {best['epoch']} is kept."
            )
