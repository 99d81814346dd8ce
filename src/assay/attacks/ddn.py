"""DDN: decoupled direction and norm, steps whose length says nothing about how far the move reaches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.base import Attack, smallest_found
from assay.attacks.guides import Guide, boundary_distance, check_runs, farthest, follow_guides
from assay.attacks.polish import polish_best
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.losses import Loss, resolve
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L2, Threat
from assay.threats.additive import column

_REACH = 3.0  # first norm over the linearised boundary's distance
_LAST_STEP = 0.01  # of the first one


@final
@dataclass(frozen=True, kw_only=True)
class DDN(Attack):
    r"""Decoupled direction and norm: the gradient turns the move, its norm follows whether it is adversarial.

    The norm of each sample becomes $(1 - \gamma) \epsilon_k$ where $\delta_k$ is adversarial and
    $(1 + \gamma) \epsilon_k$ where it is not; then
    $\delta_{k+1} = clip(\epsilon_{k+1} \, d / \|d\|_2)$ with $d = \delta_k + \alpha_k g_k / \|g_k\|_2$. The step
    $\alpha$ falls along a cosine to 1/100 of its first value.

    Args:
        threat: `L2`; with a number, a sample is done as soon as a move inside is found.
        steps: gradient steps of each run.
        targets: further runs, each along the difference to one class, the nearest linearised boundaries first; 0 for
            one run alone.
        loss: "ce", "margin", a callable, or None for the soft margin, which has the direction of cross-entropy but does
            not vanish where the model is sure. It leads the first run.
        gamma: change of the norm in each step.
        init_norm: first norm, in units of the range of the bounds; when None three times the distance of the boundary
            linearised at the clean input, for each sample its own.
        alpha: length of the first step, in units of the range of the bounds; when None as long as the present norm.
        levels: round moved inputs to that many values between the bounds (256 for images of 8 bits); None for none.
        give_up: half-way through a run samples leave it whose norm is still above that multiple of their best distance;
            None keeps them.
        polish: gradients spent at last to make the best move smaller, at most; none with `levels` or a budget.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat is not `L2`.
        LossError: the goal or the model's output is not about classes.

    Deviations:
        The paper's own search is `DDN(steps=1000, targets=0, loss="ce", init_norm=1.0, alpha=1.0, levels=256,
        give_up=None, polish=0)`, with 100, 300 or 1000 steps. The defaults find smaller moves in as many passes: norms
        and steps that fit the sample, a search that comes from outside, several runs, no rounding, and a last stretch
        along the linearised boundary. With a budget the norm stays below it.

    References:
        Rony, Hafemann, Oliveira, Ben Ayed, Sabourin, Granger, "Decoupling direction and norm for efficient
        gradient-based L2 adversarial attacks and defenses", CVPR 2019, https://arxiv.org/abs/1811.09600

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]])})
        >>> DDN(threat=assay.L2())(model, torch.tensor([[0.75, 0.5]]), torch.tensor([0])).distance
        tensor([0.0500])
    """

    threat: Threat
    steps: int = 100
    targets: int = 4
    loss: str | Loss | None = None
    gamma: float = 0.05
    init_norm: float | None = None
    alpha: float | None = None
    levels: int | None = None
    give_up: float | None = 1.5
    polish: int = 20

    access: ClassVar[Access] = Access.GRADIENTS

    def __post_init__(self) -> None:
        check_runs(steps=self.steps, targets=self.targets, give_up=self.give_up, polish=self.polish)
        if not 0 < self.gamma < 1:
            raise SettingError(f"gamma must be between 0 and 1; got {self.gamma}.")
        for name in ("init_norm", "alpha"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SettingError(f"{name} must be positive and finite; got {value}.")
        if self.levels is not None and self.levels < 2:
            raise SettingError(f"levels must be at least 2; got {self.levels}.")
        if not isinstance(self.threat, L2):
            raise ThreatError(f"DDN works in L2; got {self.threat!r}. FMN takes Linf, L1 and L0 as well.")
        resolve(self.loss)

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """One run for each guide."""
        oracle.track()
        theta = follow_guides(oracle, goal, resolve(self.loss), self.targets, self._search)
        if self.threat.eps is None and self.levels is None:
            polish_best(oracle, goal, self.polish, "l2")
        return smallest_found(oracle, x, theta)

    def _search(self, oracle: Oracle, guide: Guide) -> Tensor:
        """One run from the clean input, in which samples that are done leave the batch; its last moves."""
        theta = self.threat.identity(oracle.x)
        last, places = theta.clone(), torch.arange(len(theta), device=theta.device)
        norm = torch.zeros_like(oracle.best_distance)
        most = farthest(oracle.threat, oracle.x)
        for k in range(self.steps):
            hopeful = oracle.active
            if k == self.steps // 2 and self.give_up is not None:
                hopeful = hopeful & (norm <= self.give_up * oracle.best_distance)
            left = hopeful.nonzero().squeeze(1)
            if len(left) == 0:
                return last
            if len(left) < len(theta):
                oracle, guide, places = oracle.at(left), guide.at(left), places[left]
                theta, norm, most = theta[left], norm[left], most[left]
            _, grad, output = oracle.gradient(theta, guide.loss)
            if k == 0:
                norm = self._first_norm(oracle.x, grad, guide.gap(output))
            else:
                smaller, larger = norm * (1 - self.gamma), norm * (1 + self.gamma)
                norm = torch.where(oracle.goal.reached(output), smaller, larger)
            norm = norm.minimum(most)
            direction = self.threat.ascend(oracle.x, theta, grad, self._length(norm, k))
            theta = last[places] = self._placed(oracle.x, direction, norm)
        oracle.judge(theta)
        return last

    def _first_norm(self, x: Tensor, grad: Tensor, gap: Tensor) -> Tensor:
        low, high = self.threat.bounds
        if self.init_norm is not None:
            return x.new_full((len(x),), self.init_norm * (high - low))
        distance = boundary_distance(self.threat, x, grad, gap.to(x.dtype).abs())
        return _REACH * distance.clamp_max(torch.finfo(x.dtype).max / _REACH)

    def _length(self, norm: Tensor, k: int) -> Tensor:
        """Of step k, `(b,)`."""
        low, high = self.threat.bounds
        decay = _LAST_STEP + (1 - _LAST_STEP) * (1 + math.cos(math.pi * k / self.steps)) / 2
        if self.alpha is None:
            return norm * decay
        return torch.full_like(norm, self.alpha * (high - low) * decay)

    def _placed(self, x: Tensor, direction: Tensor, norm: Tensor) -> Tensor:
        """The move of this norm in this direction, clipped to the bounds and rounded to the levels."""
        low, high = self.threat.bounds
        length = torch.linalg.vector_norm(direction.flatten(1), dim=1)
        scale = torch.where(length > 0, norm / length, 0)
        moved: Tensor = (x + direction * column(scale, x)).clamp(low, high)
        if self.levels is not None:
            unit = (high - low) / (self.levels - 1)
            moved = (low + ((moved - low) / unit).round() * unit).clamp(low, high)
        return moved - x
