"""L-BFGS: known minima, the same as SciPy's, with and without bounds, each sample by itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import assay
from assay.attacks.lbfgs import minimise
from assay.goals import Untargeted
from assay.oracle import Oracle

FREE = assay.Linf(bounds=(-1e3, 1e3))


def search(function, start, threat=FREE, *, asked=None, steps=200, tolerance=1e-12, memory=10):
    """The minimum of `function: (n, *m), places -> (n,)` from there."""
    x = torch.zeros_like(start)
    goal = Untargeted(torch.zeros(len(x), dtype=torch.int64))
    oracle = Oracle(torch.nn.Identity(), x, goal, threat, referee=False)

    def objective(oracle, theta, place, rows):
        with torch.enable_grad():
            theta = theta.detach().requires_grad_()
            value = function(theta, place)
            (grad,) = torch.autograd.grad(value.sum(), theta)
        if asked is not None:
            asked.append(place[rows].tolist())
        return value.detach(), grad

    return minimise(oracle, start, objective, steps=steps, memory=memory, first=0.1, tolerance=tolerance)


def quadratics(n=4, d=12, spread=3.0):
    """`(t - c)^T A (t - c)` with condition 10^spread, one for each sample."""
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(n, d, d, generator=generator, dtype=torch.float64)).Q
    a = basis @ torch.diag(torch.logspace(0, spread, d, dtype=torch.float64)) @ basis.mT
    c = torch.randn(n, d, generator=generator, dtype=torch.float64)

    def function(theta, place):
        gap = theta - c[place]
        return (gap[:, None] @ a[place] @ gap[:, :, None]).flatten()

    return function, a, c


def rosenbrock(theta, place=None):
    a, b = theta[:, :-1], theta[:, 1:]
    return (100 * (b - a.square()).square() + (1 - a).square()).sum(dim=1)


def test_quadratics_with_a_long_valley():
    function, _, c = quadratics()
    torch.testing.assert_close(search(function, torch.zeros_like(c)), c, rtol=0, atol=1e-4)


def test_a_curved_valley():
    start = torch.tensor([[-1.2, 1.0], [3.0, -2.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(search(rosenbrock, start), torch.ones(3, 2, dtype=torch.float64), rtol=0, atol=1e-3)


def test_moves_of_any_shape():
    function, _, c = quadratics()

    def shaped(theta, place):
        return function(theta.flatten(1), place)

    found = search(shaped, torch.zeros(4, 3, 2, 2, dtype=torch.float64))
    torch.testing.assert_close(found.flatten(1), c, rtol=0, atol=1e-4)


@pytest.mark.parametrize("eps", [0.1, 0.7])
def test_minima_in_a_box_are_those_of_scipy(eps):
    function, a, c = quadratics(spread=1.5)
    found = search(function, torch.zeros_like(c), assay.Linf(eps, bounds=(-1e3, 1e3)))
    assert found.abs().max() <= eps
    for i in range(len(c)):

        def value(t, i=i):
            gap = t - c[i].numpy()
            return gap @ a[i].numpy() @ gap, 2 * a[i].numpy() @ gap

        box = [(-eps, eps)] * c.shape[1]
        theirs = minimize(value, np.zeros(c.shape[1]), jac=True, method="L-BFGS-B", bounds=box)
        assert float(value(found[i].numpy())[0]) <= theirs.fun * (1 + 1e-6) + 1e-9


def test_as_few_gradients_as_scipy():
    start = torch.tensor([[-1.2, 1.0, -0.5, 2.0, 0.3, -1.0]], dtype=torch.float64)

    def value(t):
        theta = torch.tensor(t)[None].requires_grad_()
        found = rosenbrock(theta)
        (grad,) = torch.autograd.grad(found.sum(), theta)
        return found.item(), grad[0].numpy()

    theirs = minimize(value, start[0].numpy(), jac=True, method="L-BFGS-B", options={"maxcor": 10})
    ours = search(rosenbrock, start, steps=2 * theirs.nfev)
    assert rosenbrock(ours).item() <= 1e-6


def test_kinks_do_not_end_it():
    """The sum of absolute differences and a distance: as rough as a flow's roughness."""

    def function(theta, place):
        return (theta.diff(dim=1).square() + 1e-8).sqrt().sum(dim=1) + 2 * (theta - 1).square().sum(dim=1)

    start = torch.randn(2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = search(function, start, steps=300)
    torch.testing.assert_close(found, torch.ones_like(start), rtol=0, atol=1e-2)


def test_a_sample_does_not_depend_on_its_batch():
    start = torch.tensor([[-1.2, 1.0], [3.0, -2.0], [0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
    whole = search(rosenbrock, start, steps=25)
    for i in range(4):
        torch.testing.assert_close(search(rosenbrock, start[i : i + 1], steps=25)[0], whole[i], rtol=0, atol=1e-12)


def test_finished_samples_are_not_asked_about():
    function, _, c = quadratics()
    start = torch.zeros_like(c)
    start[1] = c[1]  # at its minimum already
    asked = []
    found = search(function, start, asked=asked)
    assert sum(1 in rows for rows in asked) == 1
    assert asked[0] == [0, 1, 2, 3]
    assert torch.equal(found[1], c[1])
    assert len(asked) < 200  # all are at their end before the steps are spent
    torch.testing.assert_close(found, c, rtol=0, atol=1e-4)


def test_steps_are_gradients():
    for steps in (1, 2, 7):
        asked = []
        search(rosenbrock, torch.zeros(2, 5), asked=asked, steps=steps)
        assert len(asked) == steps


def test_values_never_rise():
    at = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = torch.stack([rosenbrock(search(rosenbrock, at, steps=steps)) for steps in range(1, 30)])
    assert (values.diff(dim=0) <= 0).all()
    assert (values[-1] < 0.1 * values[0]).all()
