"""Is another boundary nearer than the one that a search led to? A short walk towards each of the nearest ones tells.

A penalty on the margin leads to the class whose logit is the next largest on the way. On an affine model with ten
classes that boundary may be a third farther than the nearest. A walk costs a few gradients, since each of its steps
solves a linear model, and it stays about as near as the best move known; where it wins, its move is made smaller.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import TypeAlias

import torch
from torch import Tensor

from assay.attacks.guides import Guide, farthest, guides
from assay.attacks.proximal import proximal_step
from assay.goals import Goal
from assay.oracle import Oracle
from assay.threats.additive import column, widened

Touch: TypeAlias = Callable[[Oracle, Goal, Tensor], Tensor]  # makes moves that win smaller

_STEPS = 10  # gradients of a walk, at most
_REACH = 1.2  # how far it may go, in sizes of the best move known
_FINAL_SHARE = 0.05  # of the last move that a step may give up, at the end; all of it at first
_BEYOND = 0.02  # how far behind the boundary to aim, as a share of what the whole move gains
_RAISE = 1.3  # of the gap that a step is to close, after each one that did not


def try_boundaries(oracle: Oracle, goal: Goal, theta: Tensor, found: Tensor, targets: int, touch: Touch) -> Tensor:
    """The smaller ones of the moves known and those at the nearest boundaries, for each sample.

    Args:
        oracle: answers questions about moves, which are perturbations.
        goal: what makes a move win.
        theta: the moves, `(b, *shape)`.
        found: which of them win, `(b,)`.
        targets: how many boundaries are tried, those that look nearest from the clean input first. Towards a target it
            is the target's own alone, and of two classes none.
        touch: makes the moves found on the way smaller.
    """
    theta = theta.clone()
    known = torch.where(found, oracle.threat.size(oracle.x, theta), torch.inf)
    for guide in islice(guides(oracle, goal, None, targets), 1, None):
        rows = oracle.active.nonzero().squeeze(1)
        move, won = walk(oracle.at(rows), guide.at(rows), known[rows])
        rows = rows[won]
        part = oracle.at(rows)
        move = touch(part, goal.at(rows), move[won])
        size = part.threat.size(part.x, move)
        smaller = size < known[rows]
        theta[rows[smaller]], known[rows[smaller]] = move[smaller], size[smaller]
        if oracle.finished:
            break
    return theta


def walk(oracle: Oracle, guide: Guide, known: Tensor) -> tuple[Tensor, Tensor]:
    """From the clean inputs to beyond the boundary of a guide: the first moves that win, else the last; who has won.

    With g the gradient of the guide's lead at the move d, the next one is the least move t near d, within the box and
    1.2 times the best size known, with `lead(d) + <g, t - d> = r gap`; r is 1 at first and rises with every step.

    Args:
        oracle: answers questions about moves, which are perturbations.
        guide: whose boundary it is.
        known: sizes of the best moves known, `(b,)`; inf where there is none.
    """
    threat, x = oracle.threat, widened(oracle.x)
    theta, towards = torch.zeros_like(x), oracle.towards(guide.goal)
    won, one = torch.zeros_like(oracle.active), x.new_ones(len(x))
    ball = threat.with_eps(farthest(threat, x).minimum(_REACH * widened(known)))
    for step in range(_STEPS):
        left = oracle.active & ~won
        if not bool(left.any()):
            break
        _, grad, output = towards.gradient(theta.to(oracle.x.dtype), guide.lead, rows=left)
        won = won | (left & oracle.goal.reached(output))
        grad, gap = widened(grad), guide.gap(output).to(x).nan_to_num(0) * _RAISE**step
        need = gap + _BEYOND * ((grad * theta).flatten(1).sum(dim=1) + gap).abs()
        moved = proximal_step(threat, x, theta, grad, need, one * _FINAL_SHARE ** (step / _STEPS))
        theta = torch.where(column(left & ~won, theta), ball.project(x, moved), theta)
    theta, left = theta.to(oracle.x.dtype), oracle.active & ~won
    if bool(left.any()):
        won = won | (left & oracle.goal.reached(oracle.scores(theta, rows=left)))
    return theta, won
