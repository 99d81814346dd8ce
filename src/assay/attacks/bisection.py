"""Bisection between a place that is not adversarial and one that is, each sample with its own bracket."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from assay.attacks.decisions import wins
from assay.oracle import Oracle
from assay.threats.additive import column


def bisect(
    ask: Callable[[Tensor, Tensor], Tensor], low: Tensor, high: Tensor, tolerance: Tensor, rows: Tensor
) -> Tensor:
    """The upper ends of brackets that were halved until they are no wider than the tolerance.

    Args:
        ask: which places win, given places and a mask of those to ask about.
        low: places that do not win.
        high: places that do.
        tolerance: the width at which a bracket is left alone.
        rows: mask of the brackets to halve.

    Shapes:
        All of one shape, `(b,)` or `(b, k)`.

    Returns:
        The smallest places that are known to win.
    """
    halvings = _halvings(low, high, tolerance).masked_fill(~rows, 0)
    for k in range(int(halvings.max()) if halvings.numel() else 0):
        rows = halvings > k
        middle = (low + high) / 2
        won = ask(middle, rows)
        high = torch.where(rows & won, middle, high)
        low = torch.where(rows & ~won, middle, low)
    return high


def to_boundary(oracle: Oracle, theta: Tensor, tolerance: float, *, clipping: bool) -> Tensor:
    """Moves that win, brought back to the decision boundary.

    Args:
        oracle: answers about the samples.
        theta: moves that win, `(b, *shape)`.
        tolerance: of the share of a move that still wins; when clipping of its largest value, or of the width of the
            bounds where this is less.
        clipping: clip moves to ever smaller values, as Linf does, instead of taking shares of them.
    """
    low, high = oracle.threat.bounds
    most, width = theta.new_ones(len(theta)), theta.new_full((len(theta),), tolerance)
    if clipping:
        most = theta.flatten(1).abs().amax(dim=1)
        width = tolerance * most.clamp_max(high - low)

    def shrunk(at: Tensor) -> Tensor:
        limit = column(at, theta)
        return theta.minimum(limit).maximum(-limit) if clipping else theta * limit

    rows = torch.ones_like(most, dtype=torch.bool)
    return shrunk(bisect(lambda at, rows: wins(oracle, shrunk(at), rows), torch.zeros_like(most), most, width, rows))


def _halvings(low: Tensor, high: Tensor, tolerance: Tensor) -> Tensor:
    """How often each bracket is halved; no more often than its floating type can tell."""
    width = (high - low) / tolerance.clamp_min(torch.finfo(low.dtype).tiny)
    most = -torch.tensor(torch.finfo(low.dtype).eps).log2()
    return width.nan_to_num(1.0).clamp_min(1).log2().ceil().clamp_max(most.to(low)).long()
