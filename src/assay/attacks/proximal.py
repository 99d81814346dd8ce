"""Proximal steps whose multiplier is solved for: the smallest move near the present one that a linear model asks for.

Around a move `theta` the gain of the constraint is modelled by `<g, z - theta>`. A step minimises the size of z and
stays near theta, with the multiplier of the constraint such that the model gains what it needs. How near is a share of
theta in (0, 1], which has no unit: with 1 theta is given up, and z is the smallest move of all that gains it.

Each threat has its own step, exact up to bisection, within the box:

- L2: `z = clip((1 - share) theta + m g)`, the minimiser of `||z||^2 + (1 / share - 1) ||z - theta||^2`.
- Linf: `z = clip(theta + share ||theta|| sign(g), -t, t)`, the least level t among moves within this reach.
- L1: coordinates with `m |g_i| > 1` go up by `share max |theta|`, the others go that far towards 0: the minimiser
  among moves within this reach, where one coordinate may stop in between.
- L0: `share ||theta||_0` exchanges of units (at least one) at the least count t; with a share of 1, t units that go no
  farther than they have to, since then the model holds best.
- any other: `z = P_t(ascend(theta, g, share size(theta)))` with the threat's own steepest ascent, and P_t its
  projection on the moves of size t, which is the proximal map of its size for the multiplier that belongs to t.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from assay.attacks.halfspace import boxed_move
from assay.threats import L0, L1, L2, Linf, Threat
from assay.threats.additive import column

_HALVINGS = 24


def proximal_step(threat: Threat, x: Tensor, theta: Tensor, grad: Tensor, need: Tensor, share: Tensor) -> Tensor:
    """The smallest move near theta by which the linear model gains `need`; where none does, one that gains most.

    Args:
        threat: whose size is to be small; its budget does not matter.
        x: clean inputs, `(b, *shape)`.
        theta: moves, `(b, *m)`.
        grad: gradients of the constraint, `(b, *m)`.
        need: what the linear model has to gain, `(b,)`; negative where there is some to give away.
        share: which part of theta may be given up, `(b,)` in (0, 1].

    Returns:
        Moves `(b, *m)` inside the bounds.

    Example:
        >>> import torch
        >>> x, g = torch.full((1, 2), 0.5), torch.tensor([[3.0, 4.0]])
        >>> proximal_step(L2(), x, torch.zeros_like(x), g, torch.tensor([1.0]), torch.ones(1))
        tensor([[0.1200, 0.1600]])
    """
    peak = grad.flatten(1).abs().amax(dim=1)
    peak = torch.where(peak > 0, peak, 1)
    grad = grad / column(peak, grad)
    most = torch.finfo(need.dtype).max ** 0.5
    need = (need / peak).clamp(-most, most) + _dot(grad, theta)  # what the new move itself has to hold
    free = threat.with_eps(None)
    if isinstance(free, L2):
        return _shrunk(free, x, theta, grad, need, share)
    if isinstance(free, Linf):
        return _levelled(free, x, theta, grad, need, share)
    if isinstance(free, L1):
        return _exchanged(free, x, theta, grad, need, share)
    if isinstance(free, L0):
        return _counted(free, x, theta, grad, need, share)
    return _projected(free, x, theta, grad, need, share)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(dim=1)


def _room(threat: Threat, x: Tensor) -> tuple[Tensor, Tensor]:
    low, high = threat.bounds
    return low - x, high - x


def _clip(move: Tensor, low: Tensor, high: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(move, low), high)


def _least(at: Callable[[Tensor], Tensor], grad: Tensor, need: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The point `at(s)` for the least s in [low, high] that holds `need`; its gain rises with s.

    Bisection, then the point between the last two that holds it exactly.
    """
    least = at(low)
    enough = _dot(grad, least) >= need
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        reached = _dot(grad, at(middle)) >= need
        low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
    below, above = at(low), at(high)
    held, rise = _dot(grad, below), _dot(grad, above) - _dot(grad, below)
    part = ((need - held) / torch.where(rise > 0, rise, 1)).clamp(0, 1)
    between = below + column(torch.where(rise > 0, part, 1), grad) * (above - below)
    return torch.where(column(enough, grad), least, between)


def _shrunk(threat: L2, x: Tensor, theta: Tensor, grad: Tensor, need: Tensor, share: Tensor) -> Tensor:
    low, high = _room(threat, x)
    base = _clip(theta * column(1 - share, theta), low, high)
    room = (low - base).flatten(1), (high - base).flatten(1)
    move, _ = boxed_move(grad.flatten(1), need - _dot(grad, base), room[0], room[1], "l2")
    return base + move.reshape(base.shape)


def _levelled(threat: Linf, x: Tensor, theta: Tensor, grad: Tensor, need: Tensor, share: Tensor) -> Tensor:
    low, high = _room(threat, x)
    width, level = threat.bounds[1] - threat.bounds[0], theta.flatten(1).abs().amax(dim=1)
    reach = torch.where(share < 1, share * level, 2 * width)
    ahead = _clip(theta + column(reach, theta) * grad.sign(), low, high)

    def at(t: Tensor) -> Tensor:
        t = column(t, theta)
        return _clip(ahead, -t, t)

    return _least(at, grad, need, (1 - share) * level, (level + reach).clamp_max(width))


def _exchanged(threat: L1, x: Tensor, theta: Tensor, grad: Tensor, need: Tensor, share: Tensor) -> Tensor:
    low, high = _room(threat, x)
    width, peak = threat.bounds[1] - threat.bounds[0], theta.flatten(1).abs().amax(dim=1)
    reach = column(torch.where(share < 1, share * peak, width), theta)
    up = _clip(theta + reach * grad.sign(), low, high)
    down = theta.sign() * (theta.abs() - reach).clamp_min(0)
    return _least(
        lambda s: torch.where(grad.abs() >= column(1 - s, grad), up, down),  # |g| is at most 1
        grad,
        need,
        torch.full_like(need, -0.5),  # nobody goes up
        torch.ones_like(need),
    )


def _counted(threat: L0, x: Tensor, theta: Tensor, grad: Tensor, need: Tensor, share: Tensor) -> Tensor:
    whole, count = share >= 1, threat.size(x, theta)
    units = torch.full_like(count, x[0].numel())
    exchanges = torch.where(whole, units, (share * count).clamp_min(1))
    theta = theta * column((~whole).to(theta), theta)

    def at(t: Tensor) -> Tensor:
        ball = threat.with_eps(t)
        return ball.ascend(x, ball.project(x, theta), grad, exchanges)

    low = torch.where(whole, 0, (count - exchanges).ceil().clamp_min(0))
    least, high = low - 1, torch.where(whole, units, count + exchanges.ceil())
    while bool((left := high - least > 1).any()):  # least is too few, or untried; high is enough, or the most
        middle = ((least + high) / 2).floor()
        reached = _dot(grad, at(torch.where(left, middle, high))) >= need
        least, high = torch.where(left & ~reached, middle, least), torch.where(left & reached, middle, high)
    move = at(high)
    held = _dot(grad, move)
    spare = whole & (need > 0) & (held > need)
    return move * column(torch.where(spare, need / torch.where(spare, held, 1), 1), move)


def _projected(threat: Threat, x: Tensor, theta: Tensor, grad: Tensor, need: Tensor, share: Tensor) -> Tensor:
    nothing = threat.identity(x)
    length = torch.full_like(need, torch.finfo(need.dtype).eps)

    def straight(r: Tensor) -> Tensor:
        return threat.project(x, threat.ascend(x, nothing, grad, r))

    whole = share >= 1
    if bool(whole.any()):
        for _ in range(64):
            short = _dot(grad, straight(length)) < need
            if not bool(short.any()):
                break
            length = torch.where(short, 2 * length, length)
        first = _least(straight, grad, need, torch.zeros_like(length), length)
        if bool(whole.all()):
            return first
    size = threat.size(x, theta)
    ahead = threat.project(x, threat.ascend(x, theta, grad, share * size))
    low = (1 - share) * size
    near = _least(
        lambda t: threat.with_eps(t).project(x, ahead),
        grad,
        need,
        low,
        torch.maximum(threat.size(x, ahead), low),
    )
    return torch.where(column(whole, theta), first, near) if bool(whole.any()) else near
