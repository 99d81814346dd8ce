"""The affine classifier: every distance in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from assay.errors import InputError, SettingError
from assay.testing import halfspace
from assay.testing.problems.base import Norm, Problem, candidates


@final
@dataclass(frozen=True, kw_only=True)
class Affine(Problem):
    r"""The affine classifier $z = W x + b$.

    Class $j$ overtakes $y$ where $(w_j - w_y)^T (x + \delta) + b_j - b_y \ge 0$, a half-space. Without bounds
    its distance in a norm is the gap over the dual norm of $w_j - w_y$; inside the box it is solved exactly
    by sorting. Untargeted, the nearest of these half-spaces decides. Targeted with more than two classes, the
    target must beat *all* others: the answer is the half-space of the pair as long as the other classes are
    already behind at the nearest point of it, and `distance` refuses any other target; `targets` chooses
    those for which it holds.

    Args:
        shape: The shape of one input.
        classes: The number of classes.
        bounds: The box of valid inputs.
        boxed: Whether a move must stay in the box; without, the distances are those of the dual norms.
        seed: Chooses the weights.

    Example:
        >>> problem = Affine(shape=(1, 2, 2), classes=3)
        >>> x, y = problem.inputs(4)
        >>> bool((problem.model()(x).argmax(1) == y).all())
        True
        >>> problem.distance(x, y, "linf").shape
        torch.Size([4])
    """

    shape: tuple[int, ...] = (3, 4, 4)
    classes: int = 3
    bounds: tuple[float, float] = (0.0, 1.0)
    boxed: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        self._check()
        if self.classes < 2:
            raise SettingError(f"classes must be at least 2, got {self.classes}")

    def weights(self) -> tuple[Tensor, Tensor]:
        """W (classes, d) and b (classes,), float64; the boundaries pass near the middle of the box."""
        generator = torch.Generator().manual_seed(self.seed)
        d = torch.Size(self.shape).numel()
        low, high = self.bounds
        scale = 4 / ((high - low) * d**0.5)
        w = torch.randn(self.classes, d, generator=generator).mul(scale)
        b = 0.2 * torch.randn(self.classes, generator=generator) - w.sum(1) * ((low + high) / 2)
        return w.double(), b.double()

    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The classifier in evaluation mode: `Sequential(Flatten, Linear)`."""
        w, b = self.weights()
        linear = nn.Linear(w.shape[1], self.classes, dtype=dtype)
        linear.load_state_dict({"weight": w, "bias": b})
        return nn.Sequential(nn.Flatten(), linear).eval()

    def inputs(self, n: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
        """The first n inputs of the sequence `seed`, some values exactly at the bounds, and their labels.

        The decision of each can be changed inside the bounds, and none lies too near a boundary for float32.
        """
        generator = torch.Generator().manual_seed(1 + seed)
        width = self.bounds[1] - self.bounds[0]
        w, b = self.weights()
        kept: list[Tensor] = []
        for _ in range(1000):
            flat = candidates(self.shape, self.bounds, generator, 64)
            y = (flat @ w.T + b).argmax(1)
            x = flat.reshape(-1, *self.shape)
            distance = self.distance(x, y, "l2")
            kept.append(flat[(distance > 0.05 * width) & distance.isfinite()])
            if sum(map(len, kept)) >= n:
                break
        else:
            raise SettingError(f"{self} has too few inputs whose decision can be changed; take another seed")
        flat = torch.cat(kept)[:n]
        return flat.reshape(n, *self.shape).to(dtype), (flat @ w.T + b).argmax(1)

    def distance(self, x: Tensor, y: Tensor, norm: Norm, targets: Tensor | None = None) -> Tensor:
        """The size of the smallest move that reaches the goal.

        Raises:
            InputError: If a target is not decided by its half-space alone (see `targets`).
        """
        if targets is None:
            return self._pairs(x, y, norm)[0].amin(1)
        _, binding = self._pairs(x, y, norm)
        rows = torch.arange(len(x))
        start = (x.flatten(1).double() @ self.weights()[0].T + self.weights()[1]).argmax(1)
        if not bool((binding[rows, targets] | (start == targets)).all()):
            raise InputError("for some targets a third class binds too, so that the distance is not that of the pair")
        size, _ = self._toward(x, start, targets, norm)
        return torch.where(start == targets, 0.0, size)

    def targets(self, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
        """For each input the farthest class at which no third one is ahead: the distance is the pair's."""
        size, binding = self._pairs(x, y, norm)
        farthest = torch.where(binding & size.isfinite(), size, -torch.inf)
        return torch.where(farthest.amax(1) > 0, farthest.argmax(1), size.argmin(1))

    def optimum(self, x: Tensor, y: Tensor, norm: Norm, targets: Tensor | None = None) -> Tensor:
        """The input on the decision boundary that is nearest to x, float64."""
        goal = self._pairs(x, y, norm)[0].argmin(1) if targets is None else targets
        return self._toward(x, y, goal, norm)[1].reshape(x.shape)

    def worst_margin(self, x: Tensor, y: Tensor, norm: Norm, eps: float | Tensor) -> Tensor:
        """The least of z_y - max of the others over all moves of size at most eps, float64."""
        radius = torch.as_tensor(eps, dtype=torch.float64).expand(len(x))
        margins = []
        for j in range(self.classes):
            a, room, gap, _ = self._half_space(x, y, torch.full_like(y, j))
            margins.append(torch.where(y == j, torch.inf, gap - halfspace.most(a, room, radius, norm)))
        return torch.stack(margins, 1).amin(1)

    def _half_space(self, x: Tensor, y: Tensor, to: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        weight, bias = self.weights()
        flat, (low, high) = x.flatten(1).double(), self.bounds
        w = weight[to] - weight[y]
        gap = -((w * flat).sum(1) + bias[to] - bias[y])
        room = torch.where(w > 0, high - flat, flat - low) if self.boxed else torch.full_like(flat, torch.inf)
        return w.abs(), room, gap, w.sign()

    def _toward(self, x: Tensor, y: Tensor, to: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
        a, room, gap, sign = self._half_space(x, y, to)
        size, t = halfspace.smallest(a, room, gap, norm)
        return size, x.flatten(1).double() + sign * t

    def _pairs(self, x: Tensor, y: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
        """For every class its distance as a pair with y (inf for y), and whether it leads clearly there."""
        weight, bias = self.weights()
        sizes, binding = [], []
        for j in range(self.classes):
            to = torch.full_like(y, j)
            size, point = self._toward(x, y, to, norm)
            z = point @ weight.T + bias
            others = z.scatter(1, torch.stack([y, to], 1), -torch.inf).amax(1)
            sizes.append(torch.where(y == j, torch.inf, size))
            binding.append((z[:, j] >= others + 0.02) & (y != j))
        size = torch.stack(sizes, 1)
        clear = torch.stack(binding, 1)
        if norm != "l0":  # nobody can be ahead where the nearest one is reached, but in whole features there are ties
            clear |= size == size.amin(1, keepdim=True)
        return size, clear
