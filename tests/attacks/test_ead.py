"""EAD: exact in L1 on affine problems once polished, the paper's search behind it, and a schedule for every sample."""

from __future__ import annotations

import pytest
import torch

from assay.attacks import EAD
from assay.attacks.ead import _Search
from assay.errors import SettingError, ThreatError
from assay.goals import Targeted, Untargeted
from assay.losses import margin
from assay.oracle import Oracle
from assay.testing.case import audit, exact_within
from assay.testing.models import curved
from assay.testing.problems import Affine, Constant
from assay.threats import L1, L2

QUICK = {"steps": 30, "search_steps": 5, "initial_c": 0.1}
QUICKER = {"steps": 12, "search_steps": 4, "initial_c": 0.2}


def distances(problem, targets, size, settings=QUICK, n=8):
    """What is found for n inputs in batches of this size, and the exact distances."""
    x, y = problem.inputs(n, dtype=torch.float64)
    t = problem.targets(x, y, "l1") if targets else None
    model, threat, found = problem.model(torch.float64), L1(bounds=problem.bounds), []
    for rows in torch.arange(n).split(size):
        goal = y[rows] if t is None else Targeted(t[rows])
        result = EAD(threat=threat, **settings)(model, x[rows], goal, index=rows)
        audit(result, model, x[rows], goal, threat)
        found.append(result.distance)
    return torch.cat(found), problem.distance(x, y, "l1", t)


@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize(
    ("shape", "classes", "bounds"), [((1, 6, 6), 2, (0.0, 1.0)), ((3, 4, 4), 5, (0.0, 1.0)), ((9,), 4, (-2.0, 3.0))]
)
def test_exact_on_affine_problems(targets, shape, classes, bounds):
    found, exact = distances(Affine(shape=shape, classes=classes, bounds=bounds), targets, 8)
    assert (found >= exact * (1 - 1e-6)).all()
    assert (found <= exact * 1.01).all()


@pytest.mark.parametrize("targets", [False, True])
def test_batch_sizes_make_no_difference(targets):
    whole, alone, threes = (distances(Affine(classes=4), targets, size, QUICKER)[0] for size in (8, 1, 3))
    assert whole.isfinite().all()
    assert torch.allclose(whole, alone, rtol=1e-9)
    assert torch.allclose(whole, threes, rtol=1e-9)


def test_the_search_alone_comes_near_and_a_larger_beta_nearer():
    """The square in the elastic net spreads the move, and the more so the less the L1 norm weighs."""
    problem = Affine(classes=3)
    x, y = problem.inputs(4, dtype=torch.float64)
    exact, ratios = problem.distance(x, y, "l1"), []
    for beta in (0.003, 0.03):
        result = EAD(threat=L1(), beta=beta, steps=100, search_steps=5, initial_c=0.1, polish=0)(
            problem.model(torch.float64), x, y
        )
        ratios.append(result.distance / exact)
    assert (ratios[0] > 1).all()
    assert (ratios[0] < 1.5).all()
    assert (ratios[1] < ratios[0]).all()
    assert ratios[1].median() < 1.15


def test_one_step_by_hand():
    """From the clean input the first step is the shrunk gradient of c f, the second extrapolates nothing yet."""
    problem = Affine(classes=2, bounds=(-1.0, 3.0))
    x, model = problem.inputs(2, dtype=torch.float64)[0].clamp(0, 2), problem.model(torch.float64)  # no bound is near
    y = model(x).argmax(1)
    goal = Untargeted(y)
    attack = EAD(threat=L1(bounds=problem.bounds), beta=0.01, steps=10, lr=0.5, initial_c=0.02)
    oracle = Oracle(model, x, goal, attack.threat)
    search = _Search(attack, oracle, x, goal)
    weights, _ = problem.weights()
    normal = (weights[1 - y] - weights[y]).reshape(x.shape)
    search._advance(torch.ones(2, dtype=torch.bool))
    ahead = 0.5 * 0.02 * 4 * normal
    first = torch.where(ahead.abs() > 0.01, ahead - 0.01 * ahead.sign(), 0)
    assert torch.allclose(search.u, first)
    assert torch.allclose(search.y, first)
    assert (first == 0).any()
    assert (first != 0).any()
    assert (margin(model(x), goal) < 0).all()


def test_constants_are_each_samples_own():
    """One sample's logits are a thousand times steeper, so that it needs another constant; the others do not notice."""
    net = curved(48, 4, (0.0, 1.0))

    def scaled(x):
        return net(x) * (1 + 999 * (x.flatten(1)[:, :1] > 0.9))

    x = torch.rand(4, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 0.8
    steep = x.clone()
    steep[0, 0, 0, 0] = 0.95
    y = scaled(steep).argmax(1)
    attack = EAD(threat=L1(), **QUICK)
    together = attack(scaled, steep, y, index=torch.arange(4))
    alone = attack(scaled, x[1:], y[1:], index=torch.arange(1, 4))
    assert torch.allclose(together.distance[1:], alone.distance, rtol=1e-9)
    assert torch.equal(together.backwards[1:], alone.backwards)
    assert together.backwards.unique().numel() > 1


def test_confidence_is_held_by_every_success():
    problem = Affine(classes=4)
    x, y = problem.inputs(4, dtype=torch.float64)
    model = problem.model(torch.float64)
    plain = EAD(threat=L1(), **QUICK)(model, x, y)
    sure = EAD(threat=L1(), confidence=0.5, **QUICK)(model, x, y)
    assert sure.success.all()
    assert (margin(model(sure.x_adv), Untargeted(y)) >= 0.5).all()
    assert (margin(model(plain.x_adv), Untargeted(y)) < 0.1).all()
    assert (sure.distance > plain.distance).all()


def test_a_constant_without_progress_is_left():
    problem = Constant(classes=3)
    x, y = problem.inputs(2)
    settings = {"steps": 40, "search_steps": 3, "targets": 0}
    patient = EAD(threat=L1(), abort_early=False, **settings)(problem.model(), x, y)
    hasty = EAD(threat=L1(), **settings)(problem.model(), x, y)
    assert (patient.backwards == 120).all()
    assert (hasty.backwards == 3 * 8).all()
    assert not hasty.success.any()
    assert torch.equal(hasty.x_adv, x)


def test_a_decided_sample_costs_no_more():
    problem = Affine(classes=3)
    x, y = problem.inputs(6)
    exact = problem.distance(x, y, "l1").float()
    eps = torch.where(torch.arange(6) % 2 == 0, 1.5, 0.9) * exact
    result = EAD(threat=L1(eps), **QUICK)(problem.model(), x, y)
    assert torch.equal(result.success, torch.arange(6) % 2 == 0)
    assert result.forwards[::2].max() < result.forwards[1::2].min()


@pytest.mark.parametrize("scale", [1e-2, 1e-6, 1e-12, 1e6])
def test_the_scale_of_the_logits_does_not_matter(scale):
    """Without a budget and with one: constants that move nothing are passed over, and do not count."""
    problem = Affine(classes=4)
    x, y = problem.inputs(4, dtype=torch.float64)
    model, exact = problem.model(torch.float64), problem.distance(x, y, "l1")
    with torch.no_grad():
        model[1].weight *= scale
        model[1].bias *= scale
    settings = {"steps": 30, "search_steps": 3, "targets": 0}
    exact_within(EAD(threat=L1(), **settings)(model, x, y), exact)
    assert EAD(threat=L1(1.5 * exact), **settings)(model, x, y).success.all()
    assert not EAD(threat=L1(0.95 * exact), **settings)(model, x, y).success.any()


def test_the_first_constant_is_the_least_that_moves_something():
    problem = Affine(classes=2)
    x, y = problem.inputs(4, dtype=torch.float64)
    weights, _ = problem.weights()
    normal = (weights[1 - y] - weights[y]).reshape(x.shape)
    free = torch.where(normal > 0, x < 1, x > 0)
    steepest = torch.where(free, normal.abs(), 0).flatten(1).amax(1)
    for initial_c in (1e-7, 1e-3, 50.0):
        attack = EAD(threat=L1(), initial_c=initial_c, lr=0.02)
        oracle = Oracle(problem.model(torch.float64), x, Untargeted(y), attack.threat)
        search = _Search(attack, oracle, x, Untargeted(y))
        search._advance(torch.ones(4, dtype=torch.bool))
        power = (search.c / initial_c).log10()
        torch.testing.assert_close(power, power.round())
        assert (search.u != 0).flatten(1).any(1).all()
        if initial_c < 1:
            assert (search.c / 10 * steepest <= 0.5).all()
        else:
            assert (search.c == initial_c).all()


def test_fista_gets_farther_than_ista():
    problem = Affine(classes=2, shape=(1, 6, 6))
    x, y = problem.inputs(6, dtype=torch.float64)
    settings = {"steps": 40, "search_steps": 1, "initial_c": 1.0, "polish": 0, "abort_early": False}
    model = problem.model(torch.float64)
    fista, ista = (EAD(threat=L1(), accelerate=fast, **settings)(model, x, y) for fast in (True, False))
    assert fista.success.sum() > ista.success.sum()


def test_settings_are_checked():
    for wrong in (
        {"steps": 0},
        {"search_steps": 0},
        {"lr": 0.0},
        {"initial_c": -1.0},
        {"beta": -0.1},
        {"confidence": -1.0},
        {"polish": -1},
        {"targets": -1},
    ):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            EAD(threat=L1(), **wrong)
    with pytest.raises(ThreatError, match="L1"):
        EAD(threat=L2())
