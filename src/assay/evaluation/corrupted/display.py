"""What people see while a run over corruptions is at work."""

from __future__ import annotations

from types import TracebackType
from typing import final

from rich.progress import TimeRemainingColumn
from typing_extensions import Self

from assay.evaluation.bar import Bar


@final
class Display:
    """A bar on a terminal, a line now and then elsewhere.

    Args:
        total: parts of the work.
        show: False for silence.
    """

    def __init__(self, total: int, *, show: bool) -> None:
        self._total, self._done, self._right, self._seen = total, 0, 0, 0
        self._bar = Bar("found", TimeRemainingColumn(), total=total, show=show, description="clean")

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def update(self, cell: str, right: int = 0, seen: int = 0) -> None:
        """One part of a cell is done; of so many corrupted images so many are classified rightly."""
        self._done, self._right, self._seen = self._done + 1, self._right + right, self._seen + seen
        found = f"{self._right / self._seen:.1%} right so far" if self._seen else ""
        line = f"{cell}: {self._done} of {self._total} parts{', ' if found else ''}{found}"
        self._bar.update(self._done, cell, line, found=found)
