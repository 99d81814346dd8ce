"""L-BFGS for many samples at once, each with its own memory, line search and end.

One round asks one gradient of each sample that still searches. A sample whose trial point is low enough steps there,
remembers how its gradient changed, and turns; one whose trial point is not halves its step, more or less. So nobody
waits for the line search of another, and results do not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import TypeAlias, final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.oracle import Oracle

Objective: TypeAlias = Callable[[Oracle, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]

_DECREASE = 1e-4  # share of the decrease promised by the slope that a step has to bring
_REJECTED = 12  # trials in a row after which the memory is forgotten, or the search is at its end
_STALLED = 5  # steps in a row that bring next to nothing, after which it is at its end
_NARROW_AT = 0.8  # share of samples left at which the working tensors are narrowed


@final
@dataclass(frozen=True)
class _Search:
    """The state of every sample; changed in place.

    Attributes:
        theta, value, grad: where the search is, `(n, d)`, `(n,)`, `(n, d)`.
        direction, step: where it looks next: `theta + step * direction`.
        moves, turns: the last steps and changes of the gradient, `(n, memory, d)`, the newest last; zeros where none.
        rejected, stalled: trials and steps in a row that brought nothing.
        done: at its end.
        place: number in the whole batch.
    """

    theta: Tensor
    value: Tensor
    grad: Tensor
    direction: Tensor
    step: Tensor
    moves: Tensor
    turns: Tensor
    rejected: Tensor
    stalled: Tensor
    done: Tensor
    place: Tensor

    @classmethod
    def of(cls, theta: Tensor, value: Tensor, grad: Tensor, memory: int) -> Self:
        """A search that starts there."""
        n, d = theta.shape
        return cls(
            theta=theta.clone(),
            value=value,
            grad=grad,
            direction=torch.zeros_like(theta),
            step=torch.ones_like(value),
            moves=theta.new_zeros(n, memory, d),
            turns=theta.new_zeros(n, memory, d),
            rejected=torch.zeros(n, dtype=torch.int64, device=theta.device),
            stalled=torch.zeros(n, dtype=torch.int64, device=theta.device),
            done=torch.zeros(n, dtype=torch.bool, device=theta.device),
            place=torch.arange(n, device=theta.device),
        )

    def at(self, rows: Tensor) -> Self:
        """The state of some samples."""
        return replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)})


def minimise(
    oracle: Oracle,
    theta: Tensor,
    objective: Objective,
    *,
    steps: int,
    memory: int,
    first: float,
    tolerance: float,
) -> Tensor:
    r"""Limited-memory BFGS on a sum over samples, with projection on the oracle's threat.

    A trial point is $P(\theta + t d)$ with d the quasi-Newton direction $-H g$ in the coordinates that the threat lets
    move along $-g$. It is taken when it brings 1e-4 of what the slope promises; the pair of step and change of gradient
    is remembered where it shows positive curvature, else the next step along d is twice as long.

    Args:
        oracle: answers the objective's questions, and judges.
        theta: where to start, `(b, *m)`.
        objective: `(oracle, moves, places, rows) -> (values (n,), gradients)` of the samples with these places in the
            batch; it asks the oracle about `rows` of them only.
        steps: gradients of each sample, at most.
        memory: pairs remembered.
        first: longest change of a coordinate in a step along the gradient alone.
        tolerance: decrease, relative to the value (to 1 where that is smaller), below which a step counts as none.

    Returns:
        The moves with the lowest values, `(b, *m)`.

    References:
        Liu, Nocedal, "On the limited memory BFGS method for large scale optimization", Mathematical Programming 45,
        1989, https://doi.org/10.1007/BF01589116
        Lewis, Overton, "Nonsmooth optimization via quasi-Newton methods", Mathematical Programming 141, 2013,
        https://doi.org/10.1007/s10107-012-0514-2
    """
    found, shape = theta.clone(), theta.shape[1:]
    place = torch.arange(len(theta), device=theta.device)
    value, grad = objective(oracle, theta, place, torch.ones_like(place, dtype=torch.bool))
    now = _Search.of(theta.flatten(1), value, grad.flatten(1), memory)
    _turn(now, oracle, ~now.done, first, shape)
    for _ in range(steps - 1):
        searching = oracle.active & ~now.done
        count = int(searching.sum())
        if count == 0:
            break
        if count <= _NARROW_AT * len(searching):
            found[now.place] = now.theta.reshape(-1, *shape)
            rows = searching.nonzero().squeeze(1)
            now, oracle, searching = now.at(rows), oracle.at(rows), searching[rows]
        length = torch.where(searching, now.step, 0)[:, None]
        trial = oracle.threat.project(oracle.x, (now.theta + length * now.direction).reshape(-1, *shape))
        value, grad = objective(oracle, trial, now.place, searching)
        _judge(now, oracle, trial.flatten(1), value, grad.flatten(1), searching, first, shape, tolerance)
    found[now.place] = now.theta.reshape(-1, *shape)
    return found


def _judge(
    now: _Search,
    oracle: Oracle,
    trial: Tensor,
    value: Tensor,
    grad: Tensor,
    asked: Tensor,
    first: float,
    shape: torch.Size,
    tolerance: float,
) -> None:
    """Take the trial points that are low enough, and shorten the steps to the others."""
    move = trial - now.theta
    slope = (now.grad * move).sum(dim=1)
    low = value <= now.value + _DECREASE * slope
    taken, refused = asked & low & (slope < 0), asked & ~(low & (slope < 0))

    bend = value - now.value - slope
    parabola = (-slope / (2 * bend)).nan_to_num(0.5).clamp(0.1, 0.5)
    now.rejected.copy_(torch.where(refused, now.rejected + 1, torch.where(taken, 0, now.rejected)))
    now.step.copy_(torch.where(refused, now.step * parabola, now.step))
    lost = refused & (now.rejected >= _REJECTED)
    fresh = ~now.moves.flatten(1).any(dim=1)
    now.done.logical_or_(lost & fresh)
    again = lost & ~fresh
    for pairs in (now.moves, now.turns):
        pairs[again] = 0

    little = (now.value - value) <= tolerance * now.value.abs().clamp_min(1)
    now.stalled.copy_(torch.where(taken, torch.where(little, now.stalled + 1, 0), now.stalled))
    now.done.logical_or_(taken & (now.stalled >= _STALLED))
    turn = grad - now.grad
    curved = taken & ((move * turn).sum(dim=1) > 1e-8 * move.norm(dim=1) * turn.norm(dim=1))
    rows = curved.nonzero().squeeze(1)
    for pairs, new in ((now.moves, move), (now.turns, turn)):
        pairs[rows] = torch.cat([pairs[rows, 1:], new[rows, None]], dim=1)
    now.theta[taken], now.grad[taken], now.value[taken] = trial[taken], grad[taken], value[taken]
    now.step.copy_(torch.where(taken & ~curved, 2 * now.step, now.step))
    _turn(now, oracle, (curved | again) & ~now.done, first, shape)


def _turn(now: _Search, oracle: Oracle, rows: Tensor, first: float, shape: torch.Size) -> None:
    """New directions for these samples."""
    rows = rows.nonzero().squeeze(1)
    if len(rows) == 0:
        return
    here = now.at(rows)
    grad = here.grad * _free(here, oracle.at(rows), first, shape)
    peak = grad.abs().amax(dim=1, keepdim=True)
    steepest = -grad * (first / torch.where(peak > 0, peak, 1))
    newton = _newton(grad, here.moves, here.turns) * (grad != 0)
    slope = (newton * here.grad).sum(dim=1, keepdim=True)
    known = here.moves.flatten(1).any(dim=1)[:, None]
    now.direction[rows] = torch.where(known & (slope < 0) & newton.isfinite().all(dim=1)[:, None], newton, steepest)
    now.step[rows] = 1.0
    now.rejected[rows] = 0
    now.done[rows] |= peak.squeeze(1) == 0


def _free(here: _Search, oracle: Oracle, first: float, shape: torch.Size) -> Tensor:
    """The coordinates that the threat lets move down the gradient, as a mask `(n, d)`."""
    peak = here.grad.abs().amax(dim=1, keepdim=True)
    down = here.theta - here.grad * (first / torch.where(peak > 0, peak, 1))
    moved = oracle.threat.project(oracle.x, down.reshape(-1, *shape)).flatten(1)
    return (moved != here.theta) | (down == here.theta)


def _newton(grad: Tensor, moves: Tensor, turns: Tensor) -> Tensor:
    """`-H g` by the two-loop recursion; pairs of zeros count for nothing."""
    curvature = (moves * turns).sum(dim=2)
    known = curvature > 0
    inverse = torch.where(known, 1 / torch.where(known, curvature, 1), 0)
    q, shares = grad.clone(), []
    for i in reversed(range(moves.shape[1])):
        share = inverse[:, i] * (moves[:, i] * q).sum(dim=1)
        q = q - share[:, None] * turns[:, i]
        shares.append(share)
    newest, square = curvature[:, -1], turns[:, -1].square().sum(dim=1)
    q = q * torch.where(square > 0, newest / torch.where(square > 0, square, 1), 1)[:, None]
    for i, share in enumerate(reversed(shares)):
        back = inverse[:, i] * (turns[:, i] * q).sum(dim=1)
        q = q + (share - back)[:, None] * moves[:, i]
    return -q
