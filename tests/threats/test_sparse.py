"""L0: projections against all subsets, starts, ascents that end at the optimum of the linear model, exact counts."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

import assay
from assay import grammar
from assay.errors import ThreatError
from assay.rng import Keyed
from assay.threats import L0

BOUNDS = [(0.0, 1.0), (-2.0, 3.0), (0.0, 255.0)]
UNITS = ["feature", "pixel"]


def draw(seed, shape, bounds=(0.0, 1.0), dtype=torch.float64, n=6):
    """Inputs, some of them at the bounds, and moves that leave the box."""
    generator = torch.Generator().manual_seed(seed)
    low, high = bounds
    x = torch.rand(n, *shape, generator=generator, dtype=dtype) * (high - low) + low
    x[0], x[1] = low, high
    return x, 0.8 * (high - low) * torch.randn(x.shape, generator=generator, dtype=dtype)


def per_unit(value, unit):
    return value.flatten(1) if unit == "feature" else value.sum(1).flatten(1)


def spread(mask, x, unit):
    return mask.reshape(x.shape) if unit == "feature" else mask.reshape(len(x), 1, *x.shape[2:]).expand_as(x)


def subsets(n, k):
    """All sets of exactly k of n units, as masks `(sets, n)`."""
    return torch.stack(
        [torch.zeros(n, dtype=torch.bool).index_fill(0, torch.tensor(s), 1) for s in combinations(range(n), k)]
    )


def count(theta, unit):
    return (per_unit((theta != 0).double(), unit) > 0).sum(1)


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("k", [1, 2, 4])
def test_projection_is_the_nearest_of_all_subsets(bounds, unit, k):
    for seed in range(5):
        x, theta = draw(seed, (2, 2, 3), bounds)
        threat = L0(k, unit=unit, bounds=bounds)
        nearest = threat.project(x, theta)
        clipped = (x + theta).clamp(*bounds) - x
        units = per_unit(theta, unit).shape[1]
        candidates = [clipped * spread(mask.expand(len(x), -1), x, unit) for mask in subsets(units, k)]
        best = torch.stack([(theta - c).square().flatten(1).sum(1) for c in candidates]).amin(0)
        torch.testing.assert_close((theta - nearest).square().flatten(1).sum(1), best)
        assert (count(nearest, unit) <= k).all()
        kept = nearest != 0
        torch.testing.assert_close(nearest[kept], clipped[kept])
        assert torch.equal(threat.project(x, nearest), nearest)
        assert (threat.size(x, nearest) <= threat.limit(x)).all()


@pytest.mark.parametrize("unit", UNITS)
def test_projection_leaves_allowed_moves_alone(unit):
    x = torch.full((4, 3, 5, 5), 0.5)
    theta = L0(7, unit=unit).start(x, Keyed(0, torch.arange(4)))
    assert torch.equal(L0(7, unit=unit).project(x, theta), theta)
    assert torch.equal(L0(unit=unit).project(x, theta), theta)
    tiny = theta * 1e-30
    assert torch.equal(L0(7, unit=unit).project(x, tiny), tiny)
    assert not L0(0, unit=unit).project(x, theta).any()
    assert torch.equal(L0(10_000, unit=unit).project(x, theta), theta)


def test_projection_without_budget_keeps_the_bounds():
    x = torch.tensor([[0.2, 0.9]])
    torch.testing.assert_close(L0().project(x, torch.tensor([[-3.0, 3.0]])), torch.tensor([[-0.2, 0.1]]))


def test_of_equal_units_the_first_are_kept_in_every_batch():
    x, theta = torch.full((3, 3, 4, 4), 0.5), torch.full((3, 3, 4, 4), 0.25)
    theta[1:] = -theta[1:]
    eps = torch.tensor([3.0, 40.0, 1.0])
    for unit, units in (("feature", 48), ("pixel", 16)):
        kept = L0(eps, unit=unit).project(x, theta)
        for i in range(3):
            wanted = (torch.arange(units) < eps[i])[None]
            assert torch.equal(kept[i : i + 1] != 0, spread(wanted, x[:1], unit))
            alone = L0(float(eps[i]), unit=unit).project(x[i : i + 1], theta[i : i + 1])
            assert torch.equal(kept[i : i + 1], alone)


def test_a_budget_for_each_sample():
    x, theta = draw(0, (3, 4, 4), n=4)
    eps = torch.tensor([0, 1, 5, 48])
    threat = L0(eps)
    nearest = threat.project(x, theta)
    assert (threat.size(x, nearest) <= eps).all()
    assert threat.size(x, nearest)[:3].tolist() == [0, 1, 5]
    part = threat.at(torch.tensor([2, 0]))
    assert part.eps.tolist() == [5, 0]
    assert L0(eps, unit="pixel").at(torch.tensor([1])).unit == "pixel"
    assert L0(2.9).budget(x).tolist() == [2.0] * 4


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_starts_use_the_budget_and_stay_inside(bounds, unit, batch):
    x, _ = draw(0, (3, 6, 6), bounds, n=8)
    x = x[-batch:]
    threat = L0(9, unit=unit, bounds=bounds)
    theta = threat.start(x, Keyed(0, torch.arange(batch)))
    assert (threat.size(x, theta) == 9).all() or batch == 8  # values at a bound may be drawn once more
    assert (threat.size(x, theta) >= 8).all()
    moved = x + theta
    assert moved.min() >= bounds[0]
    assert moved.max() <= bounds[1]
    assert not torch.equal(theta, threat.start(x, Keyed(1, torch.arange(batch))))
    last = threat.start(x[-1:], Keyed(0, torch.arange(batch)[-1:]))
    assert torch.equal(last, theta[-1:])


def test_every_unit_is_as_likely_and_values_are_uniform():
    x = torch.full((4000, 10), 0.25, dtype=torch.float64)
    theta = L0(3).start(x, Keyed(0, torch.arange(4000), dtype=torch.float64))
    changed = theta != 0
    assert (changed.double().mean(0) - 0.3).abs().max() < 5 * (0.21 / 4000) ** 0.5
    value = (x + theta)[changed]
    assert abs(float(value.mean()) - 0.5) < 5 * (1 / 12 / len(value)) ** 0.5
    assert abs(float((value < 0.25).double().mean()) - 0.25) < 5 * (0.1875 / len(value)) ** 0.5


def linear_optimum(x, grad, k, unit, bounds):
    best = torch.where(grad > 0, bounds[1] - x, bounds[0] - x)
    return per_unit(grad * best, unit).sort(1, descending=True).values[:, :k].sum(1)


@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("k", [1, 2, 5])
def test_a_long_ascent_ends_at_the_optimum_of_the_linear_model(bounds, unit, k):
    x, grad = draw(k, (2, 3, 3), bounds, n=12)
    threat = L0(k, unit=unit, bounds=bounds)
    exact = linear_optimum(x, grad, k, unit, bounds)
    identity = threat.identity(x)
    start = threat.start(x, Keyed(0, torch.arange(12), dtype=x.dtype))
    for theta, step in ((identity, k), (identity, 2 * k), (start, k), (start, 2 * k)):
        for scale in (1e-30, 1.0, 1e30):
            ahead = threat.ascend(x, theta, scale * grad, torch.full((12,), float(step), dtype=x.dtype))
            reached = threat.project(x, ahead)
            torch.testing.assert_close((grad * reached).flatten(1).sum(1), exact)
            assert (threat.size(x, reached) <= k).all()


@pytest.mark.parametrize("unit", UNITS)
def test_a_step_of_one_unit_is_one_change_and_a_good_one(unit):
    """A unit of the support moved to its best end, or one given up for the best outside."""
    x, grad = draw(3, (2, 2, 3), n=20)
    k = 3
    threat = L0(k, unit=unit)
    theta = threat.start(x, Keyed(0, torch.arange(20), dtype=x.dtype))
    ahead = threat.ascend(x, theta, grad, torch.full((20,), 0.3))
    now = per_unit(grad * theta, unit)
    best = per_unit(grad * torch.where(grad > 0, 1 - x, -x), unit)
    gain = per_unit(grad * ahead, unit).sum(1) - now.sum(1)
    held = per_unit((theta != 0).double(), unit) > 0
    for i in range(2, 20):
        own, now_own, enter = best[i][held[i]], now[i][held[i]], best[i][~held[i]].max()
        stay, cheapest = (own - now_own).max(), own.argmin()
        assert gain[i] >= stay - 1e-12
        assert enter <= own[cheapest] or gain[i] >= enter - now_own[cheapest] - 1e-12
        assert gain[i] <= torch.maximum(stay, enter - now_own.min()) + 1e-12  # no single change gains more
        assert (count(ahead, unit)[i] <= k).all()
        differ = per_unit((ahead != theta)[i : i + 1].double(), unit) > 0
        assert int(differ.sum()) <= 2


def test_steps_add_up_and_stop_at_the_optimum():
    x, grad = draw(5, (1, 5, 5), n=8)
    threat, one = L0(6), torch.ones(8)
    theta = threat.start(x, Keyed(0, torch.arange(8), dtype=x.dtype))
    value = (grad * theta).flatten(1).sum(1)
    for _ in range(12):
        theta = threat.ascend(x, theta, grad, one)
        after = (grad * theta).flatten(1).sum(1)
        assert (after >= value - 1e-12).all()
        value = after
    torch.testing.assert_close(value, linear_optimum(x, grad, 6, "feature", (0.0, 1.0)))
    assert torch.equal(threat.ascend(x, theta, grad, 3 * one), theta)


@pytest.mark.parametrize("unit", UNITS)
def test_ascent_without_a_budget_moves_the_steepest_units_and_keeps_the_rest(unit):
    x, grad = draw(1, (2, 3, 3))
    theta = L0(4, unit=unit).start(x, Keyed(0, torch.arange(6), dtype=x.dtype))
    ahead = L0(unit=unit).ascend(x, theta, grad, torch.full((6,), 2.0))
    best = torch.where(grad > 0, 1 - x, -x)
    gain = per_unit(grad * (best - theta), unit)
    moved = spread(gain >= gain.topk(2, dim=1).values[:, 1:], x, unit)
    assert torch.equal(ahead, torch.where(moved, best, theta))


def test_zero_gradients_move_nothing():
    x, _ = draw(0, (3, 4, 4))
    for unit in UNITS:
        theta = L0(5, unit=unit).start(x, Keyed(0, torch.arange(6), dtype=x.dtype))
        assert torch.equal(L0(5, unit=unit).ascend(x, theta, torch.zeros_like(x), torch.full((6,), 4.0)), theta)
        assert torch.equal(L0(unit=unit).ascend(x, theta, torch.zeros_like(x), torch.full((6,), 4.0)), theta)


@pytest.mark.parametrize("unit", UNITS)
def test_samples_do_not_depend_on_each_other(unit):
    x, grad = draw(2, (3, 4, 4))
    grad[3] = 0
    grad[4, :, 0] = 1.0  # ties
    eps, step = torch.tensor([0, 1, 3, 4, 6, 14]), torch.tensor([1.0, 0.2, 6.0, 2.0, 3.0, 28.0])
    threat = L0(eps, unit=unit)
    theta = threat.start(x, Keyed(0, torch.arange(6), dtype=x.dtype))
    ahead = threat.ascend(x, theta, grad, step)
    spoiled = grad.clone()
    spoiled[5] = float("nan")
    beside = threat.ascend(x, theta, spoiled, step)
    for i in range(6):
        row = slice(i, i + 1)
        alone = threat.at(torch.tensor([i])).ascend(x[row], theta[row], grad[row], step[row])
        assert torch.equal(alone, ahead[row])
        assert i == 5 or torch.equal(beside[row], ahead[row])


def test_size_counts_what_reaches_the_model():
    x = torch.tensor([[[[0.5, 1.0], [0.25, 0.5]], [[0.5, 1.0], [0.25, 0.5]]]])
    theta = torch.tensor([[[[0.1, 0.5], [0.0, 1e-12]], [[-0.1, 0.0], [0.2, 0.0]]]])
    assert L0().size(x, theta).tolist() == [3.0]  # a move past the bound and one below rounding change nothing
    assert L0(unit="pixel").size(x, theta).tolist() == [2.0]
    assert L0().slack(x) == 0
    assert L0(2).limit(x).tolist() == [2.0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("eps", [3, 299, 1500])
def test_half_precision_counts_are_honest(dtype, unit, eps):
    x, theta = draw(0, (3, 40, 41), (0.0, 255.0), dtype=torch.float32, n=5)
    x, theta = x[2:].to(dtype), theta[2:].to(dtype)  # not at the bounds, so that every unit can change
    threat = L0(eps, unit=unit, bounds=(0.0, 255.0))
    true = lambda move: count(threat.apply(x, move) - x, unit)  # noqa: E731
    nearest = threat.project(x, theta)
    assert nearest.dtype == dtype
    assert nearest.isfinite().all()
    assert (true(nearest) <= eps).all()
    assert (true(nearest) >= 0.98 * eps).all()
    assert (threat.size(x, nearest) <= threat.limit(x)).all()
    assert (threat.size(x, theta).double() >= true(theta)).all()
    ahead = threat.project(x, threat.ascend(x, nearest, theta * 1e-4, torch.full((3,), 7.0, dtype=dtype)))
    assert ahead.dtype == dtype
    value = lambda move: (theta.float() * move.float()).flatten(1).sum(1)  # noqa: E731
    assert (value(ahead) >= value(nearest)).all()
    assert (value(ahead) > value(nearest)).any()


def test_pixels_are_refused_where_there_are_none():
    for shape in ((5,), (3, 5)):
        x = torch.rand(2, *shape)
        for act in (
            lambda x=x: L0(2, unit="pixel").project(x, x),
            lambda x=x: L0(2, unit="pixel").start(x, Keyed(0, torch.arange(2))),
            lambda x=x: L0(2, unit="pixel").size(x, x),
        ):
            with pytest.raises(ThreatError, match="unit='feature'"):
                act()
    assert L0(2, unit="pixel").size(torch.zeros(2, 2, 2, 3, 2), torch.ones(2, 2, 2, 3, 2)).tolist() == [12.0, 12.0]
    with pytest.raises(ThreatError, match="'feature' or 'pixel'"):
        L0(2, unit="patch")


def test_its_text_is_read_back():
    for threat in (L0(20.0, unit="pixel"), L0(3), L0(), L0(unit="pixel", bounds=(-1, 1)), L0(2, bounds=(0, 255))):
        assert grammar.threat(repr(threat)) == threat
    assert repr(L0(20, unit="pixel")) == "L0(20.0, unit='pixel')"
    assert grammar.threat("l0:20") == L0(20) == assay.L0(20)
    assert grammar.threat("l0") == L0()
    assert L0(3) != L0(3, unit="pixel")
    assert L0(3, unit="pixel").with_eps(4) == L0(4, unit="pixel")
