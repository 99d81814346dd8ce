"""Proximal steps beside numerical minimisers of the same problems, and beside full search where there are few moves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

from assay.attacks.proximal import proximal_step
from assay.threats import L0, L1, L2, Linf

BOUNDS = (-1.0, 2.0)
THREATS = {"linf": Linf, "l2": L2, "l1": L1, "l0": L0}
SHARES = (0.05, 0.4, 1.0)


def problem(seed, d=6, gain=0.6):
    """A clean input, a move inside the box, a gradient, and how much the model shall gain of what it can at most."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(1, d, generator=generator, dtype=torch.float64) * 3 - 1
    x[0, 0] = BOUNDS[0]
    theta = (torch.rand(1, d, generator=generator, dtype=torch.float64) * 3 - 1 - x) * 0.5
    grad = torch.randn(1, d, generator=generator, dtype=torch.float64)
    low, high = BOUNDS[0] - x, BOUNDS[1] - x
    most = (grad * torch.where(grad > 0, high, low)).sum(1)
    need = gain * (most - (grad * theta).sum(1)) - 0.1
    return x, theta, grad, need


def step(norm, x, theta, grad, need, share):
    return proximal_step(THREATS[norm](bounds=BOUNDS), x, theta, grad, need, torch.full_like(need, share))


def size(z, norm):
    return float({"linf": z.abs().max(), "l2": z.norm(), "l1": z.abs().sum(), "l0": (z != 0).sum()}[norm])


def numbers(x, theta, grad, need):
    low, high = (BOUNDS[0] - x)[0].numpy(), (BOUNDS[1] - x)[0].numpy()
    held = float((grad * theta).sum() + need)
    return low, high, theta[0].numpy(), grad[0].numpy(), held


@pytest.mark.parametrize("norm", ["linf", "l1"])
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("seed", range(4))
def test_levels_and_exchanges_solve_a_linear_program(norm, share, seed):
    x, theta, grad, need = problem(seed, gain=0.3 * share)
    z = step(norm, x, theta, grad, need, share)
    low, high, start, g, held = numbers(x, theta, grad, need)
    width = BOUNDS[1] - BOUNDS[0]
    d, count = len(start), 1 if norm == "linf" else len(start)
    reach = share * abs(start).max() if share < 1 else 2 * width
    low, high = np.maximum(low, start - reach), np.minimum(high, start + reach)
    select = np.ones((d, 1)) if norm == "linf" else np.eye(d)
    inequalities = np.block([[np.eye(d), -select], [-np.eye(d), -select], [-g[None], np.zeros((1, count))]])
    best = linprog(
        np.r_[np.zeros(d), np.ones(count)],
        A_ub=inequalities,
        b_ub=np.r_[np.zeros(2 * d), -held],
        bounds=[*zip(low, high, strict=True), *[(0, None)] * count],
    )
    assert best.status == 0
    assert (z - theta).abs().max() <= reach + 1e-9
    assert float((grad * z).sum()) >= held - 1e-6
    assert size(z, norm) == pytest.approx(best.fun, abs=1e-5)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("seed", range(4))
def test_shrinking_minimises_length_and_distance_from_the_last_move(share, seed):
    x, theta, grad, need = problem(seed)
    z = step("l2", x, theta, grad, need, share)[0].numpy()
    low, high, start, g, held = numbers(x, theta, grad, need)

    def cost(v):
        return (v**2).sum() + (1 / share - 1) * ((v - start) ** 2).sum()

    best = minimize(
        cost,
        np.clip(start, low, high),
        jac=lambda v: 2 * v + 2 * (1 / share - 1) * (v - start),
        bounds=list(zip(low, high, strict=True)),
        constraints={"type": "ineq", "fun": lambda v: g @ v - held, "jac": lambda v: g},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert g @ z >= held - 1e-9
    assert cost(z) == pytest.approx(best.fun, rel=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_the_first_count_is_the_least_of_all_supports(seed):
    x, theta, grad, need = problem(seed)
    theta = torch.zeros_like(theta)
    z = step("l0", x, theta, grad, need, 1.0)
    low, high, _, g, held = numbers(x, theta, grad, need)
    gains = np.maximum(g * low, g * high)
    least = next(
        k for k in range(7) if any(sum(gains[list(s)]) >= held for s in itertools.combinations(range(len(g)), k))
    )
    assert float((grad * z).sum()) == pytest.approx(held)
    assert size(z, "l0") == least >= 1


def test_a_count_falls_by_exchanges():
    """Two weak features hold the gain; a step of one exchange finds the strong one that does it alone."""
    x, theta = torch.full((1, 4), 0.5), torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    grad = torch.tensor([[1.0, 1.0, 3.0, 0.0]])
    z = proximal_step(L0(), x, theta, grad, torch.tensor([0.0]), torch.tensor([0.1]))
    assert torch.equal(z, torch.tensor([[0.0, 0.0, 0.5, 0.0]]))


@pytest.mark.parametrize("norm", THREATS)
def test_what_cannot_be_gained_is_approached(norm):
    x, theta, grad, _ = problem(0)
    z = step(norm, x, theta, grad, torch.tensor([1e9], dtype=torch.float64), 1.0)
    assert torch.allclose(x + z, torch.where(grad > 0, BOUNDS[1], BOUNDS[0]).to(x))


@pytest.mark.parametrize("norm", THREATS)
def test_without_a_gradient_nothing_but_the_size_changes(norm):
    x, theta, grad, need = problem(0)
    for share in SHARES:
        z = step(norm, x, theta, torch.zeros_like(grad), need, share)
        assert z.isfinite().all()
        assert size(z, norm) <= size(theta, norm)


@pytest.mark.parametrize("norm", THREATS)
@pytest.mark.parametrize("share", SHARES)
def test_the_scale_of_the_gradient_does_not_matter(norm, share):
    x, theta, grad, need = problem(1)
    z = step(norm, x, theta, grad, need, share)
    for scale in (1e-200, 1e150):
        assert torch.allclose(z, step(norm, x, theta, grad * scale, need * scale, share), atol=1e-6)


@pytest.mark.parametrize("norm", THREATS)
def test_rows_do_not_depend_on_each_other(norm):
    parts = [torch.cat(values) for values in zip(*(problem(seed) for seed in range(5)), strict=True)]
    together = step(norm, *parts, 0.3)
    for seed in range(5):
        assert torch.equal(together[seed : seed + 1], step(norm, *problem(seed), 0.3))
