"""How far along a ray from the clean input the decision changes, and a descent on that length over directions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.attacks.bisection import bisect
from assay.attacks.decisions import wins, wins_among
from assay.attacks.starts import find_start, nearest
from assay.attacks.survey import unit
from assay.oracle import Oracle
from assay.rng import Keyed
from assay.threats.additive import column

_SHARE = 0.01  # by which a length is changed first to bracket the boundary, then twice that, ...
_LARGEST_SHARE = 0.5
_LONGEST = 2.0  # multiple of the guess up to which a length is sought
_TRIES = 15  # of a step that grows, and of one that shrinks
_GROWN, _SHRUNK = 2.0, 0.25  # a step from one try to the next

Ask: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@final
@dataclass(frozen=True)
class Rays:
    """The best ray of each sample so far.

    Args:
        direction: of unit length, `(b, *shape)`.
        length: the least known at which the moved input reaches the goal, `(b,)`; inf where none is known.
    """

    direction: Tensor
    length: Tensor

    def at(self, rows: Tensor) -> Self:
        """The rays of a part of the batch."""
        return type(self)(self.direction[rows], self.length[rows])

    def better(self, direction: Tensor, length: Tensor) -> Self:
        """These, or others where they are shorter."""
        shorter = length < self.length
        direction = torch.where(column(shorter, direction), direction, self.direction)
        return type(self)(direction, torch.where(shorter, length, self.length))


def first_rays(oracle: Oracle, rng: Keyed, count: int, tolerance: float, given: Tensor | None) -> Rays:
    """The shortest of the rays to the given inputs, or else of so many Gaussian ones, or else to noise that wins.

    Args:
        oracle: answers about the samples.
        rng: keyed random numbers, of this search alone.
        count: Gaussian directions; their standard deviation is the range of the bounds.
        tolerance: of lengths.
        given: inputs to start from, `(n, *shape)`.
    """
    x, none = oracle.x, torch.zeros_like(oracle.active)
    rays = Rays(torch.zeros_like(x), x.new_full((len(x),), torch.inf))
    if given is not None:
        order = nearest(x, given, oracle.threat.bounds)
        samples = (given.to(x)[order[:, i]] - x for i in range(order.shape[1]))
        rays = _shortest(oracle, rays, samples, ~none, tolerance)
    low, high = oracle.threat.bounds
    drawn = ((high - low) * rng.normal(*x.shape[1:]).to(x) for _ in range(count))
    rays = _shortest(oracle, rays, drawn, rays.length.isinf(), tolerance)
    missing = (rays.length.isinf() & oracle.active).nonzero().squeeze(1)
    if len(missing):
        found, won = find_start(oracle.at(missing), rng.at(missing).named("noise"))
        noise = torch.zeros_like(x).index_copy(0, missing, found)
        rays = _shortest(oracle, rays, iter([noise]), none.index_copy(0, missing, won), tolerance)
    return rays


def _shortest(oracle: Oracle, rays: Rays, moves: Iterator[Tensor], rows: Tensor, tolerance: float) -> Rays:
    """The shortest among these rays and those of further moves, asked about at the best length first."""
    for move in moves:
        if not bool((rows & oracle.active).any()):
            break
        own = torch.linalg.vector_norm(move.flatten(1), dim=1)
        direction, most = unit(move), own.minimum(rays.length)
        ask = asking(oracle, direction)
        won = ask(most, rows & (most > 0))
        length = bisect(ask, torch.zeros_like(most), most, torch.full_like(most, tolerance), won)
        rays = rays.better(direction, length.masked_fill(~won, torch.inf))
    return rays


def asking(oracle: Oracle, direction: Tensor) -> Ask:
    """Whether moves of given lengths along these rays, `(b, *shape)` or `(b, k, *shape)`, win."""
    several = direction.ndim > oracle.x.ndim

    def ask(length: Tensor, wanted: Tensor) -> Tensor:
        moves = direction * length.reshape(*length.shape, *[1] * (oracle.x.ndim - 1))
        return wins_among(oracle, moves, wanted) if several else wins(oracle, moves, wanted)

    return ask


def shorter(ask: Ask, length: Tensor, tolerance: Tensor, rows: Tensor) -> Tensor:
    """Lengths of rays where they are below the given ones, inf elsewhere."""
    won = ask(length, rows)
    low, high = _inwards(ask, length, tolerance, won)
    return bisect(ask, low, high, tolerance, won).masked_fill(~won, torch.inf)


def lengths(ask: Ask, guess: Tensor, tolerance: Tensor, rows: Tensor) -> Tensor:
    """Lengths of rays, sought from a guess on; twice the guess where they are longer still."""
    won = ask(guess, rows)
    low, high = _inwards(ask, guess, tolerance, won)
    open_, share, most = rows & ~won, _SHARE, _LONGEST * guess
    while bool(open_.any()):
        tried = (torch.where(open_, high, guess) * (1 + share)).minimum(most)
        hit = ask(tried, open_)
        low = torch.where(open_, high, low)
        high = torch.where(open_, tried, high)
        open_, share = open_ & ~hit & (tried < most), min(2 * share, _LARGEST_SHARE)
    return bisect(ask, low, high, tolerance, rows)


def _inwards(ask: Ask, length: Tensor, tolerance: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Brackets of the boundary below lengths that win."""
    low = high = length
    share = _SHARE
    while bool(rows.any()):
        tried = high * (1 - share)
        hit = ask(tried, rows)
        low = torch.where(rows, tried, low)
        high = torch.where(hit, tried, high)
        rows, share = hit & (high > tolerance), min(2 * share, _LARGEST_SHARE)
    return low, high


def line_search(
    oracle: Oracle, rays: Rays, slope: Tensor, step: Tensor, tolerance: Tensor
) -> tuple[Rays, Tensor, Tensor]:
    """Steps of the direction against a slope: ever longer ones while they help, or else shorter ones until one does.

    Args:
        oracle: answers about the samples.
        rays: where they begin.
        slope: of the length over directions, `(b, *shape)`.
        step: first steps, `(b,)`.
        tolerance: of lengths, `(b,)`.

    Returns:
        The shortest rays, the next first steps, and which rays are shorter now.
    """
    best, open_ = rays, oracle.active
    for growing in (True, False):
        for _ in range(_TRIES):
            if not bool(open_.any()):
                break
            if not growing:
                step = torch.where(open_, step * _SHRUNK, step)
            direction = unit(rays.direction - column(step, slope) * slope)
            length = shorter(asking(oracle, direction), best.length, tolerance, open_)
            helped = length < best.length
            best = best.better(direction, length)
            if growing:
                step = torch.where(open_, step * _GROWN, step)
            open_ = open_ & (helped if growing else ~helped)
        open_ = oracle.active & (best.length >= rays.length)
    return best, step, best.length < rays.length
