"""Lp balls intersected with the box of valid inputs: the move is the perturbation itself."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.rng import Keyed
from assay.threats.additive import Additive, column, widened

_L1_SHARE = 0.01  # share of the coordinates that one L1 ascent step moves


@final
@dataclass(frozen=True, eq=False, repr=False)
class Linf(Additive):
    """`max_i |x'_i - x_i| <= eps`.

    Steepest ascent: `theta + step * sign(grad)`. Projection: clipping to [-eps, eps] and to the bounds, which for this
    norm is exactly the nearest point. Start: uniform in the ball.

    Args:
        eps: the budget, in units of the input (8/255 for images in [0, 1]).
        bounds: the smallest and largest valid input value.

    Example:
        >>> import torch
        >>> Linf(0.1).project(torch.tensor([[0.5, 0.95]]), torch.tensor([[-0.3, 0.3]]))
        tensor([[-0.1000,  0.0500]])
    """

    name: ClassVar[str] = "linf"

    def start(self, x: Tensor, rng: Keyed) -> Tensor:
        """Uniform in the ball, then clipped to the bounds."""
        eps = column(self.budget(x), x)
        return self.project(x, self._uniform(x, rng, -1.0, 1.0).mul_(eps))

    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        """Clip to the ball and the bounds."""
        low, high = self._room(x)
        if isinstance(self.eps, Tensor):
            eps = column(self.budget(x), x)
            low, high = torch.maximum(low, -eps), torch.minimum(high, eps)
        elif self.eps is not None:
            low.clamp_(min=-self.eps)
            high.clamp_(max=self.eps)
        return torch.minimum(torch.maximum(theta, low), high)

    def ascend(self, x: Tensor, theta: Tensor, grad: Tensor, step: Tensor) -> Tensor:
        """Sign step."""
        return torch.addcmul(theta, grad.sign(), column(step, theta))

    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        """Largest absolute change."""
        return self._moved(x, theta).abs_().amax(dim=1)

    def slack(self, x: Tensor) -> float:
        """One rounding error."""
        return self._unit(x)


@final
@dataclass(frozen=True, eq=False, repr=False)
class L2(Additive):
    """`||x' - x||_2 <= eps`.

    Steepest ascent: `theta + step * grad / ||grad||_2`. Projection: the exact nearest point of ball and box,
    `clamp(s * theta, low - x, high - x)` with the largest `s <= 1` whose norm is at most eps. Start: uniform in the
    ball (a Gaussian direction with length `eps * U^(1/d)`), then projected.

    Args:
        eps: the budget, in units of the input.
        bounds: the smallest and largest valid input value.

    Example:
        >>> import torch
        >>> L2(1.0).project(torch.full((1, 2), 0.0), torch.tensor([[3.0, 0.6]]))
        tensor([[0.9806, 0.1961]])
        >>> L2(1.1).project(torch.full((1, 2), 0.0), torch.tensor([[3.0, 0.6]]))
        tensor([[1.0000, 0.4583]])
    """

    name: ClassVar[str] = "l2"
    hollow: ClassVar[bool] = True

    def start(self, x: Tensor, rng: Keyed) -> Tensor:
        """Uniform in the ball, then projected."""
        direction = rng.normal(*x.shape[1:]).to(x)
        length = self.budget(x) * rng.uniform(1).to(x).squeeze(1) ** (1 / x[0].numel())
        norm = torch.linalg.vector_norm(direction.flatten(1), dim=1).clamp_min(torch.finfo(x.dtype).tiny)
        return self.project(x, direction.mul_(column(length / norm, x)))

    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        """Exact nearest point of ball and box."""
        low, high = self._room(x)
        inside = torch.minimum(torch.maximum(theta, low), high)
        if self.eps is None:
            return inside
        eps = self.budget(x)
        norm = torch.linalg.vector_norm(inside.flatten(1), dim=1)
        far = norm > eps
        if not bool(far.any()):
            return inside
        rows = far.nonzero().squeeze(1)
        parts = (widened(v[rows]) for v in (theta, low, high, eps))
        inside[rows] = _scaled_into(*parts).to(inside.dtype)
        return inside

    def ascend(self, x: Tensor, theta: Tensor, grad: Tensor, step: Tensor) -> Tensor:
        """Normalised step; scaled to a largest value of 1 first, since squares of small gradients vanish."""
        peak = grad.flatten(1).abs().amax(dim=1)
        unit = grad / column(torch.where(peak > 0, peak, 1), grad)
        norm = torch.linalg.vector_norm(unit.flatten(1), dim=1)
        return torch.addcmul(theta, unit, column(step / norm.clamp_min(1), theta))

    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        """Euclidean length of the change."""
        length: Tensor = torch.linalg.vector_norm(self._moved(x, theta), dim=1)
        return length

    def slack(self, x: Tensor) -> float:
        """One rounding error in every coordinate."""
        return self._unit(x) * math.sqrt(x[0].numel())


def _scaled_into(theta: Tensor, low: Tensor, high: Tensor, eps: Tensor) -> Tensor:
    """`clamp(s * theta, low, high)` with s such that its L2 norm is eps (it is larger for s = 1).

    The squared norm is `s^2 A + B` with the sums A over the free and B over the clamped coordinates. Starting from
    `s = eps / ||theta||`, where the norm is at most eps, solving for s with the present A and B only ever clamps more
    coordinates, so that s rises to the solution and reaches it when no coordinate changes any more.
    """
    square = theta.flatten(1).square()
    scale = eps / square.sum(dim=1).sqrt().clamp_min(torch.finfo(theta.dtype).tiny)
    clamped_before = torch.full_like(eps, -1, dtype=torch.int64)
    while True:
        scaled = theta * column(scale, theta)
        move = torch.minimum(torch.maximum(scaled, low), high)
        clamped = (move != scaled).flatten(1)
        count = clamped.sum(dim=1)
        if bool((count <= clamped_before).all()):
            return move
        clamped_before = count
        free = square.masked_fill(clamped, 0).sum(dim=1)
        rest = (eps.square() - move.flatten(1).square().masked_fill_(~clamped, 0).sum(dim=1)).clamp_min(0)
        scale = torch.where(free > 0, (rest / free.clamp_min(torch.finfo(theta.dtype).tiny)).sqrt(), scale)


@final
@dataclass(frozen=True, eq=False, repr=False)
class L1(Additive):
    """`sum_i |x'_i - x_i| <= eps`.

    Steepest ascent moves along the single largest coordinate of `|grad|`. As that is slow where the gradient changes,
    only half of the length `step` is spent so, and half is shared out equally among the largest 1 % of the coordinates
    (at least one); what the bounds refuse goes to the next largest. (Sharing out all of it never leaves equal amounts
    on the 1 %, even where fewer coordinates would do.) Projection: the exact nearest point of ball and box. Start:
    uniform in the ball, then projected.

    Args:
        eps: the budget, in units of the input.
        bounds: the smallest and largest valid input value.

    References:
        Tramer, Boneh, "Adversarial training and robustness for multiple perturbations", NeurIPS 2019,
        https://arxiv.org/abs/1904.13000 (sparse steps).
        Croce, Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", ICML 2021,
        https://arxiv.org/abs/2103.01208 (projection on ball and box).

    Example:
        >>> import torch
        >>> L1(1.0).project(torch.full((1, 3), 0.5), torch.tensor([[2.0, 0.4, -0.1]]))
        tensor([[ 0.5000,  0.4000, -0.1000]])
        >>> L1(0.75).project(torch.full((1, 3), 0.5), torch.tensor([[2.0, 0.5, -0.125]]))
        tensor([[0.5000, 0.2500, -0.0000]])
    """

    name: ClassVar[str] = "l1"

    def start(self, x: Tensor, rng: Keyed) -> Tensor:
        """Uniform in the ball (normalised exponentials with random signs), then projected."""
        d = x[0].numel()
        unit = rng.uniform(d + 1)
        exponential = -torch.log1p(-unit)
        magnitude = exponential[:, :d] / exponential.sum(dim=1, keepdim=True).clamp_min(torch.finfo(unit.dtype).tiny)
        sign = 1 - 2 * rng.integers(0, 2, d).to(magnitude)
        theta = (magnitude * sign).to(x).reshape(x.shape)
        return self.project(x, theta.mul_(column(self.budget(x), x)))

    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        """Exact nearest point of ball and box."""
        low, high = self._room(x)
        inside = torch.minimum(torch.maximum(theta, low), high)
        if self.eps is None:
            return inside
        eps = self.budget(x)
        far = inside.flatten(1).abs().sum(dim=1) > eps
        if not bool(far.any()):
            return inside
        rows = far.nonzero().squeeze(1)
        part = theta[rows]
        room = torch.where(part > 0, high[rows], -low[rows]).flatten(1)
        parts = (widened(v) for v in (part.flatten(1).abs(), room, eps[rows]))
        inside[rows] = _shrunk_into(*parts).to(part.dtype).reshape(part.shape) * part.sign()
        return inside

    def ascend(self, x: Tensor, theta: Tensor, grad: Tensor, step: Tensor) -> Tensor:
        """Half of the length along the steepest coordinates one by one, half shared out."""
        steepest = self.ascend_sparse(x, theta, grad, step / 2, torch.zeros_like(step))
        return self.ascend_sparse(x, steepest, grad, step / 2, torch.full_like(step, _L1_SHARE))

    def ascend_sparse(self, x: Tensor, theta: Tensor, grad: Tensor, step: Tensor, share: Tensor) -> Tensor:
        """Equal steps of total length `step` on a share `(b,)` of all coordinates (at least one).

        The largest of `|grad|` are taken; what the bounds refuse goes to the next largest.
        """
        low, high = self._room(x)
        room = torch.where(grad > 0, high - theta, theta - low).flatten(1)
        strength = grad.abs().flatten(1).masked_fill(room <= 0, 0)
        count = (share * strength.shape[1]).long().clamp(1, strength.shape[1])
        strength, order = strength.sort(dim=1, descending=True, stable=True)
        portion = torch.minimum(room.gather(1, order), (step / count)[:, None]) * (strength > 0)
        spent = portion.cumsum(dim=1) - portion
        portion = torch.minimum(portion, (step[:, None] - spent).clamp_min(0))
        move = torch.zeros_like(strength).scatter_(1, order, portion).reshape(grad.shape)
        return theta + move * grad.sign()

    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        """Sum of absolute changes."""
        return self._moved(x, theta).abs_().sum(dim=1)

    def slack(self, x: Tensor) -> float:
        """One rounding error in every coordinate."""
        return self._unit(x) * x[0].numel()


def _shrunk_into(magnitude: Tensor, room: Tensor, eps: Tensor) -> Tensor:
    """`clamp(magnitude - cut, 0, room)` with the cut such that the sum is eps (it is larger for a cut of 0).

    The sum falls piecewise linearly in the cut. Newton's step on the present piece is taken where it stays inside the
    bracket, half of the bracket otherwise; it ends at rounding error.
    """
    below, above = torch.zeros_like(eps), magnitude.amax(dim=1)
    cut = torch.zeros_like(eps)
    tolerance = 4 * torch.finfo(eps.dtype).eps * eps.clamp_min(torch.finfo(eps.dtype).tiny)
    result = torch.minimum(magnitude, room)
    for _ in range(100):
        excess = result.sum(dim=1) - eps
        if bool((excess.abs() <= tolerance).all()):
            break
        below, above = torch.where(excess > 0, cut, below), torch.where(excess > 0, above, cut)
        sloped = ((result > 0) & (result < room)).sum(dim=1)
        newton = cut + excess / sloped.clamp_min(1)
        ok = (sloped > 0) & (newton > below) & (newton < above)
        cut = torch.where(excess.abs() <= tolerance, cut, torch.where(ok, newton, (below + above) / 2))
        result = torch.minimum((magnitude - cut[:, None]).clamp_(min=0), room)
    return result
