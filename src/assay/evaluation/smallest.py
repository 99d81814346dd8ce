"""The numbers of a run whose threat has no budget: how near the nearest adversarial input of each sample is."""

from __future__ import annotations

import math
from itertools import chain

import torch
from torch import Tensor

from assay.evaluation.merge import share, stage_result
from assay.evaluation.schema import Curve, Distances, StageRecord, StageResult
from assay.evaluation.shards import Shard
from assay.evaluation.stats import median_interval, quantile

SAME = 1e-6  # relative difference up to which two distances count as equal
_POINTS = 256  # values of eps in the curve at most, beside 0


def best(shards: list[list[Shard]]) -> dict[int, Tensor]:
    """The smallest distance of every sample that was asked about, chunk by chunk.

    Args:
        shards: The shards of each stage, in the order of the data; some may be missing.

    Returns:
        The first position of each chunk, and the distances of its samples that are right at first.
    """
    found: dict[int, Tensor] = {}
    for shard in chain.from_iterable(shards):
        mine = shard.columns["distance"]
        found[shard.start] = torch.minimum(found.get(shard.start, mine), mine)
    return found


def stage_results(stages: list[StageRecord], shards: list[list[Shard]]) -> list[StageResult]:
    """What each stage found, as far as its shards tell.

    Args:
        stages: The stages.
        shards: The shards of each, as in `best`.
    """
    least, found = best(shards), []
    for stage, own in zip(stages, shards, strict=True):
        if own:
            distance = torch.cat([shard.columns["distance"] for shard in own])
            nearest = torch.cat([least[shard.start] for shard in own])
            result = stage_result(stage, own, None, 0)
            result["smallest"] = int((distance.isfinite() & (distance <= nearest * (1 + SAME))).sum())
            result["median"] = finite(median(distance))
            found.append(result)
    return found


def median(distance: Tensor) -> float:
    """The median distance, infinite where fewer than half were broken; NaN where there is no sample."""
    return quantile(distance.sort().values.tolist(), 0.5) if len(distance) else math.nan


def distances(distance: Tensor) -> Distances:
    """Median with its interval, quartiles, and how many were never broken.

    Args:
        distance: Smallest distance of each sample that is right at first; inf where it was never broken.
    """
    ordered = distance.sort().values.tolist()
    found = int(distance.isfinite().sum())
    low, high = median_interval(ordered)
    quartiles = [quantile(ordered, part) for part in (0.25, 0.5, 0.75)] if ordered else [math.nan] * 3
    return {
        "median": finite(quartiles[1]),
        "count": found,
        "low": finite(max(low, 0.0)),
        "high": finite(high),
        "quartiles": [finite(quartiles[0]), finite(quartiles[2])],
        "missed": len(ordered) - found,
    }


def curve(distance: Tensor) -> Curve:
    """Robust accuracy over eps: the share of all samples whose smallest distance is larger.

    It steps down at every distance found, so that these are the values of eps; of more than 256, as many of even rank.

    Args:
        distance: Smallest distance of every sample: 0 where it is wrong at first, inf where it was never broken.
    """
    found = distance[distance.isfinite() & (distance > 0)].sort().values
    if len(set(found.tolist())) > _POINTS:
        found = found[torch.linspace(0, len(found) - 1, _POINTS, dtype=torch.float64).round().long()]
    grid = sorted({0.0, *found.tolist()})
    shares = [share(distance > eps) for eps in grid]
    return {
        "eps": grid,
        "robust_accuracy": [s["value"] for s in shares],
        "low": [s["low"] for s in shares],
        "high": [s["high"] for s in shares],
        "exact": True,
        "note": "Complete for these attacks at every eps; a stronger attack can only lower it.",
    }


def finite(number: float) -> float | None:
    """The number as JSON can hold it."""
    return number if math.isfinite(number) else None
