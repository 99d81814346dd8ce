"""SimBA: steps along the vectors of an orthonormal basis, kept where the scores improve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from assay.attacks.base import Attack
from assay.attacks.bases import Basis, Cosines, Pixels
from assay.attacks.remaining import Remaining
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.losses import Loss, resolve
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L2, Linf, Threat
from assay.threats.additive import column
from assay.threats.base import need_budget


@final
@dataclass(frozen=True, kw_only=True)
class SimBA(Attack):
    r"""Try a step of fixed length along one basis vector after the other, in random order; keep what improves the loss.

    For vectors q in an order of each sample's own, first $P(\theta + \alpha q)$ and, where this is no better,
    $P(\theta - \alpha q)$ is asked about; the first that improves the loss is kept. A vector costs one query or two.

    Args:
        threat: `L2` or `Linf` with a budget eps, at which P projects; as long as a sample stays inside, it is the plain
            method, that ends at the first success.
        steps: vectors tried for each sample.
        basis: "pixel" for single values, "dct" for cosine waves, those of low frequency first.
        step: alpha, as a share of the bounds' width.
        low: the share of the frequencies along each axis that are tried first.
        loss: "margin", "ce", "dlr", a callable, or None for the goal's own (cross-entropy).

    Shapes:
        x `(b, *shape)` of any shape; for "dct" images `(b, c, h, w)` or signals `(b, d)`, `(b, c, d)`.

    Raises:
        ThreatError: the threat is another or has no budget, or waves are asked of inputs with more axes.
        SettingError: a setting is out of range.

    Deviations:
        The paper compares the probability of the class, here its logarithm is, which orders alike and does not vanish.
        The paper has no budget but a limit on the steps, since the length is at most `alpha sqrt(steps)`; here the
        moves are projected. When all vectors were tried, which ends the paper's search, they are tried again in another
        order. The probability of the clean input is known from its judgement and costs no query.

    References:
        Guo, Gardner, You, Wilson, Weinberger, "Simple black-box adversarial attacks", ICML 2019,
        https://arxiv.org/abs/1905.07121

    Example:
        >>> import torch, assay
        >>> attack = SimBA(threat=assay.L2(1.0), steps=10)
        >>> result = attack(torch.nn.Linear(4, 3), torch.full((2, 4), 0.5), torch.tensor([0, 1]))
        >>> int(result.forwards.max()) <= 1 + 2 * 10
        True
    """

    threat: Threat
    steps: int = 10_000
    basis: Literal["pixel", "dct"] = "pixel"
    step: float = 0.2
    low: float = 0.125
    loss: str | Loss | None = None

    access: ClassVar[Access] = Access.SCORES

    def __post_init__(self) -> None:
        need_budget(self.threat, "SimBA")
        if not isinstance(self.threat, (L2, Linf)):
            raise ThreatError(f"SimBA works in L2 and Linf; got {self.threat!r}.")
        if self.steps < 1:
            raise SettingError(f"steps must be at least 1; got {self.steps}.")
        if self.basis not in ("pixel", "dct"):
            raise SettingError(f"basis must be 'pixel' or 'dct'; got {self.basis!r}.")
        if self.step <= 0:
            raise SettingError(f"step must be positive; got {self.step}.")
        if not 0 < self.low <= 1:
            raise SettingError(f"low is a share of the frequencies, above 0 and at most 1; got {self.low}.")
        resolve(self.loss)

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """One query after the other, every sample at a vector of its own."""
        basis: Basis = Pixels(x) if self.basis == "pixel" else Cosines(x, self.low)
        loss, left, theta = resolve(self.loss), Remaining(oracle, rng), self.threat.identity(x)
        value = goal.loss(oracle.clean()) if loss is None else loss(oracle.clean(), goal)
        tried = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        side, alpha = torch.ones_like(tried), self.step * (self.threat.bounds[1] - self.threat.bounds[0])
        order = self._order(basis, rng, 0)
        for _ in range(2 * self.steps):
            done = tried >= self.steps
            theta, value, tried, side, order = left.narrow(theta, value, tried, side, order, done=done)
            live = left.oracle.active & (tried < self.steps)
            if not bool(live.any()):
                break
            number = order.gather(1, (tried % order.shape[1])[:, None]).squeeze(1)
            move = left.threat.project(left.x, basis.step(theta, number, (alpha * side).to(theta)))
            found = left.oracle.value(move, loss, live)
            moved = (move != theta).flatten(1).any(1)  # else the values differ by rounding alone
            better = (found > value) & moved
            theta, value = torch.where(column(better, theta), move, theta), torch.where(better, found, value)
            through = better | (side < 0)
            tried, side = tried + through.long(), torch.where(through, 1, -1)
            self._again(basis, left.rng, order, tried, through)
        return left.moves(theta)

    def _order(self, basis: Basis, rng: Keyed, turn: int) -> Tensor:
        """The order of a turn, `(b, n)`: the same for a sample whenever that turn begins."""
        keyed = rng.at(torch.arange(len(rng.index), device=rng.index.device))
        keyed.draw = turn
        numbers = (basis.rank + keyed.uniform(len(basis.rank)).double()).argsort(dim=1, stable=True)
        return numbers[:, : self.steps]

    def _again(self, basis: Basis, rng: Keyed, order: Tensor, tried: Tensor, through: Tensor) -> None:
        """Another order where all vectors were tried; written in place."""
        n = order.shape[1]
        for row in (through & (tried % n == 0)).nonzero().flatten().tolist():
            order[row] = self._order(basis, rng.at(torch.tensor([row], device=tried.device)), int(tried[row]) // n)[0]
