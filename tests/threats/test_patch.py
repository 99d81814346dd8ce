"""Patches: exact projections and linear optima against all squares, sizes, masks, and searches that find the place."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from assay import grammar
from assay.attacks import APGD, PGD, AdamSearch
from assay.errors import GrammarError, ThreatError
from assay.rng import Keyed
from assay.threats import Patch


def squares(h, w, side):
    """Masks of all squares of this side, cut to the image."""
    tall, wide = min(side, h), min(side, w)
    for top in range(h - tall + 1):
        for left in range(w - wide + 1):
            mask = torch.zeros(h, w, dtype=torch.bool)
            mask[top : top + tall, left : left + wide] = True
            yield mask


def best_linear(x, weight, side, allowed=None):
    """The largest rise of `sum(weight * x')` by a patch: the bound by the sign of the weight, in the best square."""
    gain = torch.where(weight > 0, 1 - x, -x) * weight
    gain = gain if allowed is None else gain * allowed
    return max(float((gain * mask).sum()) for mask in squares(*x.shape[-2:], side))


def batch(shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=dtype), generator


@settings(max_examples=40, deadline=None)
@given(
    shape=st.sampled_from([(1, 5, 5), (3, 4, 6), (2, 6, 3), (4, 4)]),
    side=st.integers(0, 7),
    spread=st.floats(0.01, 3),
    seed=st.integers(0, 10**6),
    masked=st.booleans(),
)
def test_projection_is_the_nearest_allowed_move(shape, side, spread, seed, masked):
    x, generator = batch((3, *shape), seed)
    h, w = shape[-2:]
    theta = spread * torch.randn(x.shape, generator=generator, dtype=x.dtype)
    mask = torch.rand(h, w, generator=generator) < 0.6 if masked else None
    area = min(side, h) * min(side, w) / (h * w)
    threat = Patch(area, mask=mask)
    nearest = threat.project(x, theta)
    assert bool((threat.size(x, nearest) <= threat.limit(x)).all())
    assert torch.equal(threat.project(x, nearest), nearest)
    clipped = torch.minimum(torch.maximum(theta, -x), 1 - x) * (1 if mask is None else mask)
    for row in range(3):
        every = [clipped[row] * square for square in squares(h, w, side)] if side else [torch.zeros(shape)]
        least = min(float((theta[row] - other).square().sum()) for other in every)
        assert float((theta[row] - nearest[row]).square().sum()) == pytest.approx(least)


def test_projection_leaves_allowed_moves_alone_and_the_identity_changes_nothing():
    x, _ = batch((6, 3, 8, 8), dtype=torch.float32)
    for threat in (Patch(0.2), Patch(0.2, location=(1, 3)), Patch(mask=x[0, 0] > 0.5)):
        theta = threat.start(x, Keyed(0, torch.arange(6)))
        theta[0] *= 1e-6  # far below what sums of squares can hold
        peak = theta[0, 0].abs().flatten().argmax()
        theta[0, 0].view(-1)[peak] = 0.5 - x[0, 0].flatten()[peak]
        assert torch.equal(threat.project(x, theta), theta)
        assert torch.equal(threat.apply(x, threat.identity(x)), x)
        assert float(threat.size(x, threat.identity(x)).max()) == 0
        assert bool((threat.size(x, theta) <= threat.limit(x)).all())


def test_moves_are_differentiable_everywhere():
    x, generator = batch((2, 2, 3, 3))
    theta = (0.1 * (torch.rand(x.shape, generator=generator, dtype=x.dtype) - 0.5)).requires_grad_()
    x = x * 0.8 + 0.1
    assert torch.autograd.gradcheck(lambda theta: Patch(0.5).apply(x, theta), theta)
    at_the_bound = (1 - x).requires_grad_()
    (slope,) = torch.autograd.grad(Patch(0.5).apply(x, at_the_bound).sum(), at_the_bound)
    assert torch.equal(slope, torch.ones_like(x))


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 3.0)])
@pytest.mark.parametrize("masked", [False, True])
def test_one_long_step_is_the_best_patch_of_a_linear_model(bounds, masked):
    x, generator = batch((4, 3, 6, 5))
    weight = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    mask = torch.rand(4, 6, 5, generator=generator) < 0.7 if masked else None
    low, high = bounds
    threat = Patch(4 / 30, bounds=bounds, mask=mask)
    clean = low + (high - low) * x
    start = threat.start(clean, Keyed(0, torch.arange(4)))
    for theta in (threat.identity(clean), start):
        moved = threat.project(clean, threat.ascend(clean, theta, weight, torch.full((4,), 4 / 30, dtype=x.dtype)))
        gain = (weight * moved).flatten(1).sum(dim=1)
        for row in range(4):
            allowed = None if mask is None else mask[row]
            exact = (high - low) * best_linear(x[row], weight[row], 2, allowed)
            assert float(gain[row]) == pytest.approx(exact)


def test_short_steps_go_along_signs_and_zero_gradients_move_nothing():
    x, generator = batch((2, 1, 5, 5))
    threat = Patch(9 / 25, location=(1, 1))
    theta = 0.1 * threat.start(x, Keyed(0, torch.arange(2)))
    grad = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    moved = threat.ascend(x, theta, grad, torch.full((2,), 0.01 * 9 / 25, dtype=x.dtype))
    change = moved - theta
    inside = torch.zeros(5, 5, dtype=torch.bool)
    inside[1:4, 1:4] = True
    room = torch.where(grad > 0, 1 - x - theta, x + theta)
    assert torch.allclose(change[..., inside], (grad.sign() * room.clamp(max=0.01))[..., inside])
    assert float(change[..., ~inside].abs().max()) == 0
    free = Patch(9 / 25).project(x, theta)
    assert torch.equal(Patch(9 / 25).ascend(x, free, torch.zeros_like(x), torch.ones(2, dtype=x.dtype)), free)


@pytest.mark.parametrize("eps", [0.1, 0.5, 1.0, 5.0, 0.001])
def test_sides_are_the_longest_that_the_area_allows(eps):
    x = torch.full((400, 1, 7, 10), 0.5)
    threat = Patch(eps)
    theta = threat.start(x, Keyed(0, torch.arange(400)))
    changed = (theta != 0).squeeze(1)
    assert int(changed.flatten(1).sum(dim=1).max()) <= eps * 70
    side = max(s for s in range(11) if min(s, 7) * min(s, 10) <= eps * 70)
    height, width = min(side, 7), min(side, 10)
    assert int(changed.any(dim=2).sum(dim=1).max()) == height
    assert int(changed.any(dim=1).sum(dim=1).max()) == width
    assert float(threat.size(x, theta).max()) == pytest.approx(height * width / 70)
    places = {(int(row), int(col)) for row, col in zip(*_corner(changed), strict=True)}
    if side:
        assert len(places) == (7 - height + 1) * (10 - width + 1)  # every place is drawn


def _corner(changed):
    return changed.any(dim=2).int().argmax(dim=1), changed.any(dim=1).int().argmax(dim=1)


def test_start_depends_on_the_sample_only():
    x, _ = batch((5, 3, 6, 6))
    whole = Patch(0.2).start(x, Keyed(3, torch.arange(5), dtype=torch.float64))
    alone = Patch(0.2).start(x[4:], Keyed(3, torch.tensor([4]), dtype=torch.float64))
    assert torch.equal(whole[4:], alone)
    assert float(whole.abs().max()) > 0.3


def test_size_is_the_smallest_square_around_the_change_and_inf_outside_of_the_region():
    x = torch.full((3, 2, 4, 4), 0.5)
    theta = torch.zeros_like(x)
    theta[0, 1, 0, 0] = theta[0, 0, 1, 2] = 0.1  # 2 rows, 3 columns
    theta[1, 0, 3, 3] = -0.1
    assert Patch(1.0).size(x, theta).tolist() == [9 / 16, 1 / 16, 0]
    assert Patch(9 / 16, location=(1, 1)).size(x, theta).tolist() == [torch.inf, 1 / 16, 0]
    mask = torch.ones(4, 4)
    mask[3, 3] = 0
    assert Patch(mask=mask).size(x, theta).tolist() == [9 / 16, torch.inf, 0]


def test_settings_of_samples_are_selected_with_them():
    x, _ = batch((3, 1, 4, 4))
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = True
    part = Patch(mask=mask).at(torch.tensor([2, 0]))
    theta = part.start(x[[2, 0]], Keyed(0, torch.arange(2)))
    assert (theta[0, 0] != 0).nonzero().tolist() == [[2, 2]]
    assert (theta[1, 0] != 0).nonzero().tolist() == [[0, 0]]
    eps = torch.tensor([1 / 16, 4 / 16, 9 / 16])
    wide = Patch(eps).ascend(x, torch.zeros_like(x), torch.ones_like(x), eps)
    assert (wide != 0).flatten(1).sum(dim=1).tolist() == [1, 4, 9]
    assert torch.equal(Patch(eps).at(torch.tensor([False, True, False])).eps, eps[1:2])


class Bright(nn.Module):
    """Class 1 where the weighted sum of the image exceeds a threshold."""

    def __init__(self, weight, threshold):
        super().__init__()
        self.weight, self.threshold = weight, threshold

    def forward(self, x):
        value = (x * self.weight).flatten(1).sum(dim=1, keepdim=True) - self.threshold
        return torch.cat([-value, value], dim=1)


@pytest.mark.parametrize(
    "attack",
    [
        lambda threat: PGD(threat=threat, steps=5, rel_step=1.0),
        lambda threat: APGD(threat=threat, steps=10),
        lambda threat: PGD(threat=threat, steps=1, rel_step=1.0, random_start=False, look_ahead=False),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_searches_win_with_the_best_patch_and_fail_below(attack, masked):
    """Two-sided: the threshold lies just below, then just above what the best patch at the best place can reach."""
    x, generator = batch((1, 3, 5, 5))
    weight = torch.randn(x.shape[1:], generator=generator, dtype=x.dtype)
    mask = torch.rand(5, 5, generator=generator) < 0.6 if masked else None
    best = float((x * weight).sum()) + best_linear(x[0], weight, 2, mask)
    threat, y = Patch(4 / 25, mask=mask), torch.tensor([0])
    won = attack(threat)(Bright(weight, best - 1e-6), x, y)
    assert bool(won.success.all())
    assert float(won.distance) <= 4 / 25
    assert int((won.x_adv != x).any(dim=1).sum()) <= 4
    assert not bool(attack(threat)(Bright(weight, best + 1e-6), x, y).success.any())


def test_adam_fills_a_place_that_is_given():
    x, generator = batch((4, 1, 6, 6))
    weight = torch.randn(1, 6, 6, generator=generator, dtype=x.dtype)
    inside = torch.zeros(6, 6, dtype=torch.bool)
    inside[2:5, 1:4] = True
    gain = (torch.where(weight > 0, 1 - x, -x) * weight * inside).flatten(1).sum(dim=1)
    need = float(((x * weight).flatten(1).sum(dim=1) + gain).min())
    threat, y = Patch(0.25, location=(2, 1)), torch.zeros(4, dtype=torch.int64)
    result = AdamSearch(threat=threat, steps=30)(Bright(weight, need - 1e-6), x, y)
    assert bool(result.success.all())


def test_it_reads_back_from_its_repr():
    assert grammar.threat("patch:0.1") == Patch(0.1)
    for threat in (Patch(0.1), Patch(0.25, location=(3, 0)), Patch(0.1, bounds=(-1.0, 1.0)), Patch()):
        assert grammar.threat(repr(threat)) == threat
    assert grammar.threat("patch:0.1, location=(2, 5)").location == (2, 5)
    assert repr(Patch(mask=torch.ones(2, 3))) == "Patch(1.0, mask=<2x3 mask, 6 pixels>)"


def test_mistakes_are_named():
    x, y, model = torch.zeros(1, 1, 4, 4), torch.tensor([0]), nn.Flatten()
    for settings_, found in (
        ({"location": (1,)}, "two whole numbers"),
        ({"location": (-1, 0)}, "two whole numbers"),
        ({"mask": torch.ones(3)}, "must be a tensor"),
        ({"mask": [[1]]}, "must be a tensor"),
        ({"mask": torch.ones(4, 4), "location": (0, 0)}, "leave location out"),
    ):
        with pytest.raises(ThreatError, match=found):
            Patch(0.1, **settings_)
    with pytest.raises(ThreatError, match="does not lie inside"):
        PGD(threat=Patch(0.25, location=(3, 3)))(model, x, y)
    with pytest.raises(ThreatError, match="the inputs are"):
        PGD(threat=Patch(mask=torch.ones(3, 3)))(model, x, y)
    with pytest.raises(ThreatError, match="masks for 3 samples, and 1 inputs"):
        PGD(threat=Patch(mask=torch.ones(3, 4, 4)))(model, x, y)
    with pytest.raises(ThreatError, match=r"shape \(b, 16\) have no pixels"):
        PGD(threat=Patch(0.1))(model, torch.zeros(1, 16), y)
    with pytest.raises(ThreatError, match="needs a budget"):
        PGD(threat=Patch())
    with pytest.raises(GrammarError, match="location"):
        grammar.threat("patch:0.1, place=(0, 0)")
