"""Square in L1: the budget is used up inside the box, masses are sums of sizes, scores alone are enough."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.attacks import PGD, Square
from assay.attacks.square_windows import Bumps
from assay.goals import Untargeted
from assay.losses import margin
from assay.testing import Counting
from assay.testing.case import audit
from assay.testing.models import Gradientless
from assay.testing.problems import Constant, Masked
from assay.threats import L1, L2


class Recorded(nn.Module):
    """Notes what it is asked."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, x):
        self.seen.append(x.clone())
        return self.model(x)


def test_every_move_uses_the_whole_budget():
    problem = Constant(shape=(3, 12, 12))
    x, y = problem.inputs(4, dtype=torch.float64)
    model = Recorded(problem.model(torch.float64))
    Square(threat=L1(6.0), queries=30)(model, x, y)
    assert len(model.seen) == 31
    for moved in model.seen[1:]:
        assert moved.min() >= 0
        assert moved.max() <= 1
        torch.testing.assert_close((moved - x).abs().flatten(1).sum(1), torch.full((4,), 6.0, dtype=torch.float64))


@pytest.mark.parametrize("order", [1, 2])
def test_a_window_takes_over_the_mass_of_another(order):
    """Nothing outside the two windows changes but by one factor, and the mass of each channel stays."""
    generator = torch.Generator().manual_seed(0)
    best = torch.randn(1, 2, 10, 10, generator=generator, dtype=torch.float64)
    eps = best.abs().pow(order).sum().pow(1 / order).reshape(1, 1, 1, 1)
    draws = torch.rand(1, 7, generator=generator, dtype=torch.float64)
    moved = Bumps(order).move(best, eps, draws, 0.1)
    ratio = moved / best
    factor = ratio.flatten().mode().values
    same = torch.isclose(ratio, factor)
    assert 0.6 < same.double().mean() < 0.95
    assert factor == pytest.approx(3.0 if order == 1 else 1.0)
    assert (moved == 0).any()
    mass, before = ((v / f).abs().pow(order).sum(dim=(2, 3)) for v, f in ((moved, factor), (best, 1.0)))
    torch.testing.assert_close(mass, before)


def test_it_wins_where_gradients_are_zero():
    problem = Masked(shape=(1, 4, 4))
    x, y = problem.inputs(8, dtype=torch.float64)
    threat = L1(3 * problem.distance(x, y, "l1"))
    model = Counting(Gradientless(problem.model(torch.float64), 2))
    model.access = 2
    result = Square(threat=threat, queries=600)(model, x, y)
    assert result.success.all()
    audit(result, model.model, x, y, threat)
    assert model.forwards == int(result.forwards.sum())
    assert not PGD(threat=threat, random_start=False)(problem.model(torch.float64), x, y).success.any()
    within = L1(0.95 * problem.distance(x, y, "l1"))
    assert not Square(threat=within, queries=100)(model, x, y).success.any()


def test_more_queries_never_lower_the_margin():
    problem = Masked(shape=(1, 6, 6))
    x, y = problem.inputs(4, dtype=torch.float64)
    model, threat = problem.model(torch.float64), L1(0.5 * problem.distance(x, y, "l1"))
    before = torch.full((4,), -torch.inf, dtype=torch.float64)
    for queries in (1, 20, 200):
        now = margin(model(Square(threat=threat, queries=queries).perturb(model, x, y)), Untargeted(y))
        assert (now >= before).all()
        before = now
    assert (now > margin(model(x), Untargeted(y))).all()


@pytest.mark.parametrize("threat", [L1(5.0), L2(1.0)])
def test_half_precision(threat):
    """The smallest length that is divided by is one that the type can hold."""
    x = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(0)).half()
    model = Masked(shape=(3, 4, 4)).model().half()
    y = model(x).argmax(1).detach()
    result = Square(threat=threat, queries=100)(model, x, y)
    assert result.x_adv.dtype == torch.float16
    assert result.success.any()
