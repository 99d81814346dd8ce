"""Salt and pepper: ever more values set to one or the other bound, from decisions alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.base import Attack, smallest_found
from assay.attacks.decisions import wins
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L0, Threat
from assay.threats.additive import column


@final
@dataclass(frozen=True, kw_only=True)
class SaltAndPepper(Attack):
    r"""Random noise of salt and pepper, of a share p that grows evenly until the goal is reached, then begins anew.

    A unit becomes salt (the upper bound) with probability p/2 and pepper (the lower one) with p/2. The share grows from
    0 to a largest one, 1 at first, in as many steps as are left. Where a move is smaller than all before, its share
    becomes the largest, and p begins at 0 again.

    Args:
        threat: `L0`, of features or pixels; with a number, a sample is done as soon as a move inside is found.
        steps: draws, at most.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension; with `unit="pixel"` images `(b, c, h, w)`.

    Raises:
        SettingError: `steps` is below 1.
        ThreatError: the threat is not `L0`.

    Deviations:
        In pixels all channels of a place get the same grain.

    References:
        Schott, Rauber, Bethge, Brendel, "Towards the first adversarially robust neural network model on MNIST",
        ICLR 2019, https://arxiv.org/abs/1805.09190 (where it is one of the attacks in L0).

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]])})
        >>> SaltAndPepper(threat=assay.L0())(model, torch.tensor([[0.75, 0.5]]), torch.tensor([0])).distance
        tensor([1.])
    """

    threat: Threat
    steps: int = 1000

    access: ClassVar[Access] = Access.LABELS

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SettingError(f"steps must be at least 1; got {self.steps}.")
        need_l0(self.threat, "SaltAndPepper")

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """All draws."""
        oracle.track()
        theta, _ = fewest_grains(oracle, rng, self.steps)
        return smallest_found(oracle, x, theta)


def fewest_grains(oracle: Oracle, rng: Keyed, steps: int) -> tuple[Tensor, Tensor]:
    """The smallest moves of salt and pepper that reach the goal, and their sizes, inf where there is none.

    Args:
        oracle: answers about the samples; its threat is `L0`.
        rng: keyed random numbers, of this search alone.
        steps: draws.
    """
    x, threat = oracle.x, need_l0(oracle.threat, "salt and pepper")
    units = threat.per_unit(x).shape[1:]
    best, fewest = torch.zeros_like(x), x.new_full((len(x),), torch.inf)
    share, most = torch.zeros_like(fewest), torch.ones_like(fewest)
    growth = most / steps
    for step in range(1, steps + 1):
        if oracle.finished or not bool(oracle.active.any()):
            break
        share = (share + growth).minimum(most)
        move = _grains(x, rng.uniform(*units).to(x), share, threat.bounds)
        size = threat.size(x, move)
        better = wins(oracle, move) & (size < fewest)
        best = torch.where(column(better, x), move, best)
        fewest, most = torch.where(better, size, fewest), torch.where(better, share, most)
        growth = torch.where(better, most / max(1, steps - step), growth)
        share = share.masked_fill(better, 0)
    return best, fewest


def need_l0(threat: Threat, who: str) -> L0:
    """Hold that this is the threat of few changed values.

    Raises:
        ThreatError: it is not.
    """
    if not isinstance(threat, L0):
        raise ThreatError(f"{who} works in L0; got {threat!r}.")
    return threat


def _grains(x: Tensor, drawn: Tensor, share: Tensor, bounds: tuple[float, float]) -> Tensor:
    """The move that sets units to the bounds, for uniform numbers that broadcast to x."""
    half = column(share, drawn) / 2
    salted = torch.where(drawn < half, bounds[1], torch.where(drawn >= 1 - half, bounds[0], x))
    return salted - x
