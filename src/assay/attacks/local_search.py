"""Greedy local search: probe single pixels, change the few that matter, go on around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.attacks.base import Attack
from assay.attacks.images import image_shape
from assay.attacks.remaining import Remaining
from assay.errors import SettingError, ThreatError
from assay.goals import Goal
from assay.losses import Loss, resolve
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.threats import L0
from assay.threats.additive import column
from assay.threats.base import need_budget

_TOGETHER = 32  # probes in one question, at most


@final
@dataclass(frozen=True, kw_only=True)
class LocalSearch(Attack):
    r"""Round by round: probe pixels, change the `change` that matter most, and look around those in the next round.

    With values centred, $I \in [-\frac12, \frac12]$, a probe of a pixel sets all its channels to `probe` times their
    sign. The pixels whose probes have the largest loss are then changed for good: $I \leftarrow r I$, from which 1 is
    taken (to which it is added) where it leaves the range. The pixels probed next are those at most `radius` rows and
    columns away from them; at first a tenth of all.

    Args:
        threat: `L0` with a budget eps: pixels, or single values with `unit="feature"`.
        rounds: rounds, at most.
        candidates: probes of a round.
        change: pixels changed in a round (t).
        radius: d, rows and columns around a changed pixel.
        probe: p, in units of the range.
        r: factor of the change, from 0 to 2.
        rule: "cyclic" changes pixels as above; with "probe" they become what their probe made them, those alone whose
            probe raised the loss.
        loss: "margin", "ce", "dlr", a callable, or None for the goal's own (cross-entropy).

    Shapes:
        x images `(b, c, h, w)`; where the threat counts features also signals `(b, d)`, `(b, c, d)`.

    Raises:
        ThreatError: the threat is not `L0` or has no budget, or the inputs have other axes.
        SettingError: a setting is out of range.

    Deviations:
        The paper's p of 10 asks about values far outside the range, which a model may refuse: all inputs are clipped
        to the bounds, so that such a probe sets values to the bound on their own side, and a value that is there
        already is probed with the other one. Where fewer pixels than `candidates` lie around the changed ones, others
        drawn at random are probed too. The paper's score is the probability of the class, here the margin is, since
        probabilities near 1 are all the same in floating point. Once eps pixels are changed, only those are changed
        again. The rule "probe" is an addition: with `probe=-10`, the bound on the other side, it broke 16 of 16 images
        of 28x28 pixels by at most 20 for 215 queries at the mean, where the paper's rule broke 14 for 412.

    References:
        Narodytska, Kasiviswanathan, "Simple black-box adversarial perturbations for deep networks", CVPR workshops
        2017, https://arxiv.org/abs/1612.06299

    Example:
        >>> import torch, assay
        >>> attack = LocalSearch(threat=assay.L0(3, unit="pixel"), rounds=2)
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
        >>> result = attack(model, torch.full((2, 3, 4, 4), 0.25), torch.tensor([0, 1]))
        >>> int(result.forwards.max()) <= 1 + (5 + 1) + (16 + 1)
        True
    """

    threat: L0
    rounds: int = 150
    candidates: int = 128
    change: int = 5
    radius: int = 5
    probe: float = 10.0
    r: float = 1.5
    rule: Literal["cyclic", "probe"] = "cyclic"
    loss: str | Loss | None = "margin"

    access: ClassVar[Access] = Access.SCORES

    def __post_init__(self) -> None:
        need_budget(self.threat, "LocalSearch")
        if not isinstance(self.threat, L0):
            raise ThreatError(f"LocalSearch works in L0, such as L0(20, unit='pixel'); got {self.threat!r}.")
        for name in ("rounds", "candidates", "change"):
            if getattr(self, name) < 1:
                raise SettingError(f"{name} must be at least 1; got {getattr(self, name)}.")
        if self.radius < 0:
            raise SettingError(f"radius must not be negative; got {self.radius}.")
        if self.probe == 0:
            raise SettingError("probe must not be 0: such a probe may change nothing.")
        if not 0 <= self.r <= 2:
            raise SettingError(f"r must be from 0 to 2; got {self.r}.")
        if self.rule not in ("cyclic", "probe"):
            raise SettingError(f"rule must be 'cyclic' or 'probe'; got {self.rule!r}.")
        resolve(self.loss)

    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """Probes and a change in every round."""
        left, loss, theta = Remaining(oracle, rng), resolve(self.loss), self.threat.identity(x)
        units, _ = self.threat.per_unit(x[:1]).numel(), image_shape(x, "LocalSearch")
        value = goal.loss(oracle.clean()) if loss is None else loss(oracle.clean(), goal)
        best, most = theta, value
        near = torch.ones(len(x), units, dtype=torch.bool, device=x.device)
        count = min(units, self.candidates, max(self.change, units // 10))
        for _ in range(self.rounds):
            best, most, theta, value, near = left.narrow(best, most, theta, value, near)
            rows = left.threat.budget(left.x) >= 1
            if not bool((left.oracle.active & rows).any()):
                break
            chosen = (left.rng.uniform(units) + near).topk(count, dim=1).indices
            probed = self._probed(left.x, theta)
            found = self._ask(left, theta, probed, chosen, rows)
            if self.rule == "probe":
                found = found.masked_fill(found <= value[:, None], -torch.inf)
            picked = self._pick(found, chosen, theta, left)
            after = probed if self.rule == "probe" else self._changed(left.x, theta)
            theta = torch.where(self._spread(picked, theta), after, theta)
            value = left.oracle.value(theta, loss, rows).nan_to_num(-torch.inf)
            better = value > most
            best, most = torch.where(column(better, theta), theta, best), torch.where(better, value, most)
            near, count = self._around(picked, left.x), min(units, self.candidates)
        return left.moves(best)

    def _around(self, picked: Tensor, x: Tensor) -> Tensor:
        """Which units are near the picked ones, both `(b, units)`."""
        _, h, w = image_shape(x, "LocalSearch")
        grid = picked.reshape(len(x), -1, h, w).any(dim=1, keepdim=True).float()
        wide = F.max_pool2d(grid, 2 * self.radius + 1, stride=1, padding=self.radius) > 0
        return wide.flatten(1).repeat(1, picked.shape[1] // (h * w))

    def _centred(self, x: Tensor, theta: Tensor) -> Tensor:
        low, high = self.threat.bounds
        return (x + theta - low) / (high - low) - 0.5

    def _placed(self, x: Tensor, centred: Tensor) -> Tensor:
        """The moves to centred values, which are clipped."""
        low, high = self.threat.bounds
        return (centred.clamp(-0.5, 0.5) + 0.5) * (high - low) + low - x

    def _changed(self, x: Tensor, theta: Tensor) -> Tensor:
        """Moves that change every value."""
        value = self.r * self._centred(x, theta)
        return self._placed(x, value - (value > 0.5).to(value) + (value < -0.5).to(value))

    def _probed(self, x: Tensor, theta: Tensor) -> Tensor:
        """Moves that probe every value."""
        value = self._centred(x, theta)
        probe = (self.probe * torch.where(value < 0, -1.0, 1.0).to(value)).clamp(-0.5, 0.5)
        return self._placed(x, torch.where((probe - value).abs() < 1e-6, -probe, probe))

    def _spread(self, chosen: Tensor, theta: Tensor) -> Tensor:
        """A mask of units `(..., units)`, shaped like moves `(..., *m)` up to channels."""
        shape = theta.shape[1:]
        if chosen.shape[-1] != theta[0].numel():
            shape = torch.Size((1, *shape[1:]))
        return chosen.reshape(*chosen.shape[:-1], *shape)

    def _ask(self, left: Remaining, theta: Tensor, probed: Tensor, chosen: Tensor, rows: Tensor) -> Tensor:
        """The loss of each probe, `(b, k)`; -inf where nobody was asked."""
        values, units = [], self.threat.per_unit(theta[:1]).numel()
        for some in torch.split(chosen, _TOGETHER, dim=1):
            one = torch.zeros(*some.shape, units, dtype=torch.bool, device=theta.device)
            mask = self._spread(one.scatter_(2, some[:, :, None], True), theta)
            moves = torch.where(mask, probed[:, None], theta[:, None])
            values.append(left.oracle.value(moves, resolve(self.loss), rows).nan_to_num(-torch.inf))
        return torch.cat(values, dim=1)

    def _pick(self, found: Tensor, chosen: Tensor, theta: Tensor, left: Remaining) -> Tensor:
        """The units to change, `(b, units)`: the best probes, as far as the budget allows new ones."""
        changed = self.threat.per_unit((theta != 0).to(theta)).flatten(1) > 0
        order = found.argsort(dim=1, descending=True, stable=True)
        units = chosen.gather(1, order)
        known, new = found.gather(1, order) > -torch.inf, ~changed.gather(1, units)
        free = left.threat.budget(left.x) - changed.sum(dim=1)
        may = known & (~new | (new.cumsum(dim=1) <= free[:, None]))
        return torch.zeros_like(changed).scatter(1, units, may & (may.cumsum(dim=1) <= self.change))
