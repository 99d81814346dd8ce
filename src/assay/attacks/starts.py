"""Where searches along the decision boundary start: some move that reaches the goal, however large."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from assay.attacks.bisection import to_boundary
from assay.attacks.decisions import reached, wins
from assay.errors import InputError
from assay.goals import Untargeted
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


def find_near_start(
    oracle: Oracle, rng: Keyed, given: Tensor | None, *, tried: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """As `find_start`, of the wrong classes among the first inputs that whose start is nearest to the clean input.

    The first start of each class is brought to the decision boundary, and the nearest is kept. Where the goal is one
    class, or no second one comes up, the first input that wins is returned as it is.

    Args:
        oracle: answers about the samples.
        rng: keyed random numbers, of this search alone.
        given: inputs to start from, `(n, *shape)`, for all samples.
        tried: inputs that are asked about though one has won.
        tolerance: of the share of a start at which it is brought back.
    """
    if tried == 1 or not isinstance(oracle.goal, Untargeted):
        return find_start(oracle, rng, given)
    starts, classes = _of_each_class(oracle, rng, given, tried)
    best, found = starts[:, 0], classes[:, 0] >= 0
    several = (classes >= 0).sum(dim=1) > 1
    length = best.new_full((len(best),), torch.inf)
    for theta, named in zip(starts.unbind(1), classes.unbind(1), strict=True):
        rows = (several & (named >= 0)).nonzero().squeeze(1)
        part = oracle.at(rows)
        near = to_boundary(part, theta[rows], tolerance, clipping=False)
        size = part.threat.size(part.x, near)
        nearer = size < length[rows]
        best = best.index_copy(0, rows, torch.where(column(nearer, near), near, best[rows]))
        length = length.index_copy(0, rows, torch.where(nearer, size, length[rows]))
    return best, found


def _of_each_class(oracle: Oracle, rng: Keyed, given: Tensor | None, tried: int) -> tuple[Tensor, Tensor]:
    """The first move that wins of each class, `(b, n, *shape)`, and the classes, `(b, n)`; -1 where there are fewer."""
    x, asked = oracle.x, 0
    starts, classes = torch.zeros_like(x)[:, None], torch.full_like(oracle.active, -1, dtype=torch.int64)[:, None]
    for group in _series(oracle, rng, given):
        within = min(max(tried - asked, 0), group.shape[1])
        for moves, all_ask in ((group[:, :within], True), (group[:, within:], False)):
            rows = oracle.active if all_ask else oracle.active & (classes[:, 0] < 0)
            if moves.shape[1] == 0 or not bool(rows.any()):
                continue
            labels = oracle.labels(moves, rows)
            won = reached(oracle.goal, labels)
            for move, label, wins_now in zip(moves.unbind(1), labels.unbind(1), won.unbind(1), strict=True):
                new = wins_now & (classes != label[:, None]).all(dim=1)
                if bool((new & (classes[:, -1] >= 0)).any()):
                    starts = torch.cat([starts, torch.zeros_like(starts[:, :1])], dim=1)
                    classes = torch.cat([classes, torch.full_like(classes[:, :1], -1)], dim=1)
                place = (classes < 0).long().argmax(dim=1)
                each = new.nonzero().squeeze(1)
                starts[each, place[each]], classes[each, place[each]] = move[each], label[each]
        asked += group.shape[1]
        if asked >= tried and not bool((oracle.active & (classes[:, 0] < 0)).any()):
            break
    return starts, classes


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
