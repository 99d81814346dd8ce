"""What people see while a network is trained: a row per epoch, a bar with the running loss, speed and time left."""

from __future__ import annotations

from types import TracebackType
from typing import final

from rich.console import Console
from typing_extensions import Self

from assay.evaluation.bar import Bar, clock
from assay.training.folder import Row

_HEAD = "epoch      loss {measured:>17}  images/s        lr"
_ACCURACIES = "  clean   robust"


@final
class Display:
    """A table that grows and a bar below it on a terminal; lines elsewhere.

    Args:
        epochs: how many there will be.
        steps: steps of an epoch.
        batch: samples of a step.
        quality: what is measured of a network that is no classifier; None for accuracies.
        show: False for silence.
    """

    def __init__(self, epochs: int, steps: int, batch: int, *, show: bool, quality: str | None = None) -> None:
        self._epochs, self._steps, self._batch, self._quality = epochs, steps, batch, quality
        self._bar = Bar("state", total=epochs * steps, show=show, counted=False)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        self.say(_HEAD.format(measured=self._quality or _ACCURACIES))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def step(self, done: int, loss: float, seconds: float, total: float) -> None:
        """A step is done.

        Args:
            done: steps so far.
            loss: mean loss of this epoch so far.
            seconds: time of this epoch's steps so far.
            total: time of all steps of the run.
        """
        epoch, place = divmod(done - 1, self._steps)
        speed = (place + 1) * self._batch / seconds if seconds else 0.0
        left = total / done * (self._epochs * self._steps - done)
        state = f"loss {loss:.3f}  {_rate(speed)} images/s  {clock(left)} left"
        where = f"epoch {epoch + 1}/{self._epochs}"
        self._bar.update(done, where, f"{where}, step {place + 1}/{self._steps}: {state}", state=state)

    def epoch(self, row: Row) -> None:
        """An epoch is done and measured."""
        if self._quality is None:
            measured = " ".join(f"{'-' if row[key] is None else f'{row[key]:.1%}':>8}" for key in ("clean", "robust"))
        else:
            measured = "-" if row["quality"] is None else f"{row['quality']:.5g}"
        speed = _rate(row["images_per_second"])
        place = f"{row['epoch']}/{self._epochs}"
        self.say(f"{place:>5} {row['loss']:>9.4f} {measured:>17} {speed:>9} {row['lr']:>9.2g}")

    def say(self, text: str) -> None:
        """A line for people."""
        self._bar.say(text)


def _rate(speed: float) -> str:
    """Whole images, or two digits where they are few."""
    return f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"


def say(text: str) -> None:
    """A line for people, outside of a table."""
    Console(stderr=True, highlight=False, markup=False).print(text)
