"""The per-sample worst case over all stages, and the numbers that are read from it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import final

import torch
from torch import Tensor

from assay.evaluation import aims, queries
from assay.evaluation.schema import Curve, Distances, Share, StageRecord, StageResult
from assay.evaluation.shards import Shard
from assay.evaluation.stats import wilson


@final
@dataclass(frozen=True, kw_only=True)
class Table:
    """One row a sample, ordered by the sample's own index.

    Args:
        index: The sample's own index (int64).
        label: Its label (int64).
        prediction: Predicted class of the unchanged input (int64).
        confidence: Highest softmax probability of the unchanged input (float32).
        adv_prediction: Predicted class at the adversarial input; at the unchanged one where no stage
            succeeded (int64).
        robust: Right on the unchanged input, and after every stage (bool).
        stage: Number of the stage that broke the sample, without a budget of the one that came nearest (the first
            of equal ones): 0 where the unchanged input was wrong already, -1 where it is robust (int64).
        distance: Size of the perturbation found, without a budget of the smallest: 0 where the unchanged input is
            wrong, inf where robust (float64).
        forwards: Forward passes spent on the sample by all stages (int64).
        backwards: Backward passes (int64).
        stages: Names of the stages; number 0 is "clean".
    """

    index: Tensor
    label: Tensor
    prediction: Tensor
    confidence: Tensor
    adv_prediction: Tensor
    robust: Tensor
    stage: Tensor
    distance: Tensor
    forwards: Tensor
    backwards: Tensor
    stages: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def clean_correct(self) -> Tensor:
        """Which samples are right on the unchanged input."""
        return self.prediction == self.label


COLUMNS = tuple(field.name for field in fields(Table) if field.name != "stages")


def worst_case(
    clean: Shard, stages: list[Shard], *, minimal: bool = False, goal: str = aims.UNTARGETED
) -> dict[str, Tensor]:
    """One chunk's rows of the table: the clean predictions, and what each stage did to the survivors.

    Args:
        clean: The predictions on the unchanged inputs.
        stages: The stages' shards, in order.
        minimal: Every stage was asked about all samples that are right at first, and the smallest distance counts.
        goal: What the stages looked for; a sample that is of its target class already was not asked about.

    Raises:
        ValueError: A stage was computed for other samples than those that it is to be asked about; the message names
            the stage.
    """
    rows = {name: clean.columns[name] for name in ("index", "label", "prediction", "confidence")}
    robust = rows["prediction"] == rows["label"]
    rows["adv_prediction"] = rows["prediction"].clone()
    rows["robust"] = robust
    rows["stage"] = torch.where(robust, -1, 0)
    rows["distance"] = torch.where(robust, torch.inf, 0.0).double()
    rows["forwards"] = torch.ones_like(rows["index"])
    rows["backwards"] = torch.zeros_like(rows["index"])
    right, astray = robust.clone(), aims.led_astray(goal, rows["label"])
    for number, shard in enumerate(stages, start=1):
        asked = ((right if minimal else robust) & astray).nonzero().flatten()
        if not torch.equal(rows["index"][asked], shard.columns["index"]):
            raise ValueError(shard.stage)
        nearer = shard.columns["success"].bool() & (shard.columns["distance"] < rows["distance"][asked])
        hit = asked[nearer]
        robust[hit] = False
        rows["stage"][hit] = number
        rows["distance"][hit] = shard.columns["distance"][nearer]
        rows["adv_prediction"][hit] = shard.columns["adv_prediction"][nearer]
        rows["forwards"][asked] += shard.columns["forwards"].long()
        rows["backwards"][asked] += shard.columns["backwards"].long()
    return rows


def stage_result(
    stage: StageRecord, shards: list[Shard], left: int | None, samples: int, max_queries: int | None = None
) -> StageResult:
    """What a stage did, as far as its shards tell.

    Args:
        stage: The stage.
        shards: Its shards.
        left: Samples that were robust before it; None where every stage is asked about all.
        samples: All samples.
        max_queries: Queries that it was allowed for each sample.
    """

    def total(column: str) -> int:
        return sum(int(shard.columns[column].sum()) for shard in shards)

    broken = total("success")
    found: StageResult = {
        "name": stage["name"],
        "attack": stage["attack"],
        "asked": sum(len(shard.columns["index"]) for shard in shards),
        "broken": broken,
        "robust_accuracy": None if left is None else (left - broken) / samples,
        "forwards": total("forwards"),
        "backwards": total("backwards"),
        "seconds": round(sum(shard.seconds for shard in shards), 3),
    }
    unknown = left is None or stage.get("mode") == "oblivious"  # whose search asks another model
    cost = None if unknown else queries.of_shards(shards, max_queries)
    if cost is not None:
        found["queries"] = cost
    return found


def share(correct: Tensor) -> Share:
    """A share of samples with its interval."""
    count, samples = int(correct.sum()), len(correct)
    low, high = wilson(count, samples)
    return {
        "value": count / samples if samples else 0.0,
        "low": low,
        "high": high,
        "correct": count,
        "samples": samples,
    }


def distances(table: Table) -> Distances:
    """Median size of the perturbations that broke samples which were right at first."""
    found = table.distance[table.clean_correct & ~table.robust]
    return {"median": float(found.quantile(0.5)) if len(found) else None, "count": len(found)}


def curve(table: Table, eps: float, points: int = 33, *, whole: bool = False) -> Curve:
    """Robust accuracy over the size of the perturbation, from the recorded distances.

    A sample counts as robust at ``e`` unless a perturbation of at most ``e`` was found. The search behind a
    fixed budget stops at its first success, which need not be the smallest: below that budget the curve is an
    upper bound.

    Args:
        table: The merged run.
        eps: The run's budget.
        points: How many values of eps, both ends included.
        whole: Distances are counts: only whole values of eps, of which there may be fewer.
    """
    grid = torch.linspace(0.0, eps, points, dtype=torch.float64)
    grid = torch.unique(grid.floor()) if whole else grid
    # Measured on rounded inputs, a distance may come back a little larger than the budget it lies within.
    distance = torch.where(table.robust, table.distance, table.distance.clamp(max=eps))
    shares = [share(distance > e) for e in grid]
    note = (
        f"At eps = {eps:g} this is the robust accuracy. Below it the curve is an upper bound: the "
        "attacks search with the whole budget and stop at their first success, not at the smallest."
    )
    return {
        "eps": grid.tolist(),
        "robust_accuracy": [s["value"] for s in shares],
        "low": [s["low"] for s in shares],
        "high": [s["high"] for s in shares],
        "exact": False,
        "note": note,
    }
