"""What people see while a run over corruptions is at work."""

from __future__ import annotations

import time
from types import TracebackType
from typing import final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from typing_extensions import Self

_EVERY = 10.0  # seconds between two lines where there is no terminal


@final
class Display:
    """A bar on a terminal, a line now and then elsewhere.

    Args:
        total: parts of the work.
        show: False for silence.
    """

    def __init__(self, total: int, *, show: bool) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._show, self._total, self._done = show, total, 0
        self._right, self._seen, self._last = 0, 0, time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[found]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not (show and self._console.is_terminal),
        )
        self._task = self._bar.add_task("clean", total=total, found="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, cell: str, right: int = 0, seen: int = 0) -> None:
        """One part of a cell is done; of so many corrupted images so many are classified rightly."""
        self._done, self._right, self._seen = self._done + 1, self._right + right, self._seen + seen
        found = f"{self._right / self._seen:.1%} right so far" if self._seen else ""
        self._bar.update(self._task, completed=self._done, description=cell, found=found)
        if self._show and not self._console.is_terminal and time.monotonic() - self._last >= _EVERY:
            self._last = time.monotonic()
            self._console.print(f"{cell}: {self._done} of {self._total} parts{', ' if found else ''}{found}")
