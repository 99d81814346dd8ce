"""Relay: who is left after a turn, who goes on, and that it wins where gradients mislead and stays honest elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import assay
from assay.attacks import APGD, FMN, PGD, Attack, Relay
from assay.errors import SettingError, ThreatError
from assay.oracle import Access


class Steps(nn.Module):
    """A linear classifier of two classes that sees its inputs in steps: its gradient is exactly zero.

    With weights of size 1 the class changes once more than half of the 16 values have gone down by a step.
    """

    def __init__(self, levels: int | None) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        seen = x if self.levels is None else (x * self.levels).round() / self.levels
        total = seen.flatten(1).sum(dim=1)
        return torch.stack([total, torch.full_like(total, 8.0)], dim=1)


X = torch.full((3, 1, 4, 4), 0.6)  # the sum is 9.6: class 0; below 8 it is class 1, at an Linf distance of 0.1
Y = torch.zeros(3, dtype=torch.int64)


def inner(eps: float, steps: int = 3) -> Attack:
    return APGD(threat=assay.Linf(eps), loss="margin", steps=steps)


def test_it_wins_where_the_gradient_is_zero_and_ascent_does_not() -> None:
    model = Steps(levels=5)  # 0.6 is a level; below 0.5 it is seen as 0.4
    assert not APGD(threat=assay.Linf(0.12), loss="margin", steps=60, restarts=2)(model, X, Y).success.any()
    assert Relay(attack=inner(0.12))(model, X, Y).success.all()
    assert not Relay(attack=inner(0.09))(model, X, Y).success.any()  # no value reaches the next level


def test_an_honest_network_costs_one_turn() -> None:
    result = Relay(attack=inner(0.09), turns=20, queries=30, steps=4)(Steps(levels=None), X, Y)
    assert not result.success.any()
    # the clean input; 3 gradients and the last move; its margin; 30 windows; 4 gradients and the last move
    assert result.forwards.tolist() == [1 + 4 + 1 + 30 + 5] * 3
    assert result.backwards.tolist() == [3 + 4] * 3


class Slope(nn.Module):
    """Scores see brightness in steps of a hundredth, gradients point the wrong way: only a search gets on."""

    def __init__(self, needed: float) -> None:
        super().__init__()
        self.needed = needed

    def forward(self, x: Tensor) -> Tensor:
        total = x.flatten(1).mean(dim=1)
        wrong = 2 * total.detach() - total  # its value is the mean, its gradient the opposite
        return torch.stack([wrong, torch.full_like(total, self.needed)], dim=1)


def test_a_sample_whose_gradients_mislead_is_searched_for_longer() -> None:
    attack = Relay(attack=inner(0.1), turns=4, queries=20, steps=2)
    near, far = attack(Slope(0.515), X, Y), attack(Slope(0.2), X, Y)  # the least mean within reach is 0.5
    assert near.success.all()
    assert not far.success.any()
    assert int(far.forwards.max()) <= 1 + 4 + 1 + 10 * (20 + 3)  # at most 2.5 times its turns
    assert int(near.forwards.max()) > 1 + 4 + 1 + 20 + 3  # not in the first turn


def test_the_rows_do_not_depend_on_who_else_is_there() -> None:
    model = Slope(0.505)
    x = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.55
    y = torch.zeros(4, dtype=torch.int64)
    attack, index = Relay(attack=inner(0.08), turns=3, queries=20, steps=2), torch.arange(4)
    whole = attack(model, x, y, index=index)
    for rows in (torch.tensor([2]), torch.tensor([3, 0])):
        part = attack(model, x[rows], y[rows], index=index[rows])
        assert part.success.tolist() == whole.success[rows].tolist()
        assert part.forwards.tolist() == whole.forwards[rows].tolist()


def test_in_training_it_takes_its_turns_and_ends() -> None:
    moved = Relay(attack=inner(0.1), turns=2, queries=5, steps=2).perturb(Steps(levels=None), X, Y)
    assert float((moved - X).abs().max()) <= 0.1 + 1e-6
    assert bool((moved < X).any())


@pytest.mark.parametrize("name", ["turns", "queries", "steps"])
def test_settings_that_are_too_small(name: str) -> None:
    with pytest.raises(SettingError, match=f"{name} must be at least 1"):
        Relay(attack=inner(0.1), **{name: 0})


def test_threats_that_it_cannot_use() -> None:
    with pytest.raises(ThreatError, match="Linf, L2 and L1"):
        Relay(attack=PGD(threat=assay.Flow(0.05)))
    with pytest.raises(ThreatError, match="budget"):
        Relay(attack=FMN(threat=assay.L2()))


def test_what_it_asks_for() -> None:
    assert Relay.access is Access.GRADIENTS
    assert Relay(attack=inner(0.1)).threat == assay.Linf(0.1)
