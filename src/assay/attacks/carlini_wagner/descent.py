"""What the three norms share: Adam in the space of the change of variables, each sample on a schedule of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from assay import losses
from assay.goals import Goal
from assay.oracle import Oracle
from assay.threats.additive import column, widened

_INSIDE = 0.99  # where the bounds lie in the range of tanh: they are reached, and left, at |w| = 2.6
_BETAS = (0.9, 0.999)
_TINY = 1e-8  # Adam's epsilon
_USUAL = 10  # largest constant of a linear model for which the plan's own constants are taken as they are
_FLATTEST = 1e12  # times these constants, at most
_CHECKS = 10  # looks at the progress within `steps`
_PROGRESS = 0.9999  # a loss above this share of the last look's is no progress
_NARROW_AT = 0.75  # share of samples left at which the working tensors are narrowed


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The numbers of a search, all of them filled.

    Attributes:
        steps: gradient evaluations for one value of the constant.
        lr: Adam's step length in the space of w.
        initial_c: the first constant, of logits that are not too flat for it.
        max_c: no constant from here on, likewise.
        confidence: the margin that a success needs.
        abort_early: end a value of the constant when it brings no more progress.
    """

    steps: int
    lr: float
    initial_c: float
    max_c: float
    confidence: float
    abort_early: bool


class Descent(ABC):
    """Minimise `penalty(u) + c f(x')` for every sample, where `x' = x + (high - low) u`.

    `u = (p(w) - p(w_0)) / 2` with `p(w) = clip(tanh(w) / 0.99, -1, 1)` is the move in units of the range, and
    `f = max(0, confidence + slack - margin)`. The clip passes gradients, as a projection does. A subclass
    names the penalty and decides what follows a success, and what follows the end of a value of the constant; no sample
    waits for another, and those that are done leave the working tensors.
    """

    slack = 0.0  # by how much f asks for more than a success needs

    def __init__(self, oracle: Oracle, x: Tensor, goal: Goal, plan: Plan) -> None:
        low, high = oracle.threat.bounds
        self.oracle, self.goal, self.plan, self.width = oracle, goal, plan, high - low
        self.dtype, x = x.dtype, widened(x)
        self.result, self.found = torch.zeros_like(x), torch.zeros(len(x), dtype=torch.bool, device=x.device)
        self.place = torch.arange(len(x), device=x.device)
        self.w_0 = (((x - low) * (2 / self.width) - 1).clamp_(-1, 1) * _INSIDE).atanh()
        self.place_0 = self._placed(self.w_0.tanh())
        self.w = self.asked = self.w_0  # where the next question, and where the last one is asked
        self.best, self.least = torch.zeros_like(x), x.new_full((len(x),), torch.inf)
        self.first, self.second = torch.zeros_like(x), torch.zeros_like(x)
        self.c, self.most = x.new_full((len(x),), plan.initial_c), x.new_full((len(x),), plan.max_c)
        self.scale, self.begun = torch.ones_like(self.c), False
        self.step = torch.zeros_like(self.c)  # of this value of the constant
        self.beat = torch.zeros_like(self.c)  # of Adam since its last start
        self.seen = torch.full_like(self.c, torch.inf)  # the loss at the last look
        self.done = torch.zeros_like(self.c, dtype=torch.bool)

    @property
    def state(self) -> list[str]:
        """Names of the tensors with one row for each sample."""
        ours = ["place", "place_0", "w_0", "w", "best", "least", "first", "second"]
        return [*ours, "c", "most", "scale", "step", "beat", "seen", "done"]

    def allowed(self, value: Tensor) -> Tensor:
        """Values of w's shape, zero where nothing may move."""
        return value

    @abstractmethod
    def penalty(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """What the search keeps small besides `c f`: values `(b,)`, and the gradient with respect to u."""

    @abstractmethod
    def follow(self, u: Tensor, grad: Tensor, loss: Tensor, won: Tensor, ended: Tensor) -> None:
        """What comes next for each sample.

        Args:
            u: the moves just asked about.
            grad: gradients of the margin with respect to x' there.
            loss: their losses, `(b,)`.
            won: which of them reach the goal, `(b,)`.
            ended: where a value of the constant has had its steps, or brings no more progress, `(b,)`.
        """

    @abstractmethod
    def size(self, u: Tensor) -> Tensor:
        """What the search makes small, `(n,)`."""

    def run(self) -> tuple[Tensor, Tensor]:
        """Search until every sample is done: the smallest moves that won, else the last ones, and which have won."""
        while True:
            live = self.oracle.active & ~self.done
            left = int(live.sum())
            if left <= _NARROW_AT * len(live):
                self._narrow(live.nonzero().squeeze(1))
            if left == 0:
                return self.result.to(self.dtype), self.found
            self._advance(self.oracle.active & ~self.done)

    def _advance(self, live: Tensor) -> None:
        """One gradient and one step of Adam for everyone who is left."""
        tanh = self.w.tanh()
        u = self._move(tanh)
        margin, grad, output = self.oracle.gradient((u * self.width).to(self.dtype), losses.margin, rows=live)
        margin, grad = widened(margin), widened(grad)
        if not self.begun:
            self._begin(self.plan.confidence - margin, grad)
        shortfall = self.plan.confidence + self.slack / self.scale - margin
        value, slope = self.penalty(u)
        loss = value + self.c * shortfall.clamp_min(0)
        pull = torch.where(shortfall > 0, self.c * self.width, 0)
        slope = self.allowed(
            slope.addcmul(grad, column(pull, grad), value=-1).mul_((1 - tanh.square()) / (2 * _INSIDE))
        )
        self.asked = self.w
        self.w = self.asked - self._adam(slope)
        self.step += 1
        won = self.goal.reached(output) & (margin >= self.plan.confidence)
        self._keep(u, won.nonzero().squeeze(1))
        self.follow(u, grad, loss, won, self._ended(loss))

    def _begin(self, shortfall: Tensor, grad: Tensor) -> None:
        """Larger constants for logits so flat that the plan's would not reach, told at the clean inputs."""
        self.begun = True
        steep = (grad * self.width).flatten(1).abs().amax(dim=1)
        unit = grad.flatten(1) * (self.width / torch.where(steep > 0, steep, 1))[:, None]
        linear = 2 * shortfall.clamp_min(0) / steep / steep / unit.square().sum(dim=1)
        self.scale = (linear / _USUAL).clamp(1, _FLATTEST).where((steep > 0) & shortfall.isfinite(), 1)
        self.c, self.most = self.c * self.scale, self.most * self.scale

    def _placed(self, tanh: Tensor) -> Tensor:
        """Where tanh(w) lies in the box, from -1 to 1."""
        return (tanh / _INSIDE).clamp_(-1, 1)

    def _move(self, tanh: Tensor) -> Tensor:
        """The moves u."""
        return self.allowed((self._placed(tanh) - self.place_0) / 2)

    def _adam(self, slope: Tensor) -> Tensor:
        self.beat += 1
        self.first.lerp_(slope, 1 - _BETAS[0])
        self.second.mul_(_BETAS[1]).addcmul_(slope, slope, value=1 - _BETAS[1])
        length = self.plan.lr / (1 - _BETAS[0] ** self.beat)
        spread = (1 - _BETAS[1] ** self.beat).rsqrt()
        return (self.first * column(length, slope)) / (self.second.sqrt() * column(spread, slope) + _TINY)

    def _keep(self, u: Tensor, rows: Tensor) -> None:
        """Remember these winning moves where they are the smallest so far."""
        if len(rows) == 0:
            return
        size = self.size(u[rows])
        smaller = size < self.least[rows]
        rows = rows[smaller]
        self.best[rows], self.least[rows] = u[rows], size[smaller]

    def _ended(self, loss: Tensor) -> Tensor:
        """Where a value of the constant is through."""
        ended = self.step >= self.plan.steps
        if self.plan.abort_early:
            look = (self.step - 1) % max(self.plan.steps // _CHECKS, 1) == 0
            ended |= look & ~(loss <= _PROGRESS * self.seen)
            self.seen = torch.where(look, loss, self.seen)
        return ended

    def double(self, rows: Tensor) -> None:
        """Twice the constant where the mask says so, on from the same w; the end where it is too large."""
        if bool(rows.any()):
            self.c = torch.where(rows, 2 * self.c, self.c)
            self.done |= rows & (self.c >= self.most)
            self.again(rows)

    def restart(self, rows: Tensor, w: Tensor) -> None:
        """Begin anew from w, with Adam's memory and the steps cleared, where the mask says so."""
        wide = column(rows, self.w)
        self.w = torch.where(wide, w, self.w)
        self.first.masked_fill_(wide, 0)
        self.second.masked_fill_(wide, 0)
        self.beat.masked_fill_(rows, 0)
        self.again(rows)

    def again(self, rows: Tensor) -> None:
        """Count the steps and the progress anew where the mask says so."""
        self.step.masked_fill_(rows, 0)
        self.seen.masked_fill_(rows, torch.inf)

    def _narrow(self, rows: Tensor) -> None:
        """Go on with these rows alone."""
        won = self.least.isfinite()
        self.result[self.place] = torch.where(column(won, self.w), self.best, self._move(self.w.tanh())) * self.width
        self.found[self.place] = won
        for name in self.state:
            setattr(self, name, getattr(self, name)[rows])
        self.oracle, self.goal = self.oracle.at(rows), self.goal.at(rows)
