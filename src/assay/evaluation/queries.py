"""How many queries successes took: of attacks that use no gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.evaluation.schema import Queries, QueryCurve
from assay.evaluation.shards import Shard
from assay.evaluation.stats import quantile, wilson

AT = (100, 1_000, 10_000)
"""Numbers of queries at which success is reported."""
_POINTS = 256  # of the curve at most, beside its ends


def of_shards(shards: list[Shard], max_queries: int | None) -> Queries | None:
    """The numbers of one stage; None where it used gradients or was asked about nothing.

    The clean input's answer counts as one query of each sample, though the stage does not ask for it again.

    Args:
        shards: What the stage did.
        max_queries: Queries that it was allowed for each sample; fewer where a total of queries cut a search short.
    """
    if not any(len(shard.columns["index"]) for shard in shards):
        return None
    if any(bool(shard.columns["backwards"].any()) for shard in shards):
        return None
    spent = torch.cat([shard.columns["forwards"] for shard in shards]).long() + 1
    success = torch.cat([shard.columns["success"] for shard in shards]).bool()
    cut = torch.cat([torch.full_like(shard.columns["success"], shard.partial) for shard in shards]).bool() & ~success
    limits = [int(spent[cut].min())] if bool(cut.any()) else []
    limits += [] if max_queries is None else [max_queries]
    return numbers(spent, success, min(limits, default=None))


def numbers(spent: Tensor, success: Tensor, known: int | None) -> Queries:
    """Median and mean over the successes, and the share of successes over queries.

    Args:
        spent: Queries of each sample, the one about the clean input included, `(n,)`.
        success: Which of them succeeded, `(n,)`.
        known: Beyond this number of queries nothing is known; None where every search ended by itself.

    Example:
        >>> found = numbers(torch.tensor([5, 50, 500, 600]), torch.tensor([True, True, True, False]), 600)
        >>> found["median"], found["mean"], found["at"]["success"]
        (50.0, 185.0, [0.5, None, None])
    """
    won = spent[success].sort().values
    steps = torch.unique(won)
    if len(steps) > _POINTS:
        steps = steps[torch.linspace(0, len(steps) - 1, _POINTS, dtype=torch.float64).round().long()]
    end = int(spent.max())
    return {
        "median": quantile(won.double().tolist(), 0.5) if len(won) else None,
        "mean": float(won.double().mean()) if len(won) else None,
        "at": _curve(won, len(spent), list(AT), known),
        "curve": _curve(won, len(spent), sorted({1, *steps.tolist(), end}), None),
    }


def _curve(won: Tensor, samples: int, queries: list[int], known: int | None) -> QueryCurve:
    """Shares of samples that succeeded with at most so many queries, and their intervals."""
    found: QueryCurve = {"queries": queries, "success": [], "low": [], "high": []}
    for number in queries:
        count = int((won <= number).sum())
        if known is not None and number > known:
            shares: tuple[float | None, ...] = (None, None, None)
        else:
            shares = (count / samples, *wilson(count, samples))
        for name, value in zip(("success", "low", "high"), shares, strict=True):
            found[name].append(value)  # type: ignore[literal-required]  # the names stand in the line above
    return found
