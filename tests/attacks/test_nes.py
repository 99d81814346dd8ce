"""NES and SPSA: their gradients are those of the formula, and they win where gradients are zero."""

from __future__ import annotations

import pytest
import torch

from assay.attacks import NES, PGD, SPSA
from assay.attacks import estimates as module
from assay.attacks.estimates import estimate, gaussian, rademacher
from assay.errors import SettingError, ThreatError
from assay.goals import Targeted, Untargeted
from assay.losses import margin
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.testing import Counting
from assay.testing.case import THREATS
from assay.testing.problems import Affine, Constant, Masked
from assay.threats import L2, Flow, Linf


def middle(problem, n):
    """Inputs in the middle of the box, so that no probe is clipped, with the gradient of their margin."""
    x = torch.full((n, *problem.shape), 0.5, dtype=torch.float64)
    model = problem.model(torch.float64)
    y = model(x).argmax(1).detach()
    weights, _ = problem.weights()
    return model, x, y, (weights[1 - y] - weights[y]).reshape(x.shape)


@pytest.mark.parametrize("draw", [gaussian, rademacher])
def test_the_estimate_is_the_mean_over_the_draws(draw, monkeypatch):
    model, x, y, slope = middle(Affine(shape=(1, 5, 7), classes=2), 3)
    found = []
    for values in (1 << 25, 1):  # all pairs at once, and one by one
        monkeypatch.setattr(module, "_VALUES_AT_ONCE", values)
        oracle = Oracle(model, x, Untargeted(y), L2(), access=Access.SCORES)
        rng = Keyed(0, torch.arange(3), dtype=torch.float64)
        found.append(estimate(oracle, torch.zeros_like(x), rng, draw, pairs=6, radius=1e-3, loss=margin))
        assert oracle.record.forwards.tolist() == [12, 12, 12]
    rng = Keyed(0, torch.arange(3), dtype=torch.float64)
    ways = [draw(rng, x) for _ in range(6)]
    expected = sum((slope * way).flatten(1).sum(1)[:, None, None, None] * way for way in ways) / 6
    torch.testing.assert_close(found[0][0], expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(found[0][1], margin(model(x), Untargeted(y)), rtol=1e-9, atol=1e-9)
    assert torch.equal(found[0][0], found[1][0])


def test_many_draws_give_the_gradient():
    model, x, y, slope = middle(Affine(shape=(1, 3, 3), classes=2), 2)
    for draw in (gaussian, rademacher):
        oracle = Oracle(model, x, Untargeted(y), L2(), access=Access.SCORES)
        rng = Keyed(1, torch.arange(2), dtype=torch.float64)
        grad, _ = estimate(oracle, torch.zeros_like(x), rng, draw, pairs=1000, radius=1e-3, loss=margin)
        assert (torch.cosine_similarity(grad.flatten(1), slope.flatten(1)) > 0.98).all()


def test_signs_are_independent_and_keyed():
    x = torch.zeros(2000, 37)
    signs = rademacher(Keyed(3, torch.arange(2000)), x)
    assert signs.abs().eq(1).all()
    assert (signs.mean(dim=0).abs() < 0.1).all()
    together = (signs.T @ signs / 2000 - torch.eye(37)).abs()
    assert together.max() < 0.12
    assert torch.equal(rademacher(Keyed(3, torch.tensor([77])), x[:1]), signs[77:78])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
@pytest.mark.parametrize("make", [NES, SPSA])
def test_they_win_where_gradients_are_zero(make, norm):
    problem = Masked(shape=(1, 4, 4))
    x, y = problem.inputs(6, dtype=torch.float64)
    exact = problem.distance(x, y, norm)
    settings = {"sigma": 0.05} if make is NES else {"delta": 0.05, "lr": 0.02}
    model = Counting(problem.model(torch.float64))
    result = make(threat=THREATS[norm](2 * exact), steps=30, samples=40, **settings)(model, x, y)
    assert result.success.all()
    assert (result.distance >= exact * (1 - 1e-9)).all()
    assert int(result.forwards.sum()) == model.forwards
    assert model.backwards == 0
    if norm == "linf":
        assert not PGD(threat=Linf(2 * exact), random_start=False)(problem.model(torch.float64), x, y).success.any()


@pytest.mark.parametrize("make", [NES, SPSA])
def test_queries_are_those_of_the_settings(make):
    problem = Constant()
    x, y = problem.inputs(3)
    result = make(threat=Linf(0.1), steps=4, samples=6)(problem.model(), x, y)
    assert result.forwards.tolist() == [1 + 4 * 7] * 3


@pytest.mark.parametrize("make", [NES, SPSA])
def test_budgets_cut_a_run_short_and_change_nothing_else(make):
    problem = Affine(classes=4)
    x, y = problem.inputs(8, dtype=torch.float64)
    targets = problem.targets(x, y, "linf")
    eps = 2 * problem.distance(x, y, "linf", targets)
    attack, goal = make(threat=Linf(eps), steps=30, samples=20, loss="margin"), Targeted(targets)
    whole = attack(problem.model(torch.float64), x, goal)
    assert whole.success.sum() >= 6
    for budget in (10, 60, 250):
        model = Counting(problem.model(torch.float64))
        part = attack(model, x, goal, max_queries=budget)
        assert part.forwards.max() <= budget
        assert model.forwards == int(part.forwards.sum())
        assert (part.success <= whole.success).all()
        assert (part.success >= whole.success & (whole.forwards <= budget)).all()


def test_steps_are_halved_where_the_loss_falls():
    model, x, y, _ = middle(Affine(shape=(1, 5, 5), classes=2), 2)
    far = NES(threat=L2(1e-3), steps=40, samples=20, rel_step=2.0, momentum=0.0, loss="margin")
    moved = far.perturb(model, x, y)
    assert (torch.linalg.vector_norm((moved - x).flatten(1), dim=1) <= 1e-3 + 1e-12).all()
    assert (margin(model(moved), Untargeted(y)) > margin(model(x), Untargeted(y))).all()


@pytest.mark.parametrize("make", [NES, SPSA])
def test_mistakes(make):
    for settings in ({"steps": 0}, {"samples": 7}, {"samples": 0}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            make(threat=Linf(0.1), **settings)
    with pytest.raises(ThreatError, match="needs a budget"):
        make(threat=Linf())
    with pytest.raises(ThreatError, match="works in Linf, L2, L1 and L0"):
        make(threat=Flow(0.1))
    for name in ("sigma", "rel_step") if make is NES else ("delta", "lr"):
        with pytest.raises(SettingError, match=name):
            make(threat=Linf(0.1), **{name: 0})
