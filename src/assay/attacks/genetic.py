"""GenAttack: a population of perturbations that cross and mutate, guided by scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.attacks.base import Attack
from assay.attacks.guides import soft_margin
from assay.attacks.remaining import Remaining
from assay.errors import LossError, SettingError, ThreatError
from assay.goals import Goal, Targeted, Untargeted
from assay.losses import Loss, resolve
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L2, Linf, Threat
from assay.threats.additive import column
from assay.threats.base import need_budget

_PLATEAU = 100  # generations without a better elite after which mutations get smaller
_SHRINK, _FIRST_RATE, _FIRST_STRENGTH = 0.9, 0.5, 0.4  # of mutations, with the number of plateaus


@final
@dataclass(frozen=True, kw_only=True)
class Genetic(Attack):
    r"""A small population of perturbations: the fittest survives, the others are children that mutate.

    The fitness is $\log p_t - \log \sum_{j \ne t} p_j$, untargeted $\log \sum_{j \ne y} p_j - \log p_y$. Parents are
    drawn with probabilities `softmax(fitness / temperature)`; a child takes each value from one of its two with odds
    as their probabilities. Then each value changes with probability $\rho$ by up to $\alpha \varepsilon$ and is
    projected. After n plateaus, each of 100 generations without a fitter one, $\rho = \max(rate, 0.5 \cdot 0.9^n)$ and
    $\alpha = \max(strength, 0.4 \cdot 0.9^n)$.

    Args:
        threat: `Linf` or `L2` with a budget eps.
        generations: generations after the first, each of `population - 1` queries.
        population: its size.
        rate: the least rate of mutations.
        strength: the least range of mutations, as a share of eps.
        temperature: of the choice of parents.
        side: rows and columns of the perturbations that evolve, which are enlarged bilinearly; those of the input when
            None.
        loss: the fitness: None for the above, "margin", "ce", "dlr" or a callable.

    Shapes:
        x `(b, *shape)` of any shape; with `side` images `(b, c, h, w)`.

    Raises:
        ThreatError: the threat is another, has no budget, or `side` is given for inputs that are no images.
        SettingError: a setting is out of range.
        LossError: the goal is not about classes.

    Deviations:
        The paper is targeted and in Linf; in L2, moves are projected and values mutate by up to a share of eps over the
        root of their number, times three. The first population is drawn in the whole threat. The paper allows 100,000
        queries; the default is a tenth.

    References:
        Alzantot, Sharma, Chakraborty, Zhang, Hsieh, Srivastava, "GenAttack: practical black-box attacks with
        gradient-free optimization", GECCO 2019, https://arxiv.org/abs/1805.11090

    Example:
        >>> import torch, assay
        >>> attack = Genetic(threat=assay.Linf(0.3), generations=4)
        >>> result = attack(torch.nn.Linear(4, 3), torch.full((2, 4), 0.5), torch.tensor([0, 1]))
        >>> int(result.forwards.max()) <= 1 + 6 + 4 * 5
        True
    """

    threat: Threat
    generations: int = 2000
    population: int = 6
    rate: float = 0.1
    strength: float = 0.15
    temperature: float = 0.3
    side: int | None = None
    loss: str | Loss | None = None

    access: ClassVar[Access] = Access.SCORES

    def __post_init__(self) -> None:
        need_budget(self.threat, "Genetic")
        if not isinstance(self.threat, (Linf, L2)):
            raise ThreatError(f"Genetic works in Linf and L2; got {self.threat!r}.")
        if self.generations < 0:
            raise SettingError(f"generations must not be negative; got {self.generations}.")
        if self.population < 2:
            raise SettingError(f"population must be at least 2; got {self.population}.")
        for name in ("rate", "strength"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingError(f"{name} must be above 0 and at most 1; got {getattr(self, name)}.")
        if self.temperature <= 0:
            raise SettingError(f"temperature must be positive; got {self.temperature}.")
        if self.side is not None and self.side < 1:
            raise SettingError(f"side must be at least 1; got {self.side}.")
        resolve(self.loss)

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """Generation after generation; the elite is in place 0 and is not asked about again."""
        if not isinstance(goal, (Untargeted, Targeted)):
            raise LossError(f"Genetic needs a goal on classes; got {type(goal).__name__}.")
        if self.side is not None and x.ndim != 4:
            raise ThreatError(f"side={self.side} is for images (b, c, h, w); got inputs of shape {tuple(x.shape)}.")
        left = Remaining(oracle, rng)
        held = torch.stack([self._start(left) for _ in range(self.population)], dim=1)
        fitness, elite = self._ask(left, held), self._moves(left, held[:, :1])[:, 0]
        best, since = torch.full_like(fitness[:, 0], -torch.inf), torch.zeros_like(fitness[:, 0])
        plateaus = torch.zeros_like(since)
        for _ in range(self.generations):
            elite, held, fitness, best, since, plateaus = left.narrow(elite, held, fitness, best, since, plateaus)
            if left.oracle.finished:
                break
            top, place = fitness.max(dim=1)
            since = torch.where(top > best, 0.0, since + 1)
            best, over = torch.maximum(top, best), since > _PLATEAU
            plateaus, since = plateaus + over.to(plateaus), since.masked_fill(over, 0.0)
            kept = held[torch.arange(len(held), device=held.device), place][:, None]
            children = self._mutated(left, self._crossed(held, fitness, left.rng), plateaus)
            held = torch.cat([kept, children], dim=1)
            fitness = torch.cat([top[:, None], self._ask(left, children)], dim=1)
        fittest = held[torch.arange(len(held), device=held.device), fitness.argmax(dim=1)]
        return left.moves(self._moves(left, fittest[:, None])[:, 0])

    def _start(self, left: Remaining) -> Tensor:
        """A random perturbation of the shape that evolves."""
        start = left.threat.start(left.x, left.rng)
        return start if self.side is None else start[:, :, : self.side, : self.side]

    def _moves(self, left: Remaining, held: Tensor) -> Tensor:
        """The moves that perturbations `(b, k, ...)` stand for."""
        size = left.x.shape[2:]
        if self.side is not None and held.shape[3:] != size:
            grown = F.interpolate(held.flatten(0, 1), size=size, mode="bilinear", align_corners=False)
            held = grown.reshape(*held.shape[:3], *size)
        return torch.stack([left.threat.project(left.x, one) for one in held.unbind(1)], dim=1)

    def _ask(self, left: Remaining, held: Tensor) -> Tensor:
        """The fitness of each, `(b, k)`; -inf where nobody was asked."""
        loss = soft_margin if self.loss is None else resolve(self.loss)
        return left.oracle.value(self._moves(left, held), loss).nan_to_num(-torch.inf, posinf=torch.inf)

    def _crossed(self, held: Tensor, fitness: Tensor, rng: Keyed) -> Tensor:
        """Children of parents drawn by fitness, one fewer than there are."""
        n, chance = held.shape[1] - 1, (fitness / self.temperature).softmax(dim=1).nan_to_num(1.0)
        rows = torch.arange(len(held), device=held.device)[:, None]
        drawn = rng.uniform(2, n).to(chance)
        parents = (drawn[..., None] >= chance.cumsum(dim=1)[:, None, None]).sum(dim=3).clamp_max(n)
        one, two = parents.unbind(1)
        odds = chance.gather(1, one) / (chance.gather(1, one) + chance.gather(1, two)).clamp_min(1e-30)
        first = rng.uniform(n, *held.shape[2:]).to(odds) < odds.reshape(*odds.shape, *[1] * (held.ndim - 2))
        return torch.where(first, held[rows, one], held[rows, two])

    def _mutated(self, left: Remaining, children: Tensor, plateaus: Tensor) -> Tensor:
        """Children of which some values have changed."""
        shrink = _SHRINK**plateaus
        rate = (_FIRST_RATE * shrink).clamp_min(self.rate)
        reach = left.threat.budget(left.x)
        if isinstance(self.threat, L2):
            reach = 3 * reach / left.x[0].numel() ** 0.5
        reach = (_FIRST_STRENGTH * shrink).clamp_min(self.strength).to(reach) * reach
        change = left.rng.uniform(*children.shape[1:], low=-1.0, high=1.0).to(children) * column(reach, children)
        chosen = left.rng.uniform(*children.shape[1:]) < column(rate, children)
        children = torch.where(chosen, children + change, children)
        if self.side is None:
            return self._moves(left, children)
        limit = column(left.threat.budget(left.x), children)
        return torch.minimum(torch.maximum(children, -limit), limit)
