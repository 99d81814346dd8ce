"""Pointwise: the values of an input that reaches the goal are put back one after the other, from decisions alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.base import Attack, smallest_found
from assay.attacks.decisions import wins
from assay.attacks.salt_and_pepper import fewest_grains, need_l0
from assay.attacks.starts import find_start
from assay.errors import SettingError
from assay.goals import Goal
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import Threat
from assay.threats.additive import column


@final
@dataclass(frozen=True, kw_only=True)
class Pointwise(Attack):
    """Put changed values back in random order wherever the goal is still reached, until none can be put back.

    The start is salt and pepper noise. A pass goes through the changed units of a sample in random order and leaves
    those unchanged without which the goal is reached; passes are repeated until one finds no such unit.

    Args:
        threat: `L0`, of features or pixels; with a number, a sample is done as soon as a move inside is found.
        restarts: starts and searches from there, of which the smallest move counts.
        start_steps: draws of salt and pepper noise for a start.
        group: units that are put back together in the first pass, half as many in the next, and so on down to single
            ones; a larger group asks less often.
        start: inputs to start from in place of noise, `(n, *shape)`, the nearest that reaches the goal; for targets,
            samples of that class.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension; with `unit="pixel"` images `(b, c, h, w)`.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat is not `L0`.
        InputError: at use, `start` does not hold inputs like x.

    Deviations:
        The plain method is `Pointwise(restarts=1, group=1)`; the defaults find smaller moves for fewer questions. Where
        salt and pepper noise does not reach the goal, other noise and blends are tried, 100 in all. Values are left as
        they are in a start or put back; the released code's search for values in between serves other norms.

    References:
        Schott, Rauber, Bethge, Brendel, "Towards the first adversarially robust neural network model on MNIST",
        ICLR 2019, https://arxiv.org/abs/1805.09190

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]])})
        >>> Pointwise(threat=assay.L0())(model, torch.tensor([[0.75, 0.5]]), torch.tensor([0])).distance
        tensor([1.])
    """

    threat: Threat
    restarts: int = 10
    start_steps: int = 50
    group: int = 16
    start: Tensor | None = field(default=None, repr=False, compare=False)

    access: ClassVar[Access] = Access.LABELS

    def __post_init__(self) -> None:
        for name in ("restarts", "start_steps", "group"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1; got {getattr(self, name)}.")
        need_l0(self.threat, "Pointwise")

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """A start for each sample and the passes from there, as often as there are restarts."""
        oracle.track()
        for restart in range(self.restarts):
            rows = oracle.active.nonzero().squeeze(1)
            if len(rows) == 0:
                break
            part, own = oracle.at(rows), rng.at(rows).named("restart", restart)
            theta, found = self._started(part, own)
            rows = found.nonzero().squeeze(1)
            if len(rows):
                self._put_back(part.at(rows), theta[rows], own.at(rows))
        return smallest_found(oracle, x, self.threat.identity(x))

    def _started(self, oracle: Oracle, rng: Keyed) -> tuple[Tensor, Tensor]:
        """Moves that reach the goal, and which do."""
        if self.start is not None:
            return find_start(oracle, rng.named("noise"), self.start)
        theta, size = fewest_grains(oracle, rng.named("grains"), self.start_steps)
        found = size.isfinite()
        missing = (~found & oracle.active).nonzero().squeeze(1)
        if len(missing):
            others, won = find_start(oracle.at(missing), rng.at(missing).named("noise"))
            theta, found = theta.index_copy(0, missing, others), found.index_copy(0, missing, won)
        return theta, found

    def _put_back(self, oracle: Oracle, theta: Tensor, rng: Keyed) -> None:
        """Passes until a sample has none of single units that puts one back, on ever smaller tensors."""
        group, number = self.group, 0
        helped = torch.ones(len(theta), dtype=torch.bool, device=theta.device)
        while True:
            left = (oracle.active & helped).nonzero().squeeze(1)
            if len(left) == 0:
                return
            oracle, rng, theta = oracle.at(left), rng.at(left), theta[left]
            theta, helped = self._pass(oracle, theta, group, rng.named("pass", number))
            helped |= torch.full_like(helped, group > 1)
            group, number = max(1, group // 2), number + 1

    def _pass(self, oracle: Oracle, theta: Tensor, group: int, rng: Keyed) -> tuple[Tensor, Tensor]:
        """The moves after each changed unit was tried once, and which of them changed."""
        changed = need_l0(self.threat, "Pointwise").per_unit((theta != 0).to(theta)) > 0
        flat, count = changed.flatten(1), changed.flatten(1).sum(dim=1)
        order = rng.uniform(flat.shape[1]).masked_fill(~flat, 2.0).argsort(dim=1, stable=True)
        rank = order.argsort(dim=1)  # the changed units first, in random order
        helped = torch.zeros_like(oracle.active)
        for place in range(0, int(count.max()), group):
            rows = count > place
            if not bool((rows & oracle.active).any()):
                break
            kept = ~((rank >= place) & (rank < place + group)).reshape(changed.shape)
            fewer = theta * kept
            won = wins(oracle, fewer, rows)
            theta, helped = torch.where(column(won, theta), fewer, theta), helped | won
        return theta, helped
