"""stAdv: honest flows, smoother than those of other searches, in the paper's and the library's ways to search."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import assay
from assay.attacks import PGD, StAdv
from assay.attacks.stadv import _won
from assay.errors import LossError, SettingError, ThreatError
from assay.goals import Targeted, Untargeted
from assay.losses import margin
from assay.oracle import Oracle
from assay.rng import Keyed
from assay.testing import Counting
from assay.threats import Flow, Linf

SMOOTHEST = Flow(measure="roughness")
QUICK = {"steps": 40, "searches": 2}


@pytest.fixture(scope="module")
def digits():
    """A trained network, and images that it knows."""
    model = assay.load_model("digits-mlp")
    x, y, _ = assay.load_data("digits", limit=16).batch(0, 16)
    known = model(x).argmax(1) == y
    return model, x[known], y[known]


def flows(attack, model, x, goal):
    """The flows that a search returns, and what the referee recorded."""
    with torch.no_grad():
        oracle = Oracle(model, x, attack.aim(goal), attack.threat)
        oracle.judge_clean()
        theta = attack.run(oracle, x, attack.aim(goal), Keyed(0, torch.arange(len(x))))
    return theta, oracle.record


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
@pytest.mark.parametrize("threat", [SMOOTHEST, Flow(), Flow(0.4)], ids=repr)
@pytest.mark.parametrize("targeted", [False, True])
def test_every_digit_falls_and_the_result_is_honest(digits, optimizer, threat, targeted):
    model, x, y = digits
    goal = Targeted((y + 1) % 10) if targeted else Untargeted(y)
    result = StAdv(threat=threat, optimizer=optimizer, **QUICK)(model, x, goal)
    won = result.success
    assert won.float().mean() >= (0.5 if targeted and threat.eps else 1.0)
    reached = model(result.x_adv).argmax(1)
    assert torch.equal(reached == goal.classes, won if targeted else ~won)
    assert torch.equal(result.x_adv[~won], x[~won])
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    if threat.eps:
        assert (result.distance[won] <= threat.limit(x)[won]).all()


@pytest.mark.parametrize("threat", [SMOOTHEST, Flow()], ids=repr)
def test_the_flows_returned_are_those_recorded(digits, threat):
    model, x, y = digits
    theta, record = flows(StAdv(threat=threat, **QUICK), model, x, Untargeted(y))
    assert record.success.all()
    torch.testing.assert_close(threat.apply(x, theta), record.x_adv, rtol=0, atol=1e-6)
    torch.testing.assert_close(threat.size(x, theta), record.distance)


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_tau_makes_flows_smooth(digits, optimizer):
    model, x, y = digits
    smooth, careless = (
        StAdv(threat=SMOOTHEST, tau=tau, optimizer=optimizer, **QUICK)(model, x, y).distance for tau in (0.05, 0.0)
    )
    assert smooth.mean() < 0.7 * careless.mean()
    assert (smooth < careless).float().mean() > 0.9


def test_flows_are_smoother_than_those_of_pgd(digits):
    model, x, y = digits
    smooth = StAdv(threat=SMOOTHEST, **QUICK)(model, x, y).distance
    rough, record = flows(PGD(threat=Flow(0.4)), model, x, Untargeted(y))
    assert record.success.all()
    assert (smooth < 0.5 * Flow().roughness(x, rough)).all()


def test_longer_searches_end_smoother(digits):
    model, x, y = digits
    short, long = (StAdv(threat=SMOOTHEST, steps=n)(model, x, y).distance for n in (15, 120))
    assert (long <= short * 1.001).all()
    assert long.mean() < 0.8 * short.mean()


def test_each_measure_keeps_what_it_measures(digits):
    model, x, y = digits
    smoothest, record = flows(StAdv(threat=SMOOTHEST, **QUICK), model, x, Untargeted(y))
    nearest, _ = flows(StAdv(threat=Flow(), **QUICK), model, x, Untargeted(y))
    assert (SMOOTHEST.size(x, smoothest) <= SMOOTHEST.size(x, nearest)).all()
    assert (Flow().size(x, nearest) <= Flow().size(x, smoothest)).all()
    assert not torch.equal(smoothest, nearest)
    assert record.success.all()


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_a_smaller_tau_follows_where_the_first_found_nothing(digits, optimizer):
    model, x, y = digits
    heavy = {"threat": SMOOTHEST, "tau": 50.0, "steps": 30, "optimizer": optimizer}
    assert StAdv(**heavy, searches=1)(model, x, y).success.float().mean() < 0.7  # by luck, in a first step
    assert StAdv(**heavy, searches=4)(model, x, y).success.all()


def test_a_confidence_is_a_margin_of_logits(digits):
    model, x, y = digits
    result = StAdv(threat=SMOOTHEST, confidence=2.0, **QUICK)(model, x, y)
    assert result.success.all()
    assert (margin(model(result.x_adv), Untargeted(y)) >= 2.0).all()
    plain = StAdv(threat=SMOOTHEST, **QUICK)(model, x, y)
    assert plain.distance.mean() < result.distance.mean()


def test_the_loss_ends_at_what_a_success_needs():
    logits = torch.tensor([[3.0, 1.0], [1.0, 2.0], [1.0, 9.0]])
    goal = Untargeted(torch.zeros(3, dtype=torch.int64)).with_confidence(2.0)
    assert _won(logits, goal).tolist() == [-2.0, 1.0, 2.0]


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_results_do_not_depend_on_the_batch(digits, optimizer):
    model, x, y = digits
    model, x = model.double(), x.double()
    attack = StAdv(threat=SMOOTHEST, steps=12, optimizer=optimizer)
    whole = attack(model, x, y)
    for i in (0, 3, 7):
        alone = attack(model, x[i : i + 1], y[i : i + 1], index=torch.tensor([i]))
        assert torch.equal(alone.success, whole.success[i : i + 1])
        assert torch.equal(alone.backwards, whole.backwards[i : i + 1])
        torch.testing.assert_close(alone.x_adv[0], whole.x_adv[i], rtol=0, atol=1e-6)
    model.float()


@pytest.mark.parametrize("optimizer", ["lbfgs", "adam"])
def test_counts_and_budgets(digits, optimizer):
    model, x, y = digits
    watched = Counting(model)
    result = StAdv(threat=SMOOTHEST, steps=7, searches=1, optimizer=optimizer)(watched, x, y)
    assert (watched.forwards, watched.backwards) == (int(result.forwards.sum()), int(result.backwards.sum()))
    assert result.backwards.max() == 7
    assert StAdv(threat=SMOOTHEST, optimizer=optimizer)(model, x, y, max_queries=5).forwards.max() <= 5


def test_nothing_is_won_where_flows_change_nothing():
    x = torch.full((3, 1, 5, 5), 0.5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 3))
    y = model(x).argmax(1)
    for threat in (SMOOTHEST, Flow(0.5)):
        result = StAdv(threat=threat, **QUICK)(model, x, y)
        assert not result.success.any()
        assert torch.equal(result.x_adv, x)


def test_moves_for_training_win_and_are_allowed(digits):
    model, x, y = digits
    for threat in (SMOOTHEST, Flow(0.4)):
        moved = StAdv(threat=threat, **QUICK).perturb(model, x, y)
        assert (model(moved).argmax(1) != y).float().mean() > 0.9


def test_mistakes(digits):
    with pytest.raises(ThreatError, match=r"looks for flows.*got Linf\(0.1\)"):
        StAdv(threat=Linf(0.1))
    for setting in ({"steps": 0}, {"searches": 0}, {"memory": 0}, {"tau": -1.0}, {"confidence": -1.0}, {"lr": 0.0}):
        with pytest.raises(SettingError, match=next(iter(setting))):
            StAdv(threat=Flow(), **setting)
    with pytest.raises(SettingError, match="optimizer must be 'lbfgs' or 'adam'"):
        StAdv(threat=Flow(), optimizer="sgd")
    with pytest.raises(ThreatError, match="images"):
        StAdv(threat=Flow())(nn.Linear(4, 2), torch.rand(2, 4), torch.tensor([0, 1]))
    with pytest.raises(LossError, match="goal on classes"):
        StAdv(threat=Flow()).aim(object())
