"""SimBA and its bases: orthonormal waves, the sequence of queries by hand, whole turns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from assay.attacks import PGD, SimBA
from assay.attacks.bases import Cosines, Pixels
from assay.errors import SettingError, ThreatError
from assay.goals import Targeted, Untargeted
from assay.losses import margin
from assay.testing import Counting
from assay.testing.models import curved
from assay.testing.problems import Affine, Constant, Masked
from assay.threats import L1, L2, Linf


@pytest.mark.parametrize("shape", [(2, 4, 6), (3, 5), (7,)])
def test_vectors_are_orthonormal(shape):
    d = math.prod(shape)
    x = torch.zeros(d, *shape, dtype=torch.float64)
    for basis in (Pixels(x), Cosines(x, 0.25)):
        vectors = basis.step(x, torch.arange(d), torch.ones(d, dtype=torch.float64)).reshape(d, d)
        torch.testing.assert_close(vectors @ vectors.T, torch.eye(d, dtype=torch.float64))


def test_low_frequencies_come_first():
    scipy = pytest.importorskip("scipy.fft")
    x = torch.zeros(2 * 64, 2, 8, 8, dtype=torch.float64)
    basis = Cosines(x, 0.25)
    waves = basis.step(x, torch.arange(128), torch.ones(128, dtype=torch.float64))
    content = torch.from_numpy(scipy.dctn(waves.numpy(), axes=(2, 3), norm="ortho"))
    place = content.flatten(1).abs().argmax(dim=1)
    assert torch.equal(place, torch.arange(128))
    torch.testing.assert_close(content.flatten(1).amax(dim=1), torch.ones(128, dtype=torch.float64))
    u, v = place // 8 % 8, place % 8
    assert torch.equal(basis.rank == 0, torch.maximum(u, v) < 2)
    later = torch.maximum(u, v)[:, None] > torch.maximum(u, v)
    assert (basis.rank[:, None] >= basis.rank)[later].all()


def by_hand(model, x, y, eps, step, order, queries):
    """The paper's loop for one sample, in the given order, until it wins: how often it asks."""
    theta, goal = torch.zeros_like(x), Untargeted(y)
    value, asked, threat = goal.loss(model(x)), 0, L2(eps)
    for number in order:
        for sign in (1, -1):
            move = theta.clone().flatten(1)
            move[0, number] += sign * step
            move = threat.project(x, move.reshape(x.shape))
            output, asked = model(threat.apply(x, move)), asked + 1
            if goal.reached(output) or asked == queries:
                return asked, move
            if goal.loss(output) > value:
                theta, value = move, goal.loss(output)
                break
    raise AssertionError("the order was too short")


def test_it_is_the_loop_of_the_paper():
    model = curved(30, 4, (0.0, 1.0))
    x = torch.rand(6, 2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = model(x).argmax(1).detach()
    attack = SimBA(threat=L2(0.5), steps=30, step=0.1)
    from assay.rng import Keyed

    for i in range(6):
        rng = Keyed(4, torch.tensor([i]), dtype=torch.float64)
        order = attack._order(Pixels(x), rng, 0)[0].tolist()
        assert sorted(order) == list(range(30))
        result = attack(model, x[i : i + 1], y[i : i + 1], seed=4, index=torch.tensor([i]))
        asked, move = by_hand(model, x[i : i + 1], y[i : i + 1], 0.5, 0.1, order, int(result.forwards) - 1)
        assert int(result.forwards) == 1 + asked
        if result.success:
            torch.testing.assert_close(result.x_adv, L2(0.5).apply(x[i : i + 1], move))


def test_all_vectors_are_tried_before_any_again():
    seen = []

    class Watched(nn.Module):
        def forward(self, x):
            seen.append((x - 0.5).flatten(1))
            return torch.zeros(len(x), 2).index_fill(1, torch.tensor([0]), 1.0)

    x = torch.full((2, 5), 0.5)
    result = SimBA(threat=L2(1.0), steps=12)(Watched(), x, torch.tensor([0, 0]))
    assert result.forwards.tolist() == [25, 25]
    probes = torch.stack(seen[1:])  # both signs of 12 vectors for both samples; nothing is ever better
    assert (probes[::2] == -probes[1::2]).all()
    numbers = probes[::2].abs().argmax(dim=2)
    for sample in (0, 1):
        first, second = numbers[:5, sample].tolist(), numbers[5:10, sample].tolist()
        assert sorted(first) == sorted(second) == [0, 1, 2, 3, 4]
    assert probes.abs().amax() == pytest.approx(0.2)
    assert not torch.equal(numbers[:, 0], numbers[:, 1])


class OneWave(nn.Module):
    """Class 1 where the input holds 0.35 of one cosine wave; all others harm a little."""

    def forward(self, x):
        moved = x - 0.5
        wave = Cosines(x, 0.125).step(0 * x, torch.ones(len(x), dtype=torch.int64), torch.ones(len(x)).to(x))
        held = (moved * wave).flatten(1).sum(1)
        other = moved.flatten(1).square().sum(1) - held.square()
        return torch.stack([torch.full_like(held, 0.35), held - 0.01 * other], dim=1)


def test_the_one_wave_that_matters_is_found():
    x, y = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64), torch.tensor([0])

    def found(eps=0.5, **settings):
        return SimBA(threat=L2(eps), **settings)(OneWave(), x, y)

    low = found(basis="dct", low=0.25, step=0.4, steps=4)  # it is one of the first four
    assert float(low.distance) == pytest.approx(0.4)
    assert not found(basis="dct", low=0.25, step=0.2, steps=64).success  # half of what is needed, once
    again = found(basis="dct", low=0.25, step=0.2, steps=68)
    assert float(again.distance) == pytest.approx(0.4)
    assert not found(eps=0.34, basis="dct", low=0.25, step=0.2, steps=100).success
    assert found(step=0.2, steps=60).forwards > 2 * low.forwards


@pytest.mark.parametrize("basis", ["pixel", "dct"])
@pytest.mark.parametrize("norm", [L2, Linf])
def test_it_wins_where_gradients_are_zero_and_with_targets(norm, basis):
    problem = Masked(shape=(1, 4, 4))
    x, y = problem.inputs(6, dtype=torch.float64)
    exact = problem.distance(x, y, norm.name)
    model = Counting(problem.model(torch.float64))
    result = SimBA(threat=norm(2 * exact), basis=basis, step=0.1, low=0.5, steps=300)(model, x, y)
    assert result.success.all()
    assert model.forwards == int(result.forwards.sum())
    assert not PGD(threat=norm(2 * exact), random_start=False)(problem.model(torch.float64), x, y).success.any()
    affine = Affine(classes=4)
    x, y = affine.inputs(8, dtype=torch.float64)
    targets = affine.targets(x, y, norm.name)
    eps = 2.5 * affine.distance(x, y, norm.name, targets)
    won = SimBA(threat=norm(eps), basis=basis, step=0.1, low=0.5, steps=600)(
        affine.model(torch.float64), x, Targeted(targets)
    )
    assert won.success.sum() >= 7


def test_training_returns_the_best_moves():
    problem = Affine(classes=2)
    x, y = problem.inputs(4, dtype=torch.float64)
    model, before = problem.model(torch.float64), torch.full((4,), -torch.inf, dtype=torch.float64)
    for steps in (5, 20, 80):
        value = margin(model(SimBA(threat=L2(0.5), steps=steps).perturb(model, x, y)), Untargeted(y))
        assert (value > before).all()
        before = value


def test_mistakes():
    x, y = Constant().inputs(2)
    for settings in ({"steps": 0}, {"step": 0.0}, {"low": 0.0}, {"low": 1.5}, {"basis": "haar"}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            SimBA(threat=L2(1.0), **settings)
    with pytest.raises(ThreatError, match="needs a budget"):
        SimBA(threat=L2())
    with pytest.raises(ThreatError, match="works in L2 and Linf"):
        SimBA(threat=L1(1.0))
    with pytest.raises(ThreatError, match=r"DCT basis works on images"):
        SimBA(threat=L2(1.0), basis="dct")(Constant().model(), x[:, :, :, :, None], y)
