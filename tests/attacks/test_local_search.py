"""LocalSearch: one round by hand, cyclic changes, neighbourhoods, budgets."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.attacks import PGD, LocalSearch
from assay.errors import ModelError, SettingError, ThreatError
from assay.goals import Targeted
from assay.testing import Counting
from assay.testing.case import audit
from assay.testing.models import Gradientless
from assay.testing.problems import Affine, Constant
from assay.threats import L0, Linf


class Recorded(nn.Module):
    """A model with weights on pixels, that notes what it is asked."""

    def __init__(self, weight):
        super().__init__()
        self.weight, self.seen = weight, []

    def forward(self, x):
        self.seen += list(x.clone())
        z = ((x - 0.5) * self.weight).flatten(1).sum(1) - 100
        return torch.stack([torch.zeros_like(z), z], dim=1)


def test_one_round_by_hand():
    """All 12 pixels are probed with the bound on their side; the two that gain most are changed cyclically."""
    value = torch.tensor([0.9, 0.6, 0.1, 0.4, 0.52, 1.0, 0.0, 0.55, 0.45, 0.7, 0.3, 0.8], dtype=torch.float64)
    weight = torch.tensor([1.0, 2, 3, -4, 5, 1, -6, 0, 1, -1, 2, 2], dtype=torch.float64)
    x, y = value.reshape(1, 1, 3, 4), torch.tensor([0])
    model = Recorded(weight.reshape(1, 1, 3, 4))
    LocalSearch(threat=L0(12, unit="pixel"), rounds=2, change=2, candidates=12)(model, x, y)
    first = [moved.flatten() for moved in model.seen[1:3]]  # a tenth of the pixels, but at least those to change
    places = [int((moved != value).nonzero()) for moved in first]
    bound = torch.where(value < 0.5, 0.0, 1.0).double()
    bound[5], bound[6] = 0.0, 1.0  # they are at that bound already
    for moved, place in zip(first, places, strict=True):
        assert moved[place] == bound[place]
    changed = model.seen[3].flatten()
    scaled = (value - 0.5) * 1.5
    expected = scaled - (scaled > 0.5).double() + (scaled < -0.5).double() + 0.5
    for place in range(12):
        assert float(changed[place]) == pytest.approx(float(expected[place] if place in places else value[place]))
    second = [moved.flatten() for moved in model.seen[4:16]]
    gains = {}
    for moved in second:
        place = int((moved != changed).nonzero())
        gains[place] = float((moved - changed) @ weight)
    assert sorted(gains) == list(range(12))
    best = sorted(gains, key=gains.get)[-2:]
    assert sorted((model.seen[16].flatten() != changed).nonzero().flatten().tolist()) == sorted(best)
    assert len(model.seen) == 17


def test_neighbourhoods():
    x = torch.zeros(1, 3, 9, 8)
    for unit, channels in (("pixel", 1), ("feature", 3)):
        attack = LocalSearch(threat=L0(3, unit=unit), radius=2)
        picked = torch.zeros(1, channels, 9, 8, dtype=torch.bool)
        picked[0, 0, 1, 6] = True
        around = attack._around(picked.flatten(1), x).reshape(channels, 9, 8)
        expected = torch.zeros(9, 8, dtype=torch.bool)
        expected[0:4, 4:8] = True
        assert torch.equal(around, expected.expand(channels, 9, 8))


def test_no_more_pixels_than_allowed():
    x = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y, model = torch.tensor([0, 0]), Recorded(torch.ones(3, 6, 6, dtype=torch.float64))
    attack = LocalSearch(threat=L0(torch.tensor([7.0, 0.0]), unit="pixel"), rounds=6, change=3)
    result = attack(model, x, y)
    assert result.forwards.tolist() == [1 + (3 + 1) + 5 * (36 + 1), 1]
    counts = [int((moved != x[0]).any(dim=0).sum()) for moved in model.seen[2:]]
    assert max(counts) <= 8  # a probe is one more
    moved = attack.perturb(model, x, y)
    assert 0 < int((moved[0] != x[0]).any(dim=0).sum()) <= 7
    assert torch.equal(moved[1], x[1])


@pytest.mark.parametrize("rule", ["cyclic", "probe"])
def test_it_wins_where_gradients_are_zero_and_with_targets(rule):
    """A model with a few bright places that matter, behind stairs: probes and changes go the same way."""
    x = torch.full((4, 1, 8, 8), 0.6, dtype=torch.float64)
    y, goal = torch.zeros(4, dtype=torch.int64), Targeted(torch.ones(4, dtype=torch.int64))

    class Stairs(nn.Module):
        def forward(self, x):
            bright = (x[:, 0, 2:4, 5:7] - 0.6).flatten(1).sum(1)
            steps = (bright * 20).floor() / 20
            return torch.stack([torch.full_like(steps, 0.49), steps], dim=1)

    model = Counting(Stairs())
    for aim in (y, goal):
        result = LocalSearch(threat=L0(8, unit="pixel"), rounds=20, change=2, rule=rule)(model, x, aim)
        assert result.success.all()
        audit(result, model.model, x, aim, L0(8, unit="pixel"))
    assert not LocalSearch(threat=L0(1, unit="pixel"), rounds=20, rule=rule)(model, x, y).success.any()
    with pytest.raises(ModelError, match="no gradient"):
        PGD(threat=L0(8))(Gradientless(Stairs(), 3), x, y)


def test_probes_that_are_kept_raise_the_loss():
    problem = Affine(classes=3, shape=(2, 4, 4), bounds=(-2.0, 3.0))
    x, y = problem.inputs(6, dtype=torch.float64)
    goal = Targeted(problem.targets(x, y, "l0"))
    threat = L0(3 * problem.distance(x, y, "l0", goal.classes), bounds=(-2.0, 3.0))
    attack = LocalSearch(threat=threat, rounds=40, rule="probe", probe=-10.0, loss="margin")
    result = attack(problem.model(torch.float64), x, goal)
    assert result.success.sum() >= 5
    audit(result, problem.model(torch.float64), x, goal, threat)
    ended = (result.x_adv != x) & (result.x_adv != -2) & (result.x_adv != 3)
    assert not ended.any()


def test_mistakes():
    for settings in (
        {"rounds": 0},
        {"candidates": 0},
        {"change": 0},
        {"radius": -1},
        {"probe": 0.0},
        {"r": 2.5},
        {"rule": "greedy"},
    ):
        with pytest.raises(SettingError, match=next(iter(settings))):
            LocalSearch(threat=L0(3), **settings)
    with pytest.raises(ThreatError, match="needs a budget"):
        LocalSearch(threat=L0())
    with pytest.raises(ThreatError, match="LocalSearch works in L0"):
        LocalSearch(threat=Linf(0.1))
    x, y = Constant().inputs(1)
    with pytest.raises(ThreatError, match="LocalSearch works on images"):
        LocalSearch(threat=L0(3))(Constant().model(), x[..., None], y)
