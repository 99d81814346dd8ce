"""A bar for people on stderr while long work goes on; lines now and then where there is no terminal."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
from typing_extensions import Self

_EVERY = 10.0  # seconds between two lines where there is no terminal


@final
class Bar:
    """A bar on a terminal, a line now and then elsewhere, nothing at all where nobody is to be told.

    Args:
        fields: what stands behind the bar, by the names under which `update` is told it, or as columns of rich.
        total: when the work is done.
        show: False for silence.
        counted: show how much of the total is done, too.
        description: what stands before the bar at first.
    """

    def __init__(
        self, *fields: str | ProgressColumn, total: int, show: bool, counted: bool = True, description: str = ""
    ) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._show, self._last = show, time.monotonic()
        self._progress: Progress | None = None
        if show and self._console.is_terminal:
            empty: dict[str, Any] = {field: "" for field in fields if isinstance(field, str)}
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                *([MofNCompleteColumn()] if counted else []),
                *(TextColumn(f"{{task.fields[{f}]}}") if isinstance(f, str) else f for f in fields),
                console=self._console,
                transient=True,
            )
            self._task = self._progress.add_task(description, total=total, **empty)

    def __enter__(self) -> Self:
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def update(self, done: int, description: str, line: str, **fields: Any) -> None:
        """So much is done.

        Args:
            done: of the total.
            description: what stands before the bar.
            line: the same for people without a terminal.
            fields: what stands behind the bar.
        """
        if self._progress:
            self._progress.update(self._task, completed=done, description=description, **fields)
        elif time.monotonic() - self._last >= _EVERY:
            self.say(line)

    def say(self, text: str, *, soft_wrap: bool = False) -> None:
        """A line for people, above the bar."""
        self._last = time.monotonic()
        if self._show:
            self._console.print(text, soft_wrap=soft_wrap)


def clock(seconds: float) -> str:
    """A time as people read it.

    Example:
        >>> clock(62), clock(3_998)
        ('1:02', '1:06:38')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
