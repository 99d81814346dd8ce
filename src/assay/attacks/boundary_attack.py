"""The boundary attack: a random walk along the decision boundary towards the clean input, from decisions alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.attacks.base import Attack, smallest_found
from assay.attacks.bisection import to_boundary
from assay.attacks.decisions import wins
from assay.attacks.starts import find_start
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L2, Threat
from assay.threats.additive import column

_START_TOLERANCE = 1e-3  # of the share of the start in its blend with the clean input
_AROUND, _NEARER = 100, 30  # checks that the rates of success are means of
_AROUND_RANGE, _NEARER_RANGE = (0.2, 0.5), (0.1, 0.25)  # rates at which steps are left alone
_VALUES, _MOST_DRAWS = 1 << 16, 32  # random numbers of one sample that are drawn together, and for how many steps


@final
@dataclass(frozen=True, kw_only=True)
class Boundary(Attack):
    r"""A random walk among inputs that reach the goal: a step around the clean input, and one towards it.

    From $\tilde x$ at distance $D$ a Gaussian $\eta$, orthogonal to $\tilde x - x$ and of length $\delta D$, leads to
    the point of the same distance in the direction $\tilde x + \eta - x$; from there the distance is made smaller by
    $\epsilon D$. The walk goes there when it reaches the goal. Every second step the point before the second part is
    asked about as well: where more than half of the last 100 of these (less than a fifth) reached the goal, $\delta$
    and $\epsilon$ grow (shrink) by half; where more than a quarter (less than a tenth) of the last 30 whole steps did,
    $\epsilon$ does.

    Args:
        threat: `L2`; with a number, a sample is done as soon as a move inside is found.
        steps: steps, at most.
        around: the first $\delta$.
        nearer: the first $\epsilon$.
        adaptation: factor by which steps change.
        every: steps from one check of the rates to the next.
        converged: a sample whose $\epsilon$ is below is done.
        start: inputs to start from, `(n, *shape)`, the nearest tried first; for targets, samples of that class. Random
            noise is tried after them.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat is not `L2`.
        InputError: at use, `start` does not hold inputs like x.

    Deviations:
        Settings are those of the authors' released code, where the paper gives none, but for first steps of 0.1 instead
        of 0.01 and checks every second step instead of every tenth: lengths of steps change after 100 checks at the
        earliest, so that the small ones last for the first 1,000 queries. On images of 28x28 pixels the median distance
        after 3,000 queries fell from 2.41 to 0.70, and after 12,000 from 0.472 to 0.457. Starts are blends with noise
        of several kinds, found by bisection instead of a walk over 1,000 blends. The rate of whole steps is that of all
        checks; the authors' code leaves out those whose first part lost, and asks nothing more about them. With one
        feature there is no way around, and only the second part is walked.

    References:
        Brendel, Rauber, Bethge, "Decision-based adversarial attacks: reliable attacks against black-box machine
        learning models", ICLR 2018, https://arxiv.org/abs/1712.04248

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]])})
        >>> attack = Boundary(threat=assay.L2(), steps=500, around=0.1, nearer=0.05, every=1)
        >>> distance = attack(model, torch.tensor([[0.75, 0.5]]), torch.tensor([0])).distance
        >>> bool(0.05 <= distance <= 0.0505)
        True
    """

    threat: Threat
    steps: int = 25_000
    around: float = 0.1
    nearer: float = 0.1
    adaptation: float = 1.5
    every: int = 2
    converged: float = 1e-7
    start: Tensor | None = field(default=None, repr=False, compare=False)

    access: ClassVar[Access] = Access.LABELS

    def __post_init__(self) -> None:
        for name in ("steps", "every"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1; got {getattr(self, name)}.")
        for name in ("around", "nearer"):
            if not 0 < getattr(self, name) < 1:
                raise SettingError(f"{name} must be between 0 and 1; got {getattr(self, name)}.")
        if not 1 < self.adaptation < float("inf"):
            raise SettingError(f"adaptation must be above 1 and finite; got {self.adaptation}.")
        if not 0 <= self.converged < 1:
            raise SettingError(f"converged must be from 0 to 1; got {self.converged}.")
        if not isinstance(self.threat, L2):
            raise ThreatError(f"Boundary works in L2; got {self.threat!r}. HopSkipJump takes Linf too.")

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """A start for each sample, then the walk of those that have one."""
        oracle.track()
        theta, found = find_start(oracle, rng.named("start"), self.start)
        rows = (found & oracle.active).nonzero().squeeze(1)
        if len(rows):
            part = oracle.at(rows)
            near = to_boundary(part, theta[rows], _START_TOLERANCE, clipping=False)
            self._walk(part, near, rng.at(rows).named("walk"))
        return smallest_found(oracle, x, theta)

    def _walk(self, oracle: Oracle, theta: Tensor, rng: Keyed) -> None:
        """All steps, on ever smaller tensors while samples finish."""
        pace = _Pace.first(theta, self.around, self.nearer)
        together = max(1, min(_VALUES // theta[0].numel(), _MOST_DRAWS))
        noise: list[Tensor] = []
        for step in range(self.steps):
            left = (oracle.active & (pace.nearer > self.converged)).nonzero().squeeze(1)
            if len(left) == 0:
                return
            if len(left) < len(theta):
                oracle, rng, theta, pace = oracle.at(left), rng.at(left), theta[left], pace.at(left)
                noise = [drawn[left] for drawn in noise]
            if not noise:
                noise = list(rng.normal(together, *theta.shape[1:]).to(theta).unbind(1))
            around, ahead = self._proposed(oracle.x, theta, pace, noise.pop())
            check = step % self.every == 0
            won = wins(oracle, torch.stack([ahead, around], dim=1) if check else ahead[:, None])
            smaller = _length(ahead) < _length(theta)
            theta = torch.where(column(won[:, 0] & smaller, theta), ahead, theta)
            if check:
                pace = pace.adapted(won, self.adaptation)

    def _proposed(self, x: Tensor, theta: Tensor, pace: _Pace, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The moves after the first part of a step, and after both."""
        low, high = self.threat.bounds
        tiny = torch.finfo(theta.dtype).tiny
        length = _length(theta).clamp_min(tiny)
        direction = theta / column(length, theta)
        sideways = noise - column((noise * direction).flatten(1).sum(dim=1), noise) * direction
        share = pace.around / _length(sideways).clamp_min(tiny) if noise[0].numel() > 1 else torch.zeros_like(length)
        turned = (direction + column(share, noise) * sideways) / column((1 + pace.around.square()).sqrt(), noise)
        around = (x + column(length, noise) * turned).clamp(low, high) - x
        now = _length(around)
        aim = (now - (pace.nearer * length + now - length).clamp_min(0)) / now.clamp_min(tiny)
        return around, around * column(aim, around)


@final
@dataclass(frozen=True)
class _Pace:
    """Lengths of steps, and how often those of late have won; one row per sample.

    Args:
        around: of the first part of a step, in units of the distance.
        nearer: of the second part.
        around_won: whether the last checks won, `(b, 100)`, in a ring.
        nearer_won: the same of whole steps, `(b, 30)`.
        around_checks: checks since the first length changed.
        nearer_checks: checks since the second did for its own reasons.
        checks: checks in all.
    """

    around: Tensor
    nearer: Tensor
    around_won: Tensor
    nearer_won: Tensor
    around_checks: Tensor
    nearer_checks: Tensor
    checks: int

    @classmethod
    def first(cls, theta: Tensor, around: float, nearer: float) -> Self:
        """Before the first step."""
        b, none = len(theta), torch.zeros(len(theta), dtype=torch.int64, device=theta.device)
        won = none.bool()[:, None]
        return cls(
            theta.new_full((b,), around),
            theta.new_full((b,), nearer),
            won.repeat(1, _AROUND),
            won.repeat(1, _NEARER),
            none,
            none,
            0,
        )

    def at(self, rows: Tensor) -> Self:
        """That of a part of the batch."""
        parts = (self.around, self.nearer, self.around_won, self.nearer_won, self.around_checks, self.nearer_checks)
        around, nearer, around_won, nearer_won, around_checks, nearer_checks = (part[rows] for part in parts)
        return type(self)(around, nearer, around_won, nearer_won, around_checks, nearer_checks, self.checks)

    def adapted(self, won: Tensor, factor: float) -> Self:
        """After a check: whether whole steps and their first parts won, `(b, 2)`."""
        first, first_checks, change = _rated(self.around_won, self.around_checks, won[:, 1], self.checks, _AROUND_RANGE)
        second, second_checks, more = _rated(self.nearer_won, self.nearer_checks, won[:, 0], self.checks, _NEARER_RANGE)
        around, nearer = self.around * factor**change, self.nearer * factor ** (change + more)
        return type(self)(around, nearer, first, second, first_checks, second_checks, self.checks + 1)


def _rated(
    ring: Tensor, count: Tensor, won: Tensor, number: int, usual: tuple[float, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """A ring with one more check in it, the checks that count, and +1, 0 or -1 as the rate is high, usual or low."""
    ring = ring.clone()
    ring[:, number % ring.shape[1]] = won
    count, rate = count + 1, ring.float().mean(dim=1)
    full = count >= ring.shape[1]
    change = (full & (rate > usual[1])).float() - (full & (rate < usual[0])).float()
    return ring, count.masked_fill(change != 0, 0), change


def _length(theta: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(theta.flatten(1), dim=1)
    return length
