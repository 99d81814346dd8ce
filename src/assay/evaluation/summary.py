"""A finished run as numbers and as a table for people."""

from __future__ import annotations

import io
import shutil
import weakref
from pathlib import Path
from typing import final

from rich.console import Console
from rich.table import Table as Grid
from torch import Tensor

from assay.evaluation.flags import Flag
from assay.evaluation.merge import Table, curve, distances, share, stage_result
from assay.evaluation.schema import Results, Share, StageResult
from assay.evaluation.shards import CLEAN
from assay.evaluation.store import Store


def results(store: Store, table: Table, eps: float | None, flags: list[Flag]) -> Results:
    """The numbers of ``run.json``."""
    clean = share(table.clean_correct)
    return {
        "samples": len(table),
        "clean_accuracy": clean,
        "robust_accuracy": share(table.robust),
        "stages": _stages(store, clean["correct"]),
        "curve": curve(table, eps),
        "distances": distances(table),
        "flags": [flag.record() for flag in flags],
    }


def _stages(store: Store, left: int) -> list[StageResult]:
    """What each stage did, with what it left of all samples."""
    samples, found = store.run["settings"]["samples"], []
    for stage in store.run["settings"]["suite"]["stages"]:
        shards = [store.read_shard(stage["name"], start) for start, _ in store.chunks]
        found.append(stage_result(stage, shards, left, samples))
        left -= found[-1]["broken"]
    return found


@final
class Evaluation:
    """What `assay.evaluate` returns.

    Args:
        store: The finished run.
        table: Its per-sample worst case.
        flags: Remarks that the reader of the numbers has to know.
        temporary: Remove the run directory when this object goes.
    """

    def __init__(self, store: Store, table: Table, flags: list[Flag], *, temporary: bool = False) -> None:
        self.store = store
        self.samples = table
        self.flags = flags
        if temporary:
            weakref.finalize(self, shutil.rmtree, store.path, ignore_errors=True)

    def __repr__(self) -> str:
        return (
            f"Evaluation(clean accuracy {self.clean_accuracy:.1%}, robust accuracy {self.robust_accuracy:.1%}, "
            f"{len(self.samples)} samples, {str(self.path)!r})"
        )

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
    def robust_accuracy(self) -> float:
        """Share of samples that are right on the unchanged input and that no stage broke."""
        return self.results["robust_accuracy"]["value"]

    @property
    def distances(self) -> Tensor:
        """Size of the perturbation found for each sample: 0 where wrong from the start, inf where robust."""
        return self.samples.distance

    def table(self) -> str:
        """The run as a table for people."""
        grid = Grid(title=None, box=None, pad_edge=False)
        for name, justify in (("stage", "left"), ("asked", "right"), ("broken", "right"), ("robust", "right")):
            grid.add_column(name, justify=justify)  # type: ignore[arg-type]  # a literal that mypy widens
        for name in ("forwards/sample", "backwards/sample", "seconds"):
            grid.add_column(name, justify="right")
        clean, robust = self.results["clean_accuracy"], self.results["robust_accuracy"]
        wrong = clean["samples"] - clean["correct"]
        seconds = sum(self.store.read_shard(CLEAN, start).seconds for start, _ in self.store.chunks)
        grid.add_row(CLEAN, str(clean["samples"]), str(wrong), f"{clean['value']:.1%}", "1.0", "0.0", f"{seconds:.1f}")
        for stage in self.results["stages"]:
            asked = max(1, stage["asked"])
            grid.add_row(
                stage["name"],
                str(stage["asked"]),
                str(stage["broken"]),
                f"{stage['robust_accuracy']:.1%}",
                f"{stage['forwards'] / asked:.1f}",
                f"{stage['backwards'] / asked:.1f}",
                f"{stage['seconds']:.1f}",
            )
        console = Console(file=io.StringIO(), width=100, color_system=None)
        console.print(grid)
        console.print(f"clean accuracy  {_with_interval(clean)}", highlight=False)
        console.print(f"robust accuracy {_with_interval(robust)}", highlight=False)
        for flag in self.flags:
            console.print(f"{flag.severity}: {flag.message} {flag.cure}", soft_wrap=True, markup=False)
        assert isinstance(console.file, io.StringIO)
        return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def _with_interval(share: Share) -> str:
    return (
        f"{share['value']:.1%}  (95 % interval {share['low']:.1%} to {share['high']:.1%}, "
        f"{share['correct']} of {share['samples']})"
    )
