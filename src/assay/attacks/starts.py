"""Where searches along the decision boundary start: some move that reaches the goal, however large."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from assay.attacks.decisions import wins
from assay.errors import InputError
from assay.oracle import Oracle
from assay.rng import Keyed
from assay.threats.additive import column

TRIED = 100  # inputs of each origin that are tried, at most
_TOGETHER = 32  # inputs in one question, at most
_SHARES = (1.0, 0.5, 0.75, 0.25)  # of noise in the blends that are tried one after the other


def find_start(oracle: Oracle, rng: Keyed, given: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """For each sample the first of a series of inputs that reaches the goal.

    The series: the given inputs, the nearest first; then noise and blends of it with the clean input. Noise is in turn
    uniform, at one or the other bound, and of one value for each channel (the first of these in the middle of the
    bounds): models tend to take all noise of one kind for one class.

    Args:
        oracle: answers about the samples.
        rng: keyed random numbers, of this search alone.
        given: inputs to start from, `(n, *shape)`, for all samples.

    Returns:
        Moves `(b, *shape)`, and which of them win, `(b,)` bool.

    Raises:
        InputError: the given inputs are not like the clean ones, or leave the bounds.
    """
    x = oracle.x
    best, found = torch.zeros_like(x), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for moves in _series(oracle, rng, given):
        if not bool((oracle.active & ~found).any()):
            break
        won = wins(oracle, moves, ~found)
        first = won.long().argmax(dim=1)
        new = won.any(dim=1)
        best = torch.where(column(new, x), moves[torch.arange(len(x), device=x.device), first], best)
        found |= new
    return best, found


def nearest(x: Tensor, given: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Numbers of the given inputs by distance from each clean one, `(b, n)`, n at most 100.

    Raises:
        InputError: they are not like the clean inputs, or leave the bounds.
    """
    low, high = bounds
    if not isinstance(given, Tensor):
        raise InputError(f"start must be a tensor of inputs like x; got {type(given).__name__}.")
    if given.ndim != x.ndim or given.shape[1:] != x.shape[1:] or not len(given):
        raise InputError(
            f"start must hold inputs like x, (n, {', '.join(map(str, x.shape[1:]))}); got {tuple(given.shape)}."
        )
    if not bool(((given >= low) & (given <= high)).all()):
        raise InputError(f"start must lie in the bounds ({low}, {high}); it has values outside, or NaN.")
    exact = "donot_use_mm_for_euclid_dist"  # which does not depend on the batch
    distance = torch.cdist(x.flatten(1), given.to(x).flatten(1), compute_mode=exact)
    return distance.argsort(dim=1, stable=True)[:, :TRIED]


def _series(oracle: Oracle, rng: Keyed, given: Tensor | None) -> Iterator[Tensor]:
    """Moves `(b, k, *shape)` to try."""
    x = oracle.x
    if given is not None:
        order = nearest(x, given, oracle.threat.bounds)
        for group in _groups(order.shape[1]):
            yield given.to(x)[order[:, group.start : group.stop]] - x[:, None]
    for group in _groups(TRIED):
        yield torch.stack([_blend(x, rng, oracle.threat.bounds, i) for i in group], dim=1)


def _groups(count: int) -> Iterator[range]:
    """Numbers below count in groups of 1, 1, 2, 4, ... 32, the same for every batch."""
    start = 0
    while start < count:
        stop = min(start + min(max(start, 1), _TOGETHER), count)
        yield range(start, stop)
        start = stop


def _blend(x: Tensor, rng: Keyed, bounds: tuple[float, float], number: int) -> Tensor:
    """The move to the blend of this number."""
    low, high = bounds
    kind, share = number % 3, _SHARES[number // 3 % len(_SHARES)]
    shape = x.shape[1:] if kind < 2 else (x.shape[1] if x.ndim > 2 else 1, *[1] * (x.ndim - 2))
    unit = rng.uniform(*shape).to(x)
    if kind == 1:
        unit = (unit < 0.5).to(x)
    elif number == kind == 2:
        unit = torch.full_like(unit, 0.5)
    return share * (low + (high - low) * unit - x)
