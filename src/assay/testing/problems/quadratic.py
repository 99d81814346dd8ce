"""Two classes with a sphere between them: a curved decision boundary with exact distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from assay.errors import SettingError
from assay.testing.problems.base import Norm, Problem


class SphereModel(nn.Module):
    """Scores (1 - ||x - c||^2 / r^2, 0): class 0 inside the sphere, class 1 outside."""

    center: Tensor

    def __init__(self, center: Tensor, radius: float) -> None:
        super().__init__()
        self.register_buffer("center", center)
        self.radius = radius

    def forward(self, x: Tensor) -> Tensor:
        """Scores (b, 2)."""
        inside = 1 - (x.flatten(1) - self.center).square().sum(1) / self.radius**2
        return torch.stack([inside, torch.zeros_like(inside)], 1)


@final
@dataclass(frozen=True, kw_only=True)
class Quadratic(Problem):
    r"""Class 0 inside the sphere $\|x - c\|_2 = r$, class 1 outside.

    The ball lies inside the box, so the box never binds on the way in or out. With $u = |x - c|$:

    - $L_2$: $|r - \|u\|_2|$, along the radius.
    - $L_\infty$ outwards: every coordinate moves away, $\sum (u_i + \epsilon)^2 = r^2$, a quadratic in
      $\epsilon$; inwards every coordinate comes nearer, $\sum \max(u_i - \epsilon, 0)^2 = r^2$, solved by
      bisection.
    - $L_1$ outwards: a convex function is largest at a corner of the $L_1$ ball, so the coordinate with the
      largest $u$ moves alone; inwards the largest coordinates are cut down to one level, $\sum \min(u_i,
      \tau)^2 = r^2$.

    The outward problem has local maxima besides the global one (in $L_1$ at every coordinate), the inward problem has
    none. In the inputs inside, all $u_i$ are alike within 4 %, so that each of these maxima is nearly as good as the
    best and the steepest way out is also the shortest.

    Args:
        shape: The shape of one input.
        bounds: The box of valid inputs; the ball has its centre in the middle and nine tenths of its width.
        side: Which inputs are drawn: "inside" (the decision falls by going out), "outside", or "both" in
            turn.
        seed: Chooses the inputs, with the seed of `inputs`.

    Example:
        >>> problem = Quadratic(shape=(4,), side="outside")
        >>> x, y = problem.inputs(2)
        >>> y
        tensor([1, 1])
    """

    shape: tuple[int, ...] = (3, 4, 4)
    bounds: tuple[float, float] = (0.0, 1.0)
    side: str = "both"
    seed: int = 0

    def __post_init__(self) -> None:
        self._check()
        if self.side not in {"both", "inside", "outside"}:
            raise SettingError(f"side must be 'both', 'inside' or 'outside', got {self.side!r}")

    @property
    def radius(self) -> float:
        """The radius r of the sphere."""
        return 0.45 * (self.bounds[1] - self.bounds[0])

    def center(self) -> Tensor:
        """The centre (d,) of the sphere, float64."""
        middle = torch.tensor((self.bounds[0] + self.bounds[1]) / 2, dtype=torch.float32)
        return middle.double().expand(torch.Size(self.shape).numel())

    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The classifier in evaluation mode."""
        return SphereModel(self.center().to(dtype), self.radius).eval()

    def inputs(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """The first n inputs of the sequence `seed`, 5 % to 15 % of r from the sphere, and their labels."""
        generator = torch.Generator().manual_seed(1000 * self.seed + seed)
        d = torch.Size(self.shape).numel()
        rows = []
        for i in range(n):
            sign = torch.randint(0, 2, (d,), generator=generator) * 2 - 1
            direction = sign * (1 + 0.04 * (torch.rand(d, generator=generator) - 0.5))
            near = torch.rand((), generator=generator)
            inside = self.side == "inside" or (self.side == "both" and i % 2 == 0)
            length = 0.85 + 0.1 * near if inside else 1.05 + 0.06 * near
            rows.append(self.center().float() + self.radius * length * direction / direction.norm())
        x = torch.stack(rows).clamp(*self.bounds).double()
        y = ((x - self.center()).norm(dim=1) > self.radius).long()
        return x.reshape(n, *self.shape).to(dtype), y

    def distance(self, x: Tensor, y: Tensor, norm: Norm, targets: Tensor | None = None) -> Tensor:
        """The size of the smallest move that reaches the goal; with two classes both goals are the same."""
        if norm not in {"linf", "l2", "l1"}:
            raise SettingError(f"norm must be 'linf', 'l2' or 'l1', got {norm!r}")
        u = (x.flatten(1).double() - self.center()).abs()
        inside = u.norm(dim=1) <= self.radius
        start = (~inside).long()
        size = torch.where(inside, self._outwards(u, norm), self._inwards(u, norm))
        reached = start != y if targets is None else start == targets
        return torch.where(reached, 0.0, size)

    def _outwards(self, u: Tensor, norm: Norm) -> Tensor:
        square, d = u.square().sum(1), u.shape[1]
        left = (self.radius**2 - square).clamp(min=0)
        if norm == "l2":
            return self.radius - square.sqrt()
        b, a = (u.sum(1), d) if norm == "linf" else (u.amax(1), 1)
        root = (b.square() + a * left).sqrt()  # of a e^2 + 2 b e = left, in the form that loses no digits
        return left / (root + b).clamp(min=torch.finfo(torch.float64).tiny)

    def _inwards(self, u: Tensor, norm: Norm) -> Tensor:
        if norm == "l2":
            return u.square().sum(1).sqrt() - self.radius
        low, high = torch.zeros(len(u), dtype=torch.float64), u.amax(1)
        for _ in range(100):  # bisection: the squared length is monotone in the level
            level = (low + high) / 2
            kept = (u - level[:, None]).clamp(min=0) if norm == "linf" else torch.minimum(u, level[:, None])
            long = kept.square().sum(1) > self.radius**2
            up = long if norm == "linf" else ~long
            low, high = torch.where(up, level, low), torch.where(up, high, level)
        cut: Tensor = (u - low[:, None]).clamp(min=0).sum(1)
        return high if norm == "linf" else cut
