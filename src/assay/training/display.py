"""What people see while a network is trained: a row per epoch, a bar with the running loss, speed and time left."""

from __future__ import annotations

import time
from types import TracebackType
from typing import final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from typing_extensions import Self

from assay.training.folder import Row

_EVERY = 10.0  # seconds between two lines where there is no terminal
_HEAD = "epoch      loss    clean   robust  images/s        lr"


@final
class Display:
    """A table that grows and a bar below it on a terminal; lines elsewhere.

    Args:
        epochs: how many there will be.
        steps: steps of an epoch.
        batch: samples of a step.
        show: False for silence.
    """

    def __init__(self, epochs: int, steps: int, batch: int, *, show: bool) -> None:
        self._epochs, self._steps, self._batch, self._show = epochs, steps, batch, show
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._last = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self._show and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[state]}"),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=self._epochs * self._steps, state="")
        self.say(_HEAD)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

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
        state = f"loss {loss:.3f}  {speed:,.0f} images/s  {_time(left)} left"
        if self._bar:
            self._bar.update(self._task, completed=done, description=f"epoch {epoch + 1}/{self._epochs}", state=state)
        elif self._show and time.monotonic() - self._last > _EVERY:
            self._last = time.monotonic()
            self.say(f"epoch {epoch + 1}/{self._epochs}, step {place + 1}/{self._steps}: {state}")

    def epoch(self, row: Row) -> None:
        """An epoch is done and measured."""
        clean = "-" if row["clean"] is None else f"{row['clean']:.1%}"
        robust = "-" if row["robust"] is None else f"{row['robust']:.1%}"
        speed = f"{row['images_per_second']:,.0f}"
        place = f"{row['epoch']}/{self._epochs}"
        self.say(f"{place:>5} {row['loss']:>9.4f} {clean:>8} {robust:>8} {speed:>9} {row['lr']:>9.2g}")
        self._last = time.monotonic()

    def say(self, text: str) -> None:
        """A line for people."""
        if self._show:
            self._console.print(text)


def say(text: str) -> None:
    """A line for people, outside of a table."""
    Console(stderr=True, highlight=False, markup=False).print(text)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
