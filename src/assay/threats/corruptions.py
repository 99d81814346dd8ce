"""The worst weather: corruptions as moves, for searches that draw them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.corruptions import Corruption, select
from assay.corruptions.severities import TABLES
from assay.errors import ThreatError
from assay.rng import Keyed
from assay.threats.additive import column
from assay.threats.base import Threat

_NUMBERS = 3  # of a move: which corruption, severity, which of its draws
_DRAWS = 1 << 20  # of one corruption that are told apart
_SEARCH = "corruptions have no gradient: search them with RandomSearch(threat=Corruptions(3))."


@final
@dataclass(frozen=True, eq=False, repr=False)
class Corruptions(Threat):
    """Any corruption of a list, with any of its draws, at a severity of at most eps.

    A move is (which, severity, draw), `(b, 3)`: the first and the last from 0 to 1, the second from 0 (nothing happens)
    to 5, rounded. A random move has the largest severity that is allowed, and all corruptions and draws are as likely.

    Args:
        eps: the largest severity, from 1 to 5.
        bounds: the smallest and largest valid input value.
        corruptions: names or groups, as `assay.corruptions.select` takes them, with commas between.
        table: whose parameters, "imagenet" or "cifar"; by the size of the images when None.

    Shapes:
        x `(b, c, height, width)` with 1 or 3 channels.

    Raises:
        SettingError: a corruption is not known.
        ThreatError: eps is no severity, or the table is not known; at use, the attack needs gradients, which no
            corruption has.

    References:
        Hendrycks, Dietterich, ICLR 2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> import assay
        >>> attack = assay.attacks.RandomSearch(threat=Corruptions(3, corruptions="weather"), draws=10)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 2))
        >>> attack(model, torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])).x_adv.shape
        torch.Size([4, 3, 8, 8])
    """

    corruptions: str = field(default="common", kw_only=True)
    table: str | None = field(default=None, kw_only=True)

    name: ClassVar[str] = "corruptions"

    def __post_init__(self) -> None:
        super().__post_init__()
        asked = self.eps.tolist() if isinstance(self.eps, Tensor) else [] if self.eps is None else [self.eps]
        if any(each not in range(1, 6) for each in asked):
            raise ThreatError(f"eps of Corruptions is a severity, a whole number from 1 to 5; got {self.eps!r}.")
        if self.table not in (None, *TABLES):
            raise ThreatError(f"table of Corruptions has to be {' or '.join(map(repr, TABLES))}; got {self.table!r}.")
        self._kinds()

    def _kinds(self) -> tuple[type[Corruption], ...]:
        return select([name.strip() for name in self.corruptions.split(",")])

    def identity(self, x: Tensor) -> Tensor:
        """Severity 0."""
        return x.new_zeros(len(x), _NUMBERS)

    def start(self, x: Tensor, rng: Keyed) -> Tensor:
        """Any corruption and draw, at the largest severity."""
        drawn = rng.uniform(_NUMBERS).to(x)
        drawn[:, 1] = self.budget(x).clamp(max=5.0).floor()
        return drawn

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """The corrupted images.

        Raises:
            ThreatError: a gradient is wanted.
        """
        if theta.requires_grad and torch.is_grad_enabled():
            raise ThreatError(_SEARCH)
        kinds, (low, high) = self._kinds(), self.bounds
        which = (theta[:, 0] * len(kinds)).long().clamp(0, len(kinds) - 1)
        severity, draw = theta[:, 1].round().long().clamp(0, 5), (theta[:, 2].double() * _DRAWS).long()
        found, cell = x.clone(), which * 6 + severity
        for number in sorted(set(cell[severity > 0].tolist())):
            rows = (cell == number).nonzero().flatten()
            built = kinds[number // 6](severity=number % 6, table=self.table)
            shares = ((x[rows] - low) / (high - low)).clamp(0, 1)
            changed = built(shares, index=draw[rows])
            found[rows] = (changed * (high - low) + low).clamp(low, high)
        return found

    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        """Each number inside its own limits."""
        most = theta.new_full((len(theta),), 5.0) if self.eps is None else self.budget(x).clamp(max=5.0).to(theta)
        ends = torch.stack([torch.ones_like(most), most.floor(), torch.ones_like(most)], dim=1)
        return torch.minimum(theta.clamp(min=0), ends)

    def ascend(self, x: Tensor, theta: Tensor, grad: Tensor, step: Tensor) -> Tensor:
        """Corruptions have no gradient.

        Raises:
            ThreatError: always.
        """
        raise ThreatError(_SEARCH)

    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        """The severity."""
        return theta[:, 1].round()

    def scale(self, x: Tensor) -> Tensor:
        """How far each number goes."""
        eps = column(self.budget(x), self.identity(x))
        return torch.cat([torch.ones_like(eps), eps, torch.ones_like(eps)], dim=1)

    def slack(self, x: Tensor) -> float:
        """None: severities are whole numbers."""
        return 0.0
