"""What people see while a run is at work: stage, running result and the time left, on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.evaluation import smallest
from assay.evaluation.bar import Bar, clock
from assay.evaluation.shards import CLEAN, Shard


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
        self._workers = workers
        self._minimal = minimal
        self._stages = stages
        self._sizes = {start: stop - start for start, stop in chunks}
        self._left: dict[int, int] = {}
        self._smallest: dict[int, Tensor] = {}
        self._seconds: dict[str, list[float]] = {stage: [] for stage in stages}
        self._done = 0
        self._total = len(stages) * len(chunks)
        self._bar = Bar("result", "left", total=self._total, show=show, description=stages[0])

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def update(self, shard: Shard) -> None:
        """Take in one shard."""
        if not self._minimal:
            self._left[shard.start] = shard.left
        elif shard.stage != CLEAN:
            distance = shard.columns["distance"].double()
            self._smallest[shard.start] = torch.minimum(self._smallest.get(shard.start, distance), distance)
        self._seconds[shard.stage].append(shard.seconds)
        self._done += 1
        left = "" if self.time_left is None else f"{clock(self.time_left)} left"
        parts = (f"{shard.stage}: {self._done} of {self._total} parts", self.result, left)
        line = ", ".join(part for part in parts if part)
        self._bar.update(self._done, shard.stage, line, result=self.result, left=left)

    def say(self, text: str) -> None:
        """Write one line."""
        self._bar.say(text, soft_wrap=True)

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
