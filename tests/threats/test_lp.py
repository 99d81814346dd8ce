"""Lp threats: exact projections, starts inside, steepest ascents, sizes and slack."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import assay
from assay.errors import ThreatError
from assay.rng import Keyed

NORMS = {assay.Linf: torch.inf, assay.L2: 2, assay.L1: 1}


def norm(theta, p):
    return torch.linalg.vector_norm(theta.flatten(1), ord=p, dim=1)


@settings(max_examples=60, deadline=None)
@given(
    cls=st.sampled_from(list(NORMS)),
    eps=st.floats(0, 8),
    spread=st.floats(0.01, 20),
    low=st.sampled_from([0.0, -1.0, -2.5]),
    seed=st.integers(0, 10**6),
    shape=st.sampled_from([(1,), (7,), (2, 3), (1, 1, 1), (3, 4, 5)]),
)
def test_projection_is_the_nearest_allowed_move(cls, eps, spread, low, seed, shape):
    generator = torch.Generator().manual_seed(seed)
    high = 1.0
    x = torch.rand(5, *shape, generator=generator, dtype=torch.float64) * (high - low) + low
    x[0], x[1] = low, high  # at the bounds
    theta = spread * torch.randn(x.shape, generator=generator, dtype=torch.float64)
    threat = cls(eps, bounds=(low, high))
    nearest = threat.project(x, theta)
    assert bool((norm(nearest, NORMS[cls]) <= eps + 1e-9).all())
    assert bool((x + nearest >= low - 1e-12).all())
    assert bool((x + nearest <= high + 1e-12).all())
    assert torch.allclose(threat.project(x, nearest), nearest, atol=1e-9)
    # the nearest point of a convex set: no allowed move lies on theta's side of it
    for scale in (1e-3, 0.1, 1.0, 10.0):
        other = threat.project(x, nearest + scale * torch.randn(x.shape, generator=generator, dtype=torch.float64))
        inner = ((theta - nearest) * (other - nearest)).flatten(1).sum(dim=1)
        assert bool((inner <= 1e-7 * (1 + spread**2)).all())


@pytest.mark.parametrize("cls", NORMS)
def test_projection_leaves_allowed_moves_alone(cls):
    x = torch.full((4, 3, 5, 5), 0.5)
    theta = cls(0.3).start(x, Keyed(0, torch.arange(4)))
    assert torch.equal(cls(0.3).project(x, theta), theta)
    assert torch.equal(cls().project(x, theta), theta)
    assert float(cls(0.0).project(x, theta).abs().max()) < 1e-8


def test_projection_without_budget_keeps_the_bounds():
    x = torch.tensor([[0.2, 0.9]])
    assert torch.allclose(assay.L2().project(x, torch.tensor([[-3.0, 3.0]])), torch.tensor([[-0.2, 0.1]]))


def test_small_perturbations_are_not_blown_up_to_the_sphere():
    x = torch.full((1, 2), 0.5)
    assert torch.equal(assay.L2(2.0).project(x, torch.tensor([[0.3, 0.4]])), torch.tensor([[0.3, 0.4]]))


@pytest.mark.parametrize("cls", NORMS)
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (-2.1, 2.6)])
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_starts_fill_the_ball_and_stay_inside(cls, bounds, batch):
    low, high = bounds
    x = torch.rand(batch, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * (high - low) + low
    eps = {assay.Linf: 0.1, assay.L2: 0.5, assay.L1: 3.0}[cls]
    threat = cls(eps, bounds=bounds)
    theta = threat.start(x, Keyed(0, torch.arange(batch)))
    size = threat.size(x, theta)
    assert bool((size <= eps + threat.slack(x)).all())
    assert bool((size > 0.3 * eps).all())
    moved = threat.apply(x, theta)
    assert float(moved.min()) >= low
    assert float(moved.max()) <= high
    assert not torch.equal(theta, threat.start(x, Keyed(1, torch.arange(batch))))


def test_starts_are_uniform_in_the_ball():
    x = torch.full((4000, 3), 0.5, dtype=torch.float64)
    rng = Keyed(0, torch.arange(4000), dtype=torch.float64)
    for cls, p in NORMS.items():
        share = norm(cls(0.2).start(x, rng), p) / 0.2
        volume = share**3  # uniform on [0, 1] for a uniform point of any three-dimensional ball
        assert abs(float(volume.mean()) - 0.5) < 5 * (1 / 12 / 4000) ** 0.5
        assert abs(float((volume < 0.25).double().mean()) - 0.25) < 5 * (0.1875 / 4000) ** 0.5


@pytest.mark.parametrize("cls", NORMS)
def test_ascent_has_the_asked_length_and_no_better_direction(cls):
    generator = torch.Generator().manual_seed(0)
    x, step = torch.full((4, 30), 0.5, dtype=torch.float64), torch.tensor([0.01, 0.1, 0.2, 0.3], dtype=torch.float64)
    grad = torch.randn(4, 30, generator=generator, dtype=torch.float64)
    threat = cls(1.0)
    move = threat.ascend(x, torch.zeros_like(x), grad, step)
    assert torch.allclose(norm(move, NORMS[cls]), step)
    gain = (move * grad).sum(dim=1)
    dual = {assay.Linf: 1, assay.L2: 2, assay.L1: torch.inf}[cls]
    assert torch.allclose(gain, step * norm(grad, dual))  # Hoelder's bound is reached


def test_l1_ascent_spends_what_the_bounds_refuse_on_the_next_coordinates():
    x = torch.tensor([[0.9, 0.5, 0.5]])
    move = assay.L1(1.0).ascend(x, torch.zeros_like(x), torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([0.3]))
    assert torch.allclose(move, torch.tensor([[0.1, 0.2, 0.0]]))


@pytest.mark.parametrize("cls", NORMS)
def test_zero_gradients_move_nothing(cls):
    x = torch.rand(2, 3, 4, 4)
    theta = cls(0.5).start(x, Keyed(0, torch.arange(2)))
    moved = cls(0.5).ascend(x, theta, torch.zeros_like(x), torch.tensor([0.1, 0.1]))
    assert torch.equal(moved, theta)
    assert not bool(moved.isnan().any())


@pytest.mark.parametrize("cls", NORMS)
def test_apply_is_differentiable_and_its_gradient_passes_at_the_bounds(cls):
    x = torch.tensor([[0.3, 0.7]], dtype=torch.float64)
    theta = torch.tensor([[0.1, -0.2]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda t: cls(1.0).apply(x, t).square(), (theta,))
    edge = torch.tensor([[0.7 + 1e-9, -0.7 - 1e-9]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(cls(1.0).apply(x, edge).sum(), edge)
    assert torch.equal(grad, torch.ones_like(grad))


@pytest.mark.parametrize("cls", NORMS)
def test_eps_per_sample(cls):
    x = torch.rand(3, 2, 4, 4, dtype=torch.float64)
    eps = torch.tensor([0.0, 0.1, 0.7])
    threat = cls(eps)
    far = threat.project(x, 10 * torch.ones_like(x) * (x < 0.5) - 10 * (x >= 0.5))
    size = threat.size(x, far)
    assert torch.allclose(size, torch.minimum(eps.double(), size), atol=1e-7)
    one = threat.at(torch.tensor([False, False, True]))
    assert torch.equal(one.eps, eps[2:])
    for i in range(3):
        alone = cls(float(eps[i])).project(x[i : i + 1], far[i : i + 1])
        assert torch.allclose(alone, far[i : i + 1], atol=1e-7)


def test_bad_threats_are_refused_with_the_cure():
    with pytest.raises(ThreatError, match="not negative"):
        assay.Linf(-0.1)
    with pytest.raises(ThreatError, match="finite"):
        assay.L2(float("inf"))
    with pytest.raises(ThreatError, match="low < high"):
        assay.L1(1, bounds=(1, 0))
    with pytest.raises(ThreatError, match="two numbers"):
        assay.L1(1, bounds=(0, 1, 2))
    with pytest.raises(ThreatError, match="number"):
        assay.Linf("8/255")
    with pytest.raises(ThreatError, match=r"Linf\(eps\)"):
        assay.Linf().budget(torch.rand(2, 3))
    with pytest.raises(ThreatError, match="2 values for 3"):
        assay.Linf(torch.tensor([0.1, 0.2])).budget(torch.rand(3, 3))
    with pytest.raises(ThreatError, match="per sample"):
        assay.Linf(torch.tensor([0.1, -0.2]))


def test_repr_says_what_differs_from_the_defaults():
    assert repr(assay.Linf(0.5)) == "Linf(0.5)"
    assert repr(assay.L2(bounds=(-1, 1))) == "L2(bounds=(-1.0, 1.0))"
    assert assay.L2(0.5) == assay.L2(0.5)
    assert assay.L2(0.5) != assay.L2(0.6)
    assert assay.L2(0.5) != assay.Linf(0.5)
    assert len({assay.L2(0.5), assay.L2(0.5)}) == 1


def test_l2_steps_do_not_vanish_with_the_scale_of_the_gradient():
    x = torch.full((1, 4), 0.5)
    grad = torch.tensor([[3.0, 0.0, -4.0, 0.0]])
    for scale in (1e-30, 1.0, 1e30):
        moved = assay.L2(1.0).ascend(x, torch.zeros_like(x), scale * grad, torch.tensor([0.5]))
        assert torch.allclose(moved, torch.tensor([[0.3, 0.0, -0.4, 0.0]]))


def test_sparse_steps_do_not_depend_on_the_rest_of_the_batch():
    x = torch.cat([torch.full((1, 300), 0.99), torch.full((1, 300), 0.5)])
    grad, theta = torch.ones(2, 300), torch.zeros(2, 300)
    step, share = torch.tensor([12.0, 12.0]), torch.tensor([0.01, 0.9])
    both = assay.L1(20.0).ascend_sparse(x, theta, grad, step, share)
    alone = assay.L1(20.0).ascend_sparse(x[:1], theta[:1], grad[:1], step[:1], share[:1])
    assert torch.equal(both[:1], alone)


@pytest.mark.parametrize("cls", NORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_projections_do_not_overflow(cls, dtype):
    x = torch.full((2, 600), 128.0, dtype=dtype)
    theta = torch.full((2, 600), 120.0, dtype=dtype)
    nearest = cls(300.0 if cls is not assay.Linf else 30.0, bounds=(0, 255)).project(x, theta)
    assert bool(nearest.isfinite().all())
    assert 0 < float(norm(nearest.float(), NORMS[cls]).max()) <= 310
