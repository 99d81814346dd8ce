"""Sigma-zero: the published course step by step, exact counts, pixels, and early ends."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import assay
from assay.attacks import SigmaZero
from assay.errors import SettingError, ThreatError
from assay.goals import Targeted, Untargeted
from assay.losses import margin
from assay.testing.case import audit
from assay.testing.models import curved
from assay.testing.problems import Affine, Constant, Sparse

WIDE = (-2.0, 3.0)


class Watched(nn.Module):
    """Keeps every input that the model inside sees."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return self.model(x)


def published(model, x, goal, steps, sigma=1e-3, start=0.3, rise=0.01):
    """The points of one sample as the paper's algorithm visits them, by torch's own optimiser and schedule."""
    delta = torch.zeros_like(x, requires_grad=True)
    optimizer = torch.optim.Adam([delta], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0.1)
    threshold, points = start, []
    for _ in range(steps):
        points.append((x + delta).detach().clone())
        output = model(x + delta)
        loss = (-margin(output, goal)).clamp(min=0).sum() + (delta**2 / (delta**2 + sigma)).mean()
        optimizer.zero_grad()
        loss.backward()
        delta.grad /= delta.grad.abs().max()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            delta.copy_((x + delta).clamp(0, 1) - x)
            rate = schedule.get_last_lr()[0]
            threshold += rise * rate if bool(goal.reached(output)) else -rise * rate
            threshold = min(max(threshold, 0.0), 1.0)
            delta[delta.abs() < threshold] = 0
    return torch.cat(points)


@pytest.mark.parametrize("targeted", [False, True])
def test_it_takes_the_published_course(targeted):
    model = curved(64, 4, (0.0, 1.0))
    x = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    y = model(x).argmax(1)
    goal = Targeted((y + 1) % 4) if targeted else Untargeted(y)
    expected = published(model, x, goal, 60)
    watched = Watched(model)
    result = SigmaZero(threat=assay.L0(), steps=60)(watched, x, goal, clean_output=model(x).detach())
    assert result.success.all()
    ended = len(watched.seen) < 60  # one feature was enough
    n = min(len(watched.seen), 60) - ended
    assert n > 10
    torch.testing.assert_close(torch.cat(watched.seen[:n]), expected[:n], rtol=0, atol=1e-9)
    assert len(torch.unique(expected[:n].flatten(1), dim=0)) > 10


@pytest.mark.parametrize("size", [1, 3, 8])
def test_exact_counts_in_batches_of_any_size(size):
    for problem in (Affine(classes=2), Affine(classes=4, bounds=WIDE), Sparse(needed=3), Sparse(needed=2, bounds=WIDE)):
        x, y = problem.inputs(8, dtype=torch.float64)
        model, threat = problem.model(torch.float64), assay.L0(bounds=problem.bounds)
        attack = SigmaZero(threat=threat, steps=15)
        whole = attack(model, x, y)
        audit(whole, model, x, y, threat)
        assert torch.equal(whole.distance, problem.distance(x, y, "l0")), problem
        if size == 8:
            continue
        parts = [attack(model, x[rows], y[rows]) for rows in torch.arange(8).split(size)]
        for field in ("success", "distance", "forwards", "backwards", "x_adv"):
            assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field))


def test_targets():
    problem = Affine(classes=5)
    x, y = problem.inputs(8, dtype=torch.float64)
    targets = problem.targets(x, y, "l0")
    result = SigmaZero(threat=assay.L0(), steps=100)(problem.model(torch.float64), x, Targeted(targets))
    audit(result, problem.model(torch.float64), x, Targeted(targets), assay.L0())
    assert torch.equal(result.distance, problem.distance(x, y, "l0", targets))


def test_pixels():
    """With three channels a pixel's effect is the sum of theirs, and it counts once."""
    problem = Affine(classes=2, shape=(3, 5, 5))
    x, y = problem.inputs(8, dtype=torch.float64)
    model, threat = problem.model(torch.float64), assay.L0(unit="pixel")
    weight, _ = problem.weights()
    with torch.no_grad():
        gap = -margin(model(x), Untargeted(y))
    toward = (weight[1 - y] - weight[y]).reshape(x.shape)
    effect = (toward.clamp(min=0) * (1 - x) - toward.clamp(max=0) * x).sum(1).flatten(1)
    exact = (effect.sort(dim=1, descending=True).values.cumsum(1) < gap[:, None]).sum(1) + 1.0
    result = SigmaZero(threat=threat, steps=60)(model, x, y)
    pixels = (result.x_adv != x).any(1).flatten(1).sum(1)
    assert torch.equal(result.distance, exact.double())
    assert torch.equal(result.distance, pixels.double())
    with pytest.raises(ThreatError, match="no pixels"):
        SigmaZero(threat=threat)(nn.Linear(4, 3), torch.full((2, 4), 0.5), torch.tensor([0, 0]))


def test_other_bounds_are_the_same_search():
    model = curved(64, 3, (0.0, 1.0))
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    y = model(x).argmax(1)
    low, high = WIDE
    stretched = nn.Sequential(Shrink(low, high), model)
    unit = SigmaZero(threat=assay.L0(), steps=40)(model, x, y)
    wide = SigmaZero(threat=assay.L0(bounds=WIDE), steps=40)(stretched, low + (high - low) * x, y)
    assert unit.success.any()
    assert torch.equal(wide.distance, unit.distance)
    torch.testing.assert_close((wide.x_adv - low) / (high - low), unit.x_adv, rtol=0, atol=1e-9)


class Shrink(nn.Module):
    """Inputs between two bounds to between 0 and 1."""

    def __init__(self, low, high):
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x):
        return (x - self.low) / (self.high - self.low)


def test_a_sample_is_left_alone_when_one_feature_is_enough_or_the_budget_is_kept():
    problem = Sparse(needed=1)
    x, y = problem.inputs(4)
    single = SigmaZero(threat=assay.L0())(problem.model(), x, y)
    assert single.distance.tolist() == [1.0] * 4
    assert single.forwards.max() < 20
    wide = Affine(classes=3)
    x, y = wide.inputs(6)
    inside = SigmaZero(threat=assay.L0(20))(wide.model(), x, y)
    assert inside.success.all()
    assert inside.forwards.max() < 20


def test_nothing_is_found_where_nothing_is():
    problem = Constant()
    x, y = problem.inputs(3)
    result = SigmaZero(threat=assay.L0(), steps=20)(problem.model(), x, y)
    assert not result.success.any()
    assert torch.equal(result.x_adv, x)
    assert result.forwards.tolist() == [22] * 3
    assert result.backwards.tolist() == [20] * 3


def test_fewer_features_than_gradients_alone_find():
    """Five features of equal weight move together, though three of them at their bound would do."""
    problem = Sparse(needed=3)
    x, y = problem.inputs(4)
    watched = Watched(problem.model())
    result = SigmaZero(threat=assay.L0(), steps=20)(watched, x, y)
    assert result.distance.tolist() == [3.0] * 4
    assert (result.backwards == 21).all()
    assert (result.forwards <= 22 + 1 + 3 * 3).all()
    moved = torch.cat(watched.seen[:20])
    changed = (moved[:, None] != x).flatten(2).sum(2).amin(1)
    assert set(changed.tolist()) <= {0, 5}


def test_training_gets_the_best_move_inside_the_budget():
    problem = Affine(classes=3)
    x, y = problem.inputs(6)
    moved = SigmaZero(threat=assay.L0(3), steps=40).perturb(problem.model(), x, y)
    assert ((moved != x).flatten(1).sum(1) <= 3).all()
    reached = problem.model()(moved).argmax(1) != y
    assert torch.equal(reached, problem.distance(x, y, "l0") <= 3)


@pytest.mark.parametrize("settings", [{"steps": 0}, {"lr": 0.0}, {"sigma": 0.0}, {"t": -1.0}, {"tau": 2.0}])
def test_settings_are_checked(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        SigmaZero(threat=assay.L0(), **settings)


def test_only_l0():
    with pytest.raises(ThreatError, match="L0"):
        SigmaZero(threat=assay.L2())
