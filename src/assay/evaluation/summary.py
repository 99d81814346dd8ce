"""A finished run as numbers."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from typing import final

from torch import Tensor

from assay.errors import SettingError
from assay.evaluation import defended, smallest, text
from assay.evaluation.flags import Flag
from assay.evaluation.merge import Table, curve, distances, share, stage_result
from assay.evaluation.schema import Results, StageResult
from assay.evaluation.shards import CLEAN, Shard
from assay.evaluation.store import Store


def results(
    store: Store, table: Table, shards: list[list[Shard]], eps: float | None, flags: list[Flag], *, whole: bool = False
) -> Results:
    """The numbers of ``run.json``.

    Args:
        store: The run.
        table: Its per-sample worst case.
        shards: The shards of each stage.
        eps: The budget; None where the smallest perturbations were looked for.
        flags: Remarks that the reader of the numbers has to know.
        whole: Distances are counts.
    """
    clean, stages = share(table.clean_correct), store.run["settings"]["suite"]["stages"]
    if eps is None:
        return {
            "samples": len(table),
            "clean_accuracy": clean,
            "robust_accuracy": None,
            "stages": smallest.stage_results(stages, shards),
            "curve": smallest.curve(table.distance),
            "distances": smallest.distances(table.distance[table.clean_correct]),
            "flags": [flag.record() for flag in flags],
        }
    left, found = clean["correct"], list[StageResult]()
    for stage, own in zip(stages, shards, strict=True):
        found.append(stage_result(stage, own, left, len(table), store.run["settings"].get("max_queries")))
        left -= found[-1]["broken"]
    numbers: Results = {
        "samples": len(table),
        "clean_accuracy": clean,
        "robust_accuracy": share(table.robust),
        "stages": found,
        "curve": curve(table, eps, whole=whole),
        "distances": distances(table),
        "flags": [flag.record() for flag in flags],
    }
    if any("mode" in stage for stage in stages):
        numbers["defense"] = defended.result(stages, table, store.run["settings"].get("rejected"))
    return numbers


@final
class Evaluation:
    """What `assay.evaluate` returns.

    Args:
        store: The finished run.
        table: Its per-sample worst case.
        flags: Remarks that the reader of the numbers has to know.
        eps: The budget; None where the smallest perturbations were looked for.
        temporary: Remove the run directory when this object goes.
    """

    def __init__(
        self, store: Store, table: Table, flags: list[Flag], *, eps: float | None, temporary: bool = False
    ) -> None:
        self.store = store
        self.samples = table
        self.flags = flags
        self._budget = eps
        if temporary:
            weakref.finalize(self, shutil.rmtree, store.path, ignore_errors=True)

    def __repr__(self) -> str:
        robust = self.robust_accuracy
        found = f"median distance {self.median_distance:.4g}" if robust is None else f"robust accuracy {robust:.1%}"
        clean = f"clean accuracy {self.clean_accuracy:.1%}"
        return f"Evaluation({clean}, {found}, {len(self.samples)} samples, {str(self.path)!r})"

    @property
    def path(self) -> Path:
        """The run directory."""
        return self.store.path

    @property
    def results(self) -> Results:
        """The numbers, as in ``run.json``."""
        found = self.store.run["results"]
        assert found is not None  # an Evaluation is made of finished runs only
        return found

    @property
    def clean_accuracy(self) -> float:
        """Share of samples that are right on the unchanged input."""
        return self.results["clean_accuracy"]["value"]

    @property
    def robust_accuracy(self) -> float | None:
        """Share of samples that are right on the unchanged input and that no stage broke.

        None where the threat has no budget: `accuracy_at` tells it for any eps.
        """
        robust = self.results["robust_accuracy"]
        return None if robust is None else robust["value"]

    @property
    def distances(self) -> Tensor:
        """Size of the perturbation found for each sample: 0 where wrong from the start, inf where never broken.

        It is the smallest found where the threat has no budget; with one, the attacks stop at their first success.
        """
        return self.samples.distance

    @property
    def median_distance(self) -> float:
        """Median of the distances of the samples that are right at first: inf where fewer than half were broken."""
        return smallest.median(self.distances[self.samples.clean_correct])

    def accuracy_at(self, eps: float) -> float:
        """Share of all samples that are right on the unchanged input and of which no input within eps was found wrong.

        The attacks bound the true robust accuracy from above. Where the threat has a budget they stop at their first
        success inside it, so that below the budget the bound is loose; beyond it nothing was looked for.

        Args:
            eps: The size of the perturbation, in the unit of the threat.

        Raises:
            SettingError: eps is negative, not a number, or larger than the budget.
        """
        if not eps >= 0:
            raise SettingError(f"eps must not be negative; got {eps}.")
        if self._budget is None:
            return float((self.distances > eps).double().mean())
        if eps > self._budget:
            raise SettingError(f"nothing was looked for beyond the budget {self._budget:g}; got eps = {eps:g}.")
        # Measured on rounded inputs, a distance may come back a little larger than the budget it lies within.
        return float((self.samples.robust | (self.distances.clamp(max=self._budget) > eps)).double().mean())

    def table(self) -> str:
        """The run as a table for people."""
        seconds = sum(self.store.read_shard(CLEAN, start).seconds for start, _ in self.store.chunks)
        return text.table(self.results, self.flags, seconds, self.store.run["settings"]["goal"])
