"""Square attack: random search with square windows, from scores alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attacks.base import Attack
from assay.attacks.images import image_shape
from assay.attacks.square_windows import Bumps, Stripes, Windows
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.losses import Loss, resolve
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L1, L2, Linf, Threat
from assay.threats.base import need_budget

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # queries after which the window's share is halved
_SCHEDULE_LENGTH = 10_000
_DRAWS_AT_ONCE = 50  # iterations whose random numbers are drawn together
_NARROW_AT = 0.7  # share of samples left at which the working tensors are narrowed


@final
@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Random search: change one square window of the perturbation, keep it when the loss improves.

    Linf: start with vertical stripes of +-eps; a window gets one value of +-eps per channel. L2: start with a 5 x 5
    tiling of bumps; a window gets a bump of random sign and orientation, together with the budget that is left and the
    mass taken out of a second window. L1: as L2, with masses that are sums of sizes in place of squares, and the exact
    projection on ball and box, from three times the length so that what the bounds refuse is used elsewhere. The
    window holds a share `p` of the pixels, halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 queries.

    Args:
        threat: `Linf`, `L2` or `L1` with a budget eps.
        queries: model evaluations of the search, the start included.
        p: share of the pixels in the first windows.
        rescale: stretch the schedule of `p` from 10,000 queries to `queries`.
        loss: what must improve: "margin", "ce", "dlr", a callable, or None for the goal's own.

    Shapes:
        x `(b, channels, height, width)`; `(b, d)` counts as one row of d pixels, `(b, c, d)` as c channels of them.

    Raises:
        ThreatError: the threat is another, has no budget, or the inputs are not images.
        SettingError: a setting is out of range.

    Deviations:
        Windows are drawn for each sample, where the released code shares one place in the batch, and they reach the
        last row and column, which its exclusive upper bound leaves out. Targeted goals use the margin too, where the
        released code takes the cross-entropy. Windows are at least 1 (L2, L1: 3) pixels wide and as wide as the image
        allows.

    References:
        Andriushchenko, Croce, Flammarion, Hein, "Square attack: a query-efficient black-box adversarial attack via
        random search", ECCV 2020, https://arxiv.org/abs/1912.00049
        Croce, Hein, "Mind the box: l1-APGD for sparse adversarial attacks on image classifiers", ICML 2021,
        https://arxiv.org/abs/2103.01208 (L1).

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
        >>> attack = Square(threat=assay.Linf(0.3), queries=50)
        >>> result = attack(model, torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1]))
        >>> bool((result.backwards == 0).all())
        True
    """

    threat: Threat
    queries: int = 5000
    p: float = 0.8
    rescale: bool = False
    loss: str | Loss | None = "margin"

    access: ClassVar[Access] = Access.SCORES

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise SettingError(f"queries must be at least 1; got {self.queries}.")
        if not 0 < self.p <= 1:
            raise SettingError(f"p is a share of the pixels, above 0 and at most 1; got {self.p}.")
        need_budget(self.threat, type(self).__name__)
        if not isinstance(self.threat, (Linf, L2, L1)):
            raise ThreatError(f"Square works in Linf, L2 and L1; got {self.threat!r}.")
        resolve(self.loss)

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """The search, on ever smaller tensors while samples finish."""
        shape, threat, loss = x.shape[1:], self.threat, resolve(self.loss)
        x = x.reshape(len(x), *image_shape(x, "Square"))
        windows: Windows = Stripes() if isinstance(threat, Linf) else Bumps(2 if isinstance(threat, L2) else 1)
        best = threat.project(x, windows.start(threat.budget(x)[:, None, None, None], x, rng))
        value = oracle.value(best.reshape(-1, *shape), loss)
        result, place = best.clone(), torch.arange(len(x), device=x.device)
        draws: list[Tensor] = []
        for query in range(1, self.queries):
            alive = oracle.active
            left = int(alive.sum())
            if left == 0:
                break
            if left <= _NARROW_AT * len(alive):
                result[place] = best
                rows = alive.nonzero().squeeze(1)
                oracle, rng, threat, place = oracle.at(rows), rng.at(rows), threat.at(rows), place[rows]
                x, best, value, draws = x[rows], best[rows], value[rows], [d[rows] for d in draws]
            if not draws:
                draws = list(rng.uniform(_DRAWS_AT_ONCE, windows.draws(x.shape[1])).unbind(1))
            move = windows.move(best, threat.budget(x)[:, None, None, None], draws.pop(), self._share(query))
            move = threat.project(x, move)
            tried = oracle.value(move.reshape(-1, *shape), loss)
            better = tried > value
            best = torch.where(better[:, None, None, None], move, best)
            value = torch.where(better, tried, value)
        result[place] = best
        return result.reshape(-1, *shape)

    def _share(self, query: int) -> float:
        """The window's share of the pixels at this query."""
        at = query * _SCHEDULE_LENGTH // self.queries if self.rescale else query
        halvings = sum(at > limit for limit in _HALVINGS)
        return self.p * float(0.5**halvings)
