"""What people see while a run is at work: stage, running result and the time left, on stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import final

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from torch import Tensor
from typing_extensions import Self

from assay.evaluation import smallest
from assay.evaluation.shards import CLEAN, Shard

_EVERY = 10.0  # seconds between two lines where there is no terminal


@final
class Display:
    """A bar on a terminal, a line now and then elsewhere.

    Args:
        stages: Names of the stages, "clean" first.
        chunks: First position of each chunk and one past its last.
        show: False for silence.
        workers: Processes that share the chunks.
        minimal: The smallest perturbations are looked for: their median is the running result, not robust accuracy.
    """

    def __init__(
        self,
        stages: tuple[str, ...],
        chunks: list[tuple[int, int]],
        *,
        show: bool,
        workers: int = 1,
        minimal: bool = False,
    ) -> None:
        self._show = show
        self._workers = workers
        self._minimal = minimal
        self._stages = stages
        self._sizes = {start: stop - start for start, stop in chunks}
        self._left: dict[int, int] = {}
        self._smallest: dict[int, Tensor] = {}
        self._seconds: dict[str, list[float]] = {stage: [] for stage in stages}
        self._done = 0
        self._total = len(stages) * len(chunks)
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._last = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        if self._show and self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[result]}"),
                TextColumn("{task.fields[left]}"),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._stages[0], total=self._total, result="", left="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, shard: Shard) -> None:
        """Take in one shard."""
        if not self._minimal:
            self._left[shard.start] = shard.left
        elif shard.stage != CLEAN:
            distance = shard.columns["distance"].double()
            self._smallest[shard.start] = torch.minimum(self._smallest.get(shard.start, distance), distance)
        self._seconds[shard.stage].append(shard.seconds)
        self._done += 1
        result, left = self.result, _clock(self.time_left)
        if self._bar:
            self._bar.update(self._task, completed=self._done, description=shard.stage, result=result, left=left)
        elif self._show and time.monotonic() - self._last >= _EVERY:
            self._last = time.monotonic()
            parts = (f"{shard.stage}: {self._done} of {self._total} parts", result, left)
            self._console.print(", ".join(part for part in parts if part))

    def say(self, text: str) -> None:
        """Write one line."""
        if self._show:
            self._console.print(text, soft_wrap=True)

    @property
    def result(self) -> str:
        """The running result in words."""
        if not self._minimal:
            return f"robust so far {self.robust:.1%}"
        return f"median distance so far {self.median:.4g}" if self._smallest else ""

    @property
    def median(self) -> float:
        """Median of the smallest distances in the chunks that an attack has seen, which only goes down within them."""
        return smallest.median(torch.cat(list(self._smallest.values())))

    @property
    def robust(self) -> float:
        """Share of the samples seen that nothing has broken yet: an upper bound that only goes down within a chunk."""
        seen = sum(self._sizes[start] for start in self._left)
        return sum(self._left.values()) / seen if seen else 0.0

    @property
    def time_left(self) -> float | None:
        """Seconds, from the mean time of each stage so far; None until every stage was seen."""
        if not all(self._seconds.values()):
            return None
        chunks = len(self._sizes)
        left = sum(sum(s) / len(s) * (chunks - len(s)) for s in self._seconds.values())
        return left / self._workers


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d} left" if hours else f"{minutes}:{rest:02d} left"
