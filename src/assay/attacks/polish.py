"""The last stretch to the boundary: from the best move found, towards the least one in the linearised problem."""

from __future__ import annotations

import torch
from torch import Tensor

from assay import losses
from assay.attacks.boundaries import class_goal
from assay.attacks.halfspace import Norm, boxed_move, size
from assay.goals import Goal
from assay.oracle import Oracle
from assay.threats.additive import widened

_BEYOND = 1e-4  # how far behind the boundary to aim, as a share of the margin that the move gains
_CAUTION = 1.1  # on the measured bend of the boundary
_SHORTEST = 1 / 64  # share of the way below which a sample is given up
_ENOUGH = 1e-4  # relative gain of a whole step below which a sample is done


def polish_best(oracle: Oracle, goal: Goal, rounds: int, norm: Norm) -> None:
    """Polish the best move known of each sample that is not done; the referee keeps what comes of it.

    Args:
        oracle: tracks the best moves, which are perturbations.
        goal: what makes a move win.
        rounds: gradient evaluations, at most.
        norm: in which moves are small.
    """
    rows = (oracle.active & oracle.best_distance.isfinite()).nonzero().squeeze(1)
    part, goal = oracle.at(rows), class_goal(goal).at(rows)
    polish(part, part.x, goal, part.best_x - part.x, goal.confidence, rounds, norm)


def polish(oracle: Oracle, x: Tensor, goal: Goal, theta: Tensor, confidence: float, rounds: int, norm: Norm) -> Tensor:
    """Make moves that win smaller.

    At such a move d the margin m is linear to first order, with gradient g. The least move t in the box with
    `m + <g, t - d> = confidence + push` is never longer than d, nor is any point between the two. A step of the way s
    from d to t is taken where it wins; otherwise s is halved. The boundary's bend, measured at each trial, makes `push`
    large enough for the next.

    Args:
        oracle: answers questions about moves.
        x: clean inputs.
        goal: what makes a move win.
        theta: the moves, `(b, *shape)`.
        confidence: the margin that a success needs.
        rounds: gradient evaluations, at most.
        norm: in which moves are small.
    """
    if rounds < 2 or len(x) == 0:
        return theta
    low, high = oracle.threat.bounds
    clean, base = widened(x).flatten(1), widened(theta).flatten(1)

    def ask(move: Tensor, live: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        margin, grad, output = oracle.gradient(move.reshape(x.shape).to(x.dtype), losses.margin, rows=live)
        return widened(margin), widened(grad).flatten(1), goal.reached(output) & (margin >= confidence)

    base_margin, base_grad, live = ask(base)
    length = size(base, norm)
    share, bend = torch.ones_like(length), torch.zeros_like(length)
    for _ in range(rounds - 1):
        live = live & oracle.active & (share >= _SHORTEST)
        if not bool(live.any()):
            break
        total = (base_grad * base).sum(dim=1)
        aim = confidence + _BEYOND * total.abs() + _CAUTION * share * bend
        end, _ = boxed_move(base_grad, aim - base_margin + total, low - clean, high - clean, norm)
        way = (end - base) * share[:, None]
        expected = base_margin + (base_grad * way).sum(dim=1)
        margin, grad, won = ask(base + way, live)
        shorter = size(base + way, norm)
        better = won & (shorter < length)
        settled = better & (share == 1) & (shorter > (1 - _ENOUGH) * length)
        bent = ((expected - margin) / share.square()).clamp_min(0)
        bend = torch.where(bent.isfinite(), bent, bend)
        base = torch.where(better[:, None], base + way, base)
        base_margin = torch.where(better, margin, base_margin)
        base_grad = torch.where(better[:, None], grad, base_grad)
        length = torch.where(better, shorter, length)
        share = torch.where(better, (2 * share).clamp_max(1), share / 2)
        live = live & ~settled
    return base.reshape(x.shape).to(x.dtype)
