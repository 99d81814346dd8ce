"""Genetic: children come from their parents, the elite lives, mutations keep to their rate and range."""

from __future__ import annotations

import pytest
import torch

from assay.attacks import PGD, Genetic
from assay.attacks.remaining import Remaining
from assay.errors import SettingError, ThreatError
from assay.goals import Targeted, Untargeted
from assay.losses import margin
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.testing import Counting
from assay.testing.case import audit
from assay.testing.problems import Affine, Constant, Masked
from assay.threats import L1, L2, Linf


def test_children_take_each_value_from_two_fit_parents():
    attack = Genetic(threat=Linf(0.1), population=4)
    held = torch.arange(4.0).reshape(1, 4, 1).expand(200, 4, 300)
    fitness = torch.tensor([0.0, 0.3, -3.0, -50.0]).expand(200, 4)
    children = attack._crossed(held, fitness, Keyed(0, torch.arange(200)))
    assert children.shape == (200, 3, 300)
    kinds = [set(child.tolist()) for child in children.flatten(0, 1)]
    assert max(map(len, kinds)) == 2
    chance = (fitness[0] / 0.3).softmax(0)
    share = torch.tensor([(children == k).double().mean() for k in range(4)])
    assert not (children == 3).any()
    mixed = [child for child in children.flatten(0, 1) if set(child.tolist()) == {0.0, 1.0}]
    assert len(mixed) > 100
    torch.testing.assert_close(torch.stack(mixed).mean(), chance[1] / (chance[0] + chance[1]), atol=0.02, rtol=0)
    assert share[1] > share[0] > share[2]


def test_mutations_keep_to_rate_and_range():
    problem = Constant(shape=(1, 20, 20))
    x, y = torch.full((3, 1, 20, 20), 0.5), torch.zeros(3, dtype=torch.int64)
    attack = Genetic(threat=Linf(0.1), rate=0.1, strength=0.15)
    oracle = Oracle(problem.model(), x, Untargeted(y), attack.threat, access=Access.SCORES)
    left = Remaining(oracle, Keyed(0, torch.arange(3)))
    children = attack._mutated(left, torch.zeros(3, 50, 1, 20, 20), torch.tensor([0.0, 3.0, 100.0]))
    share = (children != 0).double().flatten(1).mean(1)
    torch.testing.assert_close(share, torch.tensor([0.5, 0.5 * 0.729, 0.1]).double(), atol=0.01, rtol=0)
    most = children.abs().flatten(1).amax(1)
    torch.testing.assert_close(most, torch.tensor([0.04, 0.04 * 0.729, 0.015]), atol=5e-4, rtol=0)


@pytest.mark.parametrize("norm", [Linf, L2])
def test_it_wins_where_gradients_are_zero_and_with_targets(norm):
    problem = Masked(shape=(1, 4, 4))
    x, y = problem.inputs(6, dtype=torch.float64)
    exact = problem.distance(x, y, norm.name)
    model = Counting(problem.model(torch.float64))
    result = Genetic(threat=norm(2 * exact), generations=200)(model, x, y)
    assert result.success.all()
    assert model.forwards == int(result.forwards.sum())
    assert not PGD(threat=norm(2 * exact), random_start=False)(problem.model(torch.float64), x, y).success.any()
    assert not Genetic(threat=norm(0.95 * exact), generations=40)(model, x, y).success.any()
    affine = Affine(classes=3, shape=(1, 4, 4), bounds=(-2.0, 3.0))
    x, y = affine.inputs(6, dtype=torch.float64)
    goal = Targeted(affine.targets(x, y, norm.name))
    threat = norm(2.5 * affine.distance(x, y, norm.name, goal.classes), bounds=(-2.0, 3.0))
    result = Genetic(threat=threat, generations=250)(affine.model(torch.float64), x, goal)
    assert result.success.sum() >= 5
    audit(result, affine.model(torch.float64), x, goal, threat)


def test_the_elite_is_never_lost_nor_asked_again():
    problem = Affine(classes=2)
    x, y = problem.inputs(4, dtype=torch.float64)
    model, threat = problem.model(torch.float64), Linf(0.3 * problem.distance(x, y, "linf"))
    before = torch.full((4,), -torch.inf, dtype=torch.float64)
    for generations in (0, 3, 30):
        attack = Genetic(threat=threat, generations=generations)
        assert attack(model, x, y).forwards.tolist() == [1 + 6 + 5 * generations] * 4
        now = margin(model(attack.perturb(model, x, y)), Untargeted(y))
        assert (now >= before).all()
        before = now
    assert (now > margin(model(x), Untargeted(y))).all()


def test_small_perturbations_are_enlarged():
    x = torch.full((2, 3, 8, 8), 0.5)
    y = torch.zeros(2, dtype=torch.int64)
    attack = Genetic(threat=Linf(0.1), generations=3, side=2)
    moved = attack.perturb(Constant(shape=(3, 8, 8)).model(), x, y) - x
    assert 0 < moved.abs().max() <= 0.1 + 1e-6
    assert torch.linalg.matrix_rank(moved[0, 0], atol=1e-5) <= 2
    with pytest.raises(ThreatError, match="side=2 is for images"):
        attack(Constant(shape=(4,)).model(), *Constant(shape=(4,)).inputs(1))


def test_mistakes():
    for settings in (
        {"generations": -1},
        {"population": 1},
        {"rate": 0.0},
        {"strength": 1.5},
        {"temperature": 0.0},
        {"side": 0},
    ):
        with pytest.raises(SettingError, match=next(iter(settings))):
            Genetic(threat=Linf(0.1), **settings)
    with pytest.raises(ThreatError, match="needs a budget"):
        Genetic(threat=Linf())
    with pytest.raises(ThreatError, match="works in Linf and L2"):
        Genetic(threat=L1(0.1))
