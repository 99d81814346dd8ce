"""GeoDA: the smallest move to a boundary taken as flat, whose normal is estimated from decisions alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias, final

import torch
from torch import Tensor

from assay.attacks.base import Attack, smallest_found
from assay.attacks.bases import cosines
from assay.attacks.bisection import bisect
from assay.attacks.decisions import wins
from assay.attacks.starts import find_start
from assay.attacks.survey import probe, unit
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L1, L2, Linf, Threat
from assay.threats.additive import column

_FEWEST = 50  # probes of the first iteration
_DOUBLINGS = 10  # of the size at which the boundary is looked for

_Path: TypeAlias = Callable[[Tensor], Tensor]  # the move of each size `(b,)` along a path from the clean input


@final
@dataclass(frozen=True, kw_only=True)
class GeoDA(Attack):
    r"""Estimate the normal of the boundary from random probes, then go to it from the clean input, the shortest way.

    At a point $x_t$ of the boundary, $N_t$ probes $x_t + \sigma \eta_i$ give the normal
    $w_t \propto \sum_i \rho_i \eta_i$ with $\rho_i = \pm 1$ for a probe that reaches the goal or does not. The next
    point is the first one on the boundary along the moves of growing size r that gain most on a flat boundary with this
    normal: $clip(r \, w_t / \|w_t\|_2)$ in L2, $clip(r \, \mathrm{sign}(w_t))$ in Linf, and in L1 the values of the
    largest $|w_t|$ moved to the bounds one after the other. $N_t$ grows by $\lambda^{-2/3}$ from one iteration to the
    next.

    Args:
        threat: `L2`, `Linf` or `L1`; with a number, a sample is done as soon as a move inside is found.
        queries: probes of all iterations together; bisections come on top. There are as many iterations as leave at
            least 50 probes for the first.
        ratio: $\lambda$, by how much an iteration brings the point nearer to the best one.
        sigma: standard deviation of the probes, in units of the range of the bounds.
        tolerance: length of the bracket at which bisections end, in the same units.
        frequencies: probes of images are made of that many of the lowest frequencies along each side (cosine waves);
            of all when None, or when the image has no more, or is none.
        start: inputs to start from, `(n, *shape)`, the nearest tried first; for targets, samples of that class. Random
            noise is tried after them.

    Shapes:
        x `(b, *shape)` of any shape with a batch dimension; images are `(b, c, h, w)`.

    Raises:
        SettingError: a setting is out of range.
        ThreatError: the threat is none of `L2`, `Linf` and `L1`.
        InputError: at use, `start` does not hold inputs like x.

    Deviations:
        Along the normal the boundary is looked for at the present size first and then at twice that, 10 times at most,
        instead of in steps of one length. Where it is not found the point stays. Each iteration estimates its normal
        anew, where the released code adds up those of all so far. Targets are taken too. Starts are noise of several
        kinds, where the released code adds ever more noise to the input.

    References:
        Rahmati, Moosavi-Dezfooli, Frossard, Dai, "GeoDA: a geometric framework for black-box adversarial attacks",
        CVPR 2020, https://arxiv.org/abs/2003.06468

    Example:
        >>> import torch, assay
        >>> model = torch.nn.Linear(2, 2, bias=False)
        >>> _ = model.load_state_dict({"weight": torch.tensor([[3.0, 0.0], [0.0, 4.0]])})
        >>> attack = GeoDA(threat=assay.L2(), queries=500)
        >>> distance = attack(model, torch.tensor([[0.75, 0.5]]), torch.tensor([0])).distance
        >>> bool(0.05 <= distance <= 0.0505)
        True
    """

    threat: Threat
    queries: int = 4000
    ratio: float = 0.6
    sigma: float = 2e-4
    tolerance: float = 1e-4
    frequencies: int | None = 75
    start: Tensor | None = field(default=None, repr=False, compare=False)

    access: ClassVar[Access] = Access.LABELS

    def __post_init__(self) -> None:
        if self.queries < 1:
            raise SettingError(f"queries must be at least 1; got {self.queries}.")
        if not 0 < self.ratio < 1:
            raise SettingError(f"ratio must be between 0 and 1; got {self.ratio}.")
        for name in ("sigma", "tolerance"):
            if not 0 < getattr(self, name) < 1:
                raise SettingError(f"{name} must be between 0 and 1; got {getattr(self, name)}.")
        if self.frequencies is not None and self.frequencies < 1:
            raise SettingError(f"frequencies must be at least 1, or None; got {self.frequencies}.")
        if not isinstance(self.threat, (L2, Linf, L1)):
            raise ThreatError(f"GeoDA works in L2, Linf and L1; got {self.threat!r}.")

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """A start for each sample, then the iterations of those that have one."""
        oracle.track()
        theta, found = find_start(oracle, rng.named("start"), self.start)
        rows = (found & oracle.active).nonzero().squeeze(1)
        if len(rows):
            self._approach(oracle.at(rows), theta[rows], rng.at(rows))
        return smallest_found(oracle, x, theta)

    def _approach(self, oracle: Oracle, theta: Tensor, rng: Keyed) -> None:
        """All iterations, on ever smaller tensors while samples finish."""
        ray, length = unit(theta), torch.linalg.vector_norm(theta.flatten(1), dim=1)
        theta, _ = self._reached(oracle, lambda size: column(size, ray) * ray, length, 1.0)
        for t, count in enumerate(self._probes()):
            left = oracle.active.nonzero().squeeze(1)
            if len(left) == 0:
                return
            if len(left) < len(theta):
                oracle, rng, theta = oracle.at(left), rng.at(left), theta[left]
            path = self._path(oracle.x, self._normal(oracle, theta, count, rng.named("probes", t)))
            speed = math.sqrt(theta[0].numel()) if isinstance(self.threat, Linf) else 1.0
            there, won = self._reached(oracle, path, self.threat.size(oracle.x, theta), speed)
            theta = torch.where(column(won, theta), there, theta)

    def _probes(self) -> list[int]:
        """Probes of each iteration."""
        growth = self.ratio ** (-2 / 3)
        steps = max(1, math.floor(math.log1p(self.queries * (growth - 1) / _FEWEST) / math.log(growth)))
        first = self.queries * (growth - 1) / (growth**steps - 1)
        return [max(1, round(first * growth**t)) for t in range(steps)]

    def _normal(self, oracle: Oracle, theta: Tensor, count: int, rng: Keyed) -> Tensor:
        """The estimated normal at the moved inputs, pointing to the goal's side."""
        low, high = self.threat.bounds
        waves = _Waves(oracle.x, self.frequencies)

        def propose(rows: Tensor, drawn: Keyed, k: int) -> tuple[Tensor, Tensor]:
            noise = waves.drawn(drawn, k)
            return theta[rows][:, None] + self.sigma * (high - low) * noise, noise

        return probe(oracle, rng, count, propose).normal(baseline=False)

    def _path(self, x: Tensor, normal: Tensor) -> _Path:
        """The best moves of every size against a flat boundary with this normal."""
        low, high = self.threat.bounds
        if not isinstance(self.threat, L1):
            direction = normal.sign() if isinstance(self.threat, Linf) else normal
            return lambda size: (x + column(size, x) * direction).clamp(low, high) - x
        room = torch.where(normal > 0, high - x, x - low).flatten(1)
        order = normal.flatten(1).abs().argsort(dim=1, descending=True, stable=True)
        room = room.gather(1, order)
        before = room.cumsum(dim=1) - room

        def filled(size: Tensor) -> Tensor:
            share = (size[:, None] - before).clamp_min(0).minimum(room)
            return torch.zeros_like(room).scatter(1, order, share).reshape(x.shape) * normal.sign()

        return filled

    def _reached(self, oracle: Oracle, path: _Path, size: Tensor, speed: float) -> tuple[Tensor, Tensor]:
        """Where paths cross the boundary, and which do.

        Args:
            oracle: answers about the samples.
            path: moves by size.
            size: where to look first.
            speed: the Euclidean length of a piece of the path, over what the size grows by in it.
        """
        low, high = self.threat.bounds

        def ask(size: Tensor, rows: Tensor) -> Tensor:
            return wins(oracle, path(size), rows)

        won, below = torch.zeros_like(oracle.active), torch.zeros_like(size)
        for _ in range(_DOUBLINGS + 1):
            open_ = oracle.active & ~won
            if not bool(open_.any()):
                break
            hit = ask(size, open_)
            won, missed = won | hit, open_ & ~hit
            below, size = torch.where(missed, size, below), torch.where(missed, 2 * size, size)
        width = torch.full_like(size, self.tolerance * (high - low) / speed)
        return path(bisect(ask, below, size, width, won)), won


@final
class _Waves:
    """Gaussian noise like the inputs, of some low frequencies alone where they are images with more.

    Args:
        x: inputs, `(b, *shape)`.
        frequencies: how many, or None.
    """

    def __init__(self, x: Tensor, frequencies: int | None) -> None:
        self._like, self._waves = x, None
        if frequencies is not None and x.ndim == 4 and frequencies < max(x.shape[2:]):
            self._waves = tuple(cosines(side, min(frequencies, side), x) for side in x.shape[2:])

    def drawn(self, rng: Keyed, k: int) -> Tensor:
        """K draws for each sample, `(n, k, *shape)`."""
        if self._waves is None:
            return rng.normal(k, *self._like.shape[1:]).to(self._like)
        rows, columns = self._waves
        weights = rng.normal(k, self._like.shape[1], len(rows), len(columns)).to(self._like)
        return rows.T @ weights @ columns
