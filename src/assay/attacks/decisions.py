"""Which moves reach the goal, by the model's decisions alone."""

from __future__ import annotations

import torch
from torch import Tensor

from assay.goals import Goal
from assay.oracle import Oracle


def wins(oracle: Oracle, theta: Tensor, rows: Tensor | None = None) -> Tensor:
    """Which moves reach the goal; False where nobody was asked.

    Args:
        oracle: answers.
        theta: moves, `(b, *m)` or `(b, k, *m)`.
        rows: bool mask of the samples to ask about.

    Returns:
        `(b,)` or `(b, k)` bool.
    """
    return reached(oracle.goal, oracle.labels(theta, rows))


def reached(goal: Goal, labels: Tensor) -> Tensor:
    """Which decisions `(b,)` or `(b, k)` reach the goal; those of moves that were not asked about (-1) do not."""
    if labels.ndim > 1:
        each = torch.arange(len(labels), device=labels.device).repeat_interleave(labels.shape[1])
        return goal.at(each).reached_labels(labels.flatten()).reshape(labels.shape) & (labels >= 0)
    return goal.reached_labels(labels) & (labels >= 0)


def wins_among(oracle: Oracle, theta: Tensor, wanted: Tensor) -> Tensor:
    """As `wins`, where of the candidates `(b, k, *m)` each sample asks about some of its own, `(b, k)` bool."""
    order = wanted.byte().argsort(dim=1, descending=True, stable=True)
    count, found = wanted.sum(dim=1), torch.zeros_like(wanted)
    for c in sorted(set(count.tolist())):
        rows = (count == c).nonzero().squeeze(1)
        if c > 0:
            chosen = order[rows, :c]
            found[rows[:, None], chosen] = wins(oracle.at(rows), theta[rows[:, None], chosen])
    return found
