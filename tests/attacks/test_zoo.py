"""ZOO: exact distances, the update by hand, honest counts, and where its coordinates are drawn."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.attacks import PGD, ZOO
from assay.attacks.zoo_descent import CoordinateDescent
from assay.attacks.zoo_space import Space
from assay.errors import SettingError, ThreatError
from assay.goals import Targeted, Untargeted
from assay.losses import margin
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.testing import Counting
from assay.testing.case import audit, exact_within
from assay.testing.models import curved
from assay.testing.problems import Affine, Constant, Masked
from assay.threats import L2, Linf

ADAM = {"steps": 100, "search_steps": 6, "initial_c": 0.1}
NEWTON = {"solver": "newton", "steps": 120, "search_steps": 6, "initial_c": 1.0, "lr": 0.2}


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 3.0)])
@pytest.mark.parametrize("settings", [ADAM, ADAM | {"tanh": True, "lr": 0.02}, NEWTON], ids=["adam", "tanh", "newton"])
def test_within_five_percent_of_the_exact_distance(settings, bounds):
    problem = Affine(classes=3, bounds=bounds)
    x, y = problem.inputs(4, dtype=torch.float64)
    model = Counting(problem.model(torch.float64))
    result = ZOO(threat=L2(bounds=bounds), **settings)(model, x, y)
    exact_within(result, problem.distance(x, y, "l2"), 1.05)
    audit(result, model.model, x, y, L2(bounds=bounds))
    assert result.forwards.max() <= 1 + settings["search_steps"] * settings["steps"] * (2 * 48 + 1)


def test_targets_budgets_and_zero_gradients():
    problem = Affine(classes=4)
    x, y = problem.inputs(6, dtype=torch.float64)
    targets = problem.targets(x, y, "l2")
    exact = problem.distance(x, y, "l2", targets)
    model = problem.model(torch.float64)
    exact_within(ZOO(threat=L2(), **NEWTON)(model, x, Targeted(targets)), exact, 1.05)
    attack = ZOO(threat=L2(1.1 * exact), **NEWTON)
    whole = attack(model, x, Targeted(targets))
    assert whole.success.all()
    for queries in (20, 1000):
        part = attack(model, x, Targeted(targets), max_queries=queries)
        assert part.forwards.max() <= queries
        assert (part.success >= (whole.forwards <= queries)).all()
    masked = Masked(shape=(1, 4, 4))
    x, y = masked.inputs(6, dtype=torch.float64)
    threat = L2(1.2 * masked.distance(x, y, "l2"))
    assert not PGD(threat=threat, random_start=False)(masked.model(torch.float64), x, y).success.any()
    assert ZOO(threat=threat, **NEWTON | {"h": 0.05})(masked.model(torch.float64), x, y).success.all()


def test_every_query_counts():
    x, y = torch.full((2, 1, 20, 20), 0.5), torch.zeros(2, dtype=torch.int64)

    class Blind(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 2).index_fill(1, torch.tensor([0]), 1.0)

    model = Counting(Blind())
    result = ZOO(threat=L2(), steps=3, search_steps=2, abort_early=False)(model, x, y)
    assert result.forwards.tolist() == [1 + 2 * 3 * 257] * 2
    assert model.forwards == int(result.forwards.sum())
    early = ZOO(threat=L2(), steps=30, search_steps=2)(Blind(), x, y)
    assert early.forwards.tolist() == [1 + 2 * 4 * 257] * 2  # looked at after 0 and 3 steps
    few = ZOO(threat=L2(), steps=3, search_steps=1, abort_early=False)(Blind(), x[:, :, :3, :3], y)
    assert few.forwards.tolist() == [1 + 3 * 19] * 2


class Recorded(nn.Module):
    """Notes what it is asked."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(x.clone())
        return self.model(x)


@pytest.mark.parametrize("solver", ["adam", "newton"])
def test_the_updates_are_those_of_the_paper(solver):
    """One sample, two of 12 coordinates a step, against loops over plain numbers; each coordinate counts its steps."""
    x = torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 0.5 + 0.25
    model = Recorded(curved(12, 3, (0.0, 1.0)))
    y = model(x).argmax(1).detach()
    model.seen.clear()
    steps, h, c, lr = 25, 1e-4, 2.0, 0.01
    settings = {"steps": steps, "search_steps": 1, "initial_c": c, "lr": lr, "abort_early": False, "coordinates": 2}
    ZOO(threat=L2(), solver=solver, **settings)(model, x, y)
    rng = Keyed(0, torch.tensor([0]), dtype=torch.float64)

    def objective(m):
        hinge = float(-margin(model.model(x + m.reshape(x.shape)).detach(), Untargeted(y)))
        return float(m.square().sum()) + c * max(0.0, hinge)

    m, first, second, beat = torch.zeros(12, dtype=torch.float64), [0.0] * 12, [0.0] * 12, [0] * 12
    for step in range(steps):
        torch.testing.assert_close(model.seen[1 + step][0].flatten(), (x.flatten() + m), rtol=0, atol=1e-6)
        before = m.clone()
        for i in rng.choice(12, 2)[0].tolist():
            e = torch.zeros(12, dtype=torch.float64)
            e[i] = h
            up, here, down = objective(before + e), objective(before), objective(before - e)
            slope, bend = (up - down) / (2 * h), (up - 2 * here + down) / h**2
            if solver == "newton":
                m[i] -= lr * slope / (1.0 if bend < 0 else max(bend, 0.1))
                continue
            beat[i] += 1
            first[i] = 0.9 * first[i] + 0.1 * slope
            second[i] = 0.999 * second[i] + 0.001 * slope**2
            m[i] -= lr * (first[i] / (1 - 0.9 ** beat[i])) / ((second[i] / (1 - 0.999 ** beat[i])) ** 0.5 + 1e-8)
    assert solver == "newton" or max(beat) > min(beat)
    assert m.abs().max() > 0.001


def test_enlarged_modifiers():
    x = torch.full((1, 2, 8, 8), 0.5)
    space = Space(x, (0.0, 1.0), tanh=False, side=4)
    assert space.count == 2 * 16
    m = torch.zeros(1, 32)
    m[0, 5] = 0.1  # row 1, column 1 of the first channel
    u = space.move(m[:, None])[0, 0]
    assert u[1].abs().max() == 0
    expected = nn.functional.interpolate(m.reshape(1, 2, 4, 4), size=(8, 8), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(u, expected)
    larger, grown = space.enlarged(m, 8)
    torch.testing.assert_close(larger.move(grown[:, None])[0, 0], u)
    assert Space(x, (0.0, 1.0), tanh=False, side=20).count == 128


def test_tanh_keeps_the_bounds_and_starts_at_the_input():
    x = torch.tensor([[[[-2.0, -1.0, 0.0, 3.0]]]], dtype=torch.float64)
    space = Space(x, (-2.0, 3.0), tanh=True, side=None)
    zero = torch.zeros(1, 1, 4, dtype=torch.float64)
    assert space.move(zero).abs().max() < 1e-15
    for m in (-50.0, -0.5, 0.5, 50.0):
        moved = x + 5 * space.move(zero + m)
        assert moved.min() >= -2
        assert moved.max() <= 3
    assert space.move(zero + 0.5)[..., 0] > 0.005  # a value at the bound moves


def test_importance_follows_the_changes():
    x = torch.full((1, 1, 16, 16), 0.5)
    space = Space(x, (0.0, 1.0), tanh=False, side=None)
    assert torch.allclose(space.importance(torch.zeros(1, 256)), torch.full((1, 256), 1 / 256))
    m = torch.zeros(1, 256)
    m[0, 5 * 16 + 4], m[0, 12 * 16 + 12] = -0.3, 0.1
    chance = space.importance(m).reshape(16, 16)
    assert float(chance.sum()) == pytest.approx(1)
    block = chance[4:6, 4:6]
    assert (block == block[0, 0]).all()
    mean = 4 * 0.4 / 256
    assert float(block[0, 0] / chance[12, 12]) == pytest.approx((0.3 + 0.01 * mean) / (0.1 + 0.01 * mean))
    assert float(chance[0, 0] / chance[12, 12]) == pytest.approx(0.01 * mean / (0.1 + 0.01 * mean))


def drawn(importance, growth=(), steps=60):
    """How often each pixel of a 16 x 16 image was drawn, for a model that looks at one corner."""

    class Corner(nn.Module):
        def forward(self, x):
            z = x[:, 0, :4, :4].flatten(1).sum(1) - 8.0
            return torch.stack([torch.zeros_like(z) + 2, z], dim=1)

    x, y = torch.full((1, 1, 16, 16), 0.5, dtype=torch.float64), torch.tensor([0])
    attack = ZOO(
        threat=L2(),
        steps=steps,
        search_steps=1,
        initial_c=1.0,
        coordinates=8,
        side=8 if growth else None,
        growth=growth,
        importance=importance,
        abort_early=False,
    )
    oracle, counts = Oracle(Corner(), x, Untargeted(y), L2(), access=Access.SCORES), []
    space = Space(x, (0.0, 1.0), tanh=False, side=attack.side)
    c, rng = torch.ones(1, dtype=torch.float64), Keyed(0, torch.tensor([0]))
    descent = CoordinateDescent(oracle, rng, space, c, attack._plan(Untargeted(y)))
    choose = descent._choose

    def noted():
        chosen = choose()
        counts.append((descent.space.shape[1], chosen[0]))
        return chosen

    descent._choose = noted
    descent.run()
    return counts


def corner_share(counts):
    inside = [(i // side < side // 4) & (i % side < side // 4) for side, i in counts]
    return float(torch.cat(inside).double().mean())


def test_coordinates_are_drawn_where_the_importance_says():
    assert corner_share(drawn("uniform")) < 0.12
    assert corner_share(drawn("periodic")[20:]) > 0.4
    grown = drawn("resize", growth=((30, 16),))
    assert [side for side, _ in grown] == [8] * 30 + [16] * 30
    assert corner_share(grown[:30]) < 0.15
    assert corner_share(grown[30:]) > 0.2
    for _, chosen in grown:
        assert len(set(chosen.tolist())) == 8


def test_few_coordinates_are_enough_for_a_smooth_model():
    x, y = torch.full((2, 1, 16, 16), 0.5, dtype=torch.float64), torch.tensor([0, 0])
    linear = nn.Linear(256, 2, dtype=torch.float64)
    wave = torch.sin(torch.arange(16) / 15 * 3.14).double()
    with torch.no_grad():
        linear.weight.copy_(torch.stack([torch.zeros(256).double(), torch.outer(wave, wave).flatten()]))
        linear.bias.copy_(torch.tensor([0.0, -float(linear.weight[1].sum()) / 2 - 4.0]))
    model = nn.Sequential(nn.Flatten(), linear)
    exact = 4.0 / linear.weight[1].detach().norm()
    result = ZOO(threat=L2(), side=4, steps=60, search_steps=4, initial_c=1.0, lr=0.03)(model, x, y)
    assert (result.distance < 1.15 * exact).all()
    assert result.forwards.max() <= 1 + 4 * 60 * 33


def test_mistakes():
    for settings in (
        {"steps": 0},
        {"search_steps": 0},
        {"coordinates": 0},
        {"lr": 0.0},
        {"h": 0.0},
        {"initial_c": -1.0},
        {"side": 0},
        {"solver": "sgd"},
        {"importance": "paper"},
        {"growth": ((10, 8),)},
        {"growth": ((10, 8), (20, 8)), "side": 4},
        {"importance": "resize"},
    ):
        with pytest.raises(SettingError, match=next(iter(settings))):
            ZOO(threat=L2(), **settings)
    with pytest.raises(ThreatError, match="ZOO works in L2"):
        ZOO(threat=Linf(0.1))
    x, y = Constant().inputs(2)
    with pytest.raises(ThreatError, match="ZOO works on images"):
        ZOO(threat=L2())(Constant().model(), x[:, :, :, :, None], y)
