"""Pursuit: who is left after the brief searches, who is followed for how long and whereto, and that it wins by it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import assay
from assay.attacks import APGD, MultiTargeted, Pursuit, Relay, Square
from assay.errors import SettingError
from assay.goals import Targeted


class Line(nn.Module):
    """Three classes by the mean of the input: 0 while it is above `needed`; 1 is nearer than 2 by half."""

    def __init__(self, needed: float) -> None:
        super().__init__()
        self.needed = needed

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gap = self.needed - x.flatten(1).mean(dim=1)
        return torch.stack([torch.zeros_like(gap), gap, 2 * gap], dim=1)


X, Y = torch.full((3, 1, 4, 4), 0.6), torch.zeros(3, dtype=torch.int64)


def inner(eps: float, steps: int = 5) -> APGD:
    return APGD(threat=assay.Linf(eps), loss="margin", steps=steps)


def test_whoever_stays_far_costs_the_brief_searches_alone() -> None:
    """The least mean within reach is 0.5, of 0.6; half of the way to 0.4 is no small share."""
    found = Pursuit(attack=inner(0.1), targets=2, rounds=6)(Line(0.4), X, Y)
    assert not found.success.any()
    # the clean input; towards each of two classes, and one of them again, 5 gradients, the last move and its margin
    assert found.forwards.tolist() == [1 + 3 * (5 + 2)] * 3
    assert found.backwards.tolist() == [3 * 5] * 3


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_whoever_comes_near_is_followed_for_every_round(rounds: int) -> None:
    """0.105 were needed, 0.1 is allowed: what is missing is a twentieth of what is gained."""
    found = Pursuit(attack=inner(0.1), targets=2, rounds=rounds, longer=4)(Line(0.495), X, Y)
    assert not found.success.any()
    again = 1 if rounds else 0
    assert found.forwards.tolist() == [1 + (2 + again) * (5 + 2) + rounds * (20 + 2)] * 3
    assert found.backwards.tolist() == [(2 + again) * 5 + rounds * 20] * 3
    alone = Pursuit(attack=inner(0.1), targets=2, rounds=rounds, near=0.04)(Line(0.495), X, Y)
    assert alone.backwards.tolist() == [(2 + again) * 5] * 3


def test_whoever_owes_what_starts_differ_by_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is half of the gain; the second start ends so much worse that it may be chance."""
    run, starts, worse = APGD.run, list[int](), [0.0]  # 4 x 0.2 of the gain, and then 4 x 0.1, for half of it

    def lucky(self: APGD, oracle, x, goal, rng):
        starts.append(self.steps)
        theta = run(self, oracle, x, goal, rng)
        return theta * (1 - worse[0]) if len(starts) == 3 else theta

    monkeypatch.setattr(APGD, "run", lucky)
    for worse[0], followed in ((0.2, True), (0.1, False)):
        starts.clear()
        Pursuit(attack=inner(0.1), targets=2, rounds=2)(Line(0.45), X, Y)
        assert starts == [5, 5, 5] + [25, 25] * followed


class Recorder(nn.Module):
    """Four classes; 3 looks likeliest on the clean input, but others come nearer: 2, then 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        moved = (x - 0.5).flatten(1).abs().mean(dim=1)
        slopes = torch.tensor([0.0, 9.6, 9.7, -9.0]).to(moved)
        starts = torch.tensor([0.0, -1.0, -1.0, -0.5]).to(moved)
        return starts + slopes * moved[:, None]


def test_rounds_lead_to_the_classes_that_came_nearest_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    run = APGD.run

    def watched(self: APGD, oracle, x, goal, rng):
        seen.append((self.steps, int(goal.classes[0])))
        return run(self, oracle, x, goal, rng)

    monkeypatch.setattr(APGD, "run", watched)
    x, y = torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, dtype=torch.int64)
    Pursuit(attack=inner(0.1, 10), targets=3, rounds=4, longer=3)(Recorder(), x, y)
    assert [goal for _, goal in seen[:3]] == [3, 1, 2]
    assert seen[3:] == [(10, 2), (30, 2), (30, 1), (30, 2), (30, 1)]
    seen.clear()
    Pursuit(attack=inner(0.1, 10), targets=3, rounds=2)(Recorder(), x, Targeted(torch.tensor([2]), away=y))
    assert seen == [(10, 2), (10, 2), (50, 2), (50, 2)]


def test_it_breaks_what_brief_searches_leave_and_no_less_than_long_ones_at_less_cost() -> None:
    model, data = assay.load_model("fashion-cnn"), assay.load_data("fashion-mnist", limit=300)
    rows = (~inner(0.05, 20)(model, data.x, data.y).success).nonzero().flatten()
    brief, pursued, long = (
        attack(model, data.x[rows], data.y[rows], index=rows)
        for attack in (
            MultiTargeted(attack=inner(0.05, 20), targets=4),
            Pursuit(attack=inner(0.05, 20), targets=4, rounds=6),
            MultiTargeted(attack=inner(0.05, 100), targets=4),
        )
    )
    assert not (brief.success & ~pursued.success).any()  # they begin alike
    assert pursued.success.sum() >= brief.success.sum() + 3
    assert pursued.success.sum() >= long.success.sum()
    assert pursued.backwards.sum() < 0.8 * long.backwards.sum()


def test_the_rows_do_not_depend_on_who_else_is_there() -> None:
    model, data = assay.load_model("digits-mlp"), assay.load_data("digits", limit=40)
    attack, index = Pursuit(attack=inner(0.12, 3), rounds=3), torch.arange(40)
    whole = attack(model, data.x, data.y, index=index)
    assert whole.success.any()
    assert len(whole.forwards[~whole.success].unique()) > 1
    for rows in (torch.arange(20, 27), torch.tensor([3, 0, 31])):
        part = attack(model, data.x[rows], data.y[rows], index=index[rows])
        assert torch.equal(part.success, whole.success[rows])
        assert torch.equal(part.forwards, whole.forwards[rows])


def test_in_training_it_returns_its_best_moves() -> None:
    moved = Pursuit(attack=inner(0.1), targets=2, rounds=1).perturb(Line(0.495), X, Y)
    torch.testing.assert_close(moved, X - 0.1)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"targets": 0}, "targets must be at least 1"),
        ({"longer": 0}, "longer must be at least 1"),
        ({"rounds": -1}, "rounds must not be negative"),
        ({"near": float("nan")}, "near must not be negative"),
        ({"attack": Square(threat=assay.Linf(0.1))}, "Square has none"),
        ({"attack": Relay(attack=inner(0.1))}, "Relay has none"),
    ],
)
def test_settings_that_cannot_be(settings: dict, found: str) -> None:
    with pytest.raises(SettingError, match=found):
        Pursuit(**{"attack": inner(0.1), **settings})


def test_two_classes_are_enough_for_the_margin() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    y = model(X).argmax(dim=1)
    assert Pursuit(attack=inner(0.6), rounds=1)(model, X, y).success.all()
