"""Carlini-Wagner: exact on affine problems, constants of each sample's own, and the traps others fell into."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from assay.attacks import CarliniWagner
from assay.attacks.carlini_wagner.descent import Descent
from assay.attacks.carlini_wagner.l0 import SparseDescent
from assay.attacks.carlini_wagner.l2 import EuclideanDescent
from assay.errors import LossError, SettingError, ThreatError
from assay.goals import Targeted, Untargeted
from assay.losses import margin
from assay.testing.case import THREATS, audit, exact_within
from assay.testing.models import curved
from assay.testing.problems import Affine, Constant
from assay.threats import L0, L1, L2, Linf

NORMS = ("l2", "linf", "l0")
FEW = {  # steps that are enough for small problems
    "l2": {"steps": 20, "search_steps": 4, "lr": 0.1, "initial_c": 0.3},
    "linf": {"steps": 20, "lr": 0.05, "initial_c": 0.3},
    "l0": {"steps": 15, "lr": 0.1, "initial_c": 1.0, "max_c": 30.0},
}
BOUNDS = [(0.0, 1.0), (-2.0, 3.0)]


def few(norm, bounds=(0.0, 1.0), eps=None, **settings):
    return CarliniWagner(threat=THREATS[norm](eps, bounds=bounds), **(FEW[norm] | settings))


def setting(classes=4, n=8, bounds=(0.0, 1.0), **problem):
    problem = Affine(classes=classes, bounds=bounds, **problem)
    x, y = problem.inputs(n, dtype=torch.float64)
    return problem, problem.model(torch.float64), x, y


@pytest.mark.parametrize("targets", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("norm", NORMS)
def test_exact_on_affine_problems_in_every_batch(norm, bounds, targets):
    """Within 1 % of the least distance (L0: the exact count), never below; the same for batches of 1, 3 and 8."""
    problem, model, x, y = setting(bounds=bounds)
    t = problem.targets(x, y, norm) if targets else None
    exact = problem.distance(x, y, norm, t)
    goal, attack = (Targeted(t) if targets else Untargeted(y)), few(norm, bounds)
    whole = attack(model, x, goal)
    audit(whole, model, x, goal, attack.threat)
    assert whole.success.all()
    assert (whole.distance >= exact * (1 - 1e-9)).all()
    assert (whole.distance <= exact * (1.0 if norm == "l0" else 1.01)).all()
    for size in (1, 3):
        picks = torch.arange(6).split(size)[1:2]
        parts = [attack(model, x[p], goal.at(p), index=p) for p in picks]
        rows = torch.cat(picks)
        torch.testing.assert_close(torch.cat([p.x_adv for p in parts]), whole.x_adv[rows])
        assert torch.equal(torch.cat([p.backwards for p in parts]), whole.backwards[rows])


@pytest.mark.parametrize(
    ("norm", "settings", "most"),
    [
        ("l2", {"steps": 150, "lr": 0.03, "search_steps": 5}, 1.02),
        ("linf", {"steps": 60, "lr": 0.01}, 1.25),
        ("l0", {}, 3.0),
    ],
)
def test_the_search_alone_comes_near(norm, settings, most):
    problem, model, x, y = setting()
    result = few(norm, polish=0, **settings)(model, x, y)
    ratio = result.distance / problem.distance(x, y, norm)
    assert result.success.all()
    assert (ratio >= 1 - 1e-9).all()
    assert (ratio <= most).all()


@pytest.mark.parametrize("norm", NORMS)
def test_polish_only_makes_moves_smaller(norm):
    if norm == "l0":  # one value is enough on the curved model
        _, model, x, y = setting()
    else:
        model = curved(48, 4, (0.0, 1.0))
        x = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        y = model(x).argmax(1)
    raw, fine = few(norm, polish=0)(model, x, y), few(norm, targets=0)(model, x, y)
    assert raw.success.all()
    assert (fine.distance <= raw.distance * (1 + 1e-12)).all()
    assert fine.distance.sum() < 0.99 * raw.distance.sum()
    assert (fine.backwards - raw.backwards).max() <= 50


def reference(model, x, y, steps, searches, lr, c):
    """The paper's procedure for one image, without early ends: the least distance of all steps."""
    best, low, high = torch.inf, 0.0, 1e10
    start = torch.atanh((2 * x - 1) * 0.999999)
    for _ in range(searches):
        w, won = start.clone().requires_grad_(), False
        optimiser = torch.optim.Adam([w], lr=lr)
        for _ in range(steps):
            moved = (w.tanh() + 1) / 2
            z, square = model(moved)[0], (moved - x).square().sum()
            gap = z[y] - torch.cat([z[:y], z[y + 1 :]]).max()
            if gap < 0:
                won, best = True, min(best, float(square.detach().sqrt()))
            optimiser.zero_grad()
            (square + c * gap.clamp(min=0)).backward()
            optimiser.step()
        low, high = (low, min(high, c)) if won else (max(low, c), high)
        c = (low + high) / 2 if high < 1e9 else 10 * c
    return best


def test_never_worse_than_the_papers_procedure():
    model = curved(16, 4, (0.0, 1.0))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[:, :, :2] = x[:, :, :2].round()
    y = model(x).argmax(1)
    told = torch.tensor([reference(model, x[i : i + 1], int(y[i]), 40, 4, 0.05, 0.1) for i in range(3)])
    settings = {"steps": 40, "search_steps": 4, "lr": 0.05, "initial_c": 0.1}
    alone = CarliniWagner(threat=L2(), polish=0, **settings)(model, x, y)
    whole = CarliniWagner(threat=L2(), targets=0, **settings)(model, x, y)
    assert told.isfinite().all()
    assert (alone.distance <= 1.01 * told).all()
    assert (whole.distance <= told).all()
    assert (whole.backwards <= 4 * 40 + 50).all()


@pytest.mark.parametrize("norm", NORMS)
def test_values_exactly_at_the_bounds_move(norm):
    """arctanh is infinite there."""
    w = torch.tensor([[1.0, -1.0, 0.9, -0.9], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    model = nn.Sequential(nn.Linear(4, 2, dtype=torch.float64))
    model[0].load_state_dict({"weight": w, "bias": torch.tensor([0.0, 0.0])})
    x = torch.tensor([[1.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    for polish in (0, 20):
        result = few(norm, polish=polish, steps=40)(model, x, torch.tensor([0]))
        assert result.success.all()
        assert result.x_adv.isfinite().all()
        assert (result.x_adv != x).any()
    exact = {"l2": 1.9 / 3.62**0.5, "linf": 1.9 / 3.8, "l0": 2.0}
    assert result.distance.item() == pytest.approx(exact[norm], rel=1e-2)


class Deaf(nn.Module):
    """An affine model that gives the same logits wherever the first value is above 0.9."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        z = self.model(x)
        fixed = torch.arange(z.shape[1], 0, -1).to(z) + 0 * z
        return torch.where((x.flatten(1)[:, :1] > 0.9), fixed, z)


@pytest.mark.parametrize("norm", NORMS)
def test_hopeless_samples_fail_clean_and_change_nothing_for_the_others(norm):
    _, model, x, y = setting(n=6)
    x.flatten(1)[:, 0].clamp_(max=0.8)
    y = model(x).argmax(1)
    alone = few(norm)(Deaf(model), x[1::2], y[1::2])
    x.flatten(1)[::2, 0], y[::2] = 1.0, 0
    if norm == "l0":
        x.flatten(1)[::2, 0] = 0.95  # the way out, one changed value, has no gradient
    mixed = few(norm)(Deaf(model), x, y)
    audit(mixed, Deaf(model), x, y, few(norm).threat)
    assert not mixed.success[::2].any()
    assert torch.equal(mixed.x_adv[::2], x[::2])
    assert mixed.distance[::2].isinf().all()
    assert mixed.success[1::2].all()
    torch.testing.assert_close(mixed.x_adv[1::2], alone.x_adv)


@pytest.mark.parametrize("norm", NORMS)
def test_a_model_that_never_changes_cannot_be_won(norm):
    problem = Constant()
    x, y = problem.inputs(3)
    result = few(norm)(problem.model(), x, y)
    assert not result.success.any()
    assert torch.equal(result.x_adv, x)
    assert (result.backwards >= 5).all()  # it was looked for


@pytest.mark.parametrize("norm", NORMS)
def test_negative_logits_are_no_different(norm):
    _, model, x, y = setting(n=3)
    first = few(norm)(model, x, y)
    assert first.success.all()
    with torch.no_grad():
        model[1].bias -= 50
    second = few(norm)(model, x, y)
    torch.testing.assert_close(first.x_adv, second.x_adv)
    assert torch.equal(first.backwards, second.backwards)


@pytest.mark.parametrize("scale", [1e-6, 1e-12, 1e6])
@pytest.mark.parametrize("norm", NORMS)
def test_the_scale_of_the_logits_does_not_matter(norm, scale):
    problem, model, x, y = setting(n=4)
    with torch.no_grad():
        model[1].weight *= scale
        model[1].bias *= scale
    result = few(norm, targets=0)(model, x, y)
    exact_within(result, problem.distance(x, y, norm), 1.0 if norm == "l0" else 1.01)


@pytest.mark.parametrize("norm", NORMS)
def test_ordinary_logits_keep_the_constants_they_were_given(norm, monkeypatch):
    """Where the linear model asks for more than 10, all of them are larger by so much."""
    seen = []
    advance = Descent._advance

    def watched(self, live):
        advance(self, live)
        seen.append((self.c.clone(), self.most.clone()))
        self.done |= True

    monkeypatch.setattr(Descent, "_advance", watched)
    _, model, x, y = setting(n=4)
    settings = {"initial_c": 0.5, "max_c": 40.0, "targets": 0, "polish": 0}
    few(norm, **settings)(model, x, y)
    goal = Untargeted(y)
    inner = x.clone().requires_grad_()
    value = -margin(model(inner), goal)
    (grad,) = torch.autograd.grad(value.sum(), inner)
    linear = 2 * value.detach() / grad.flatten(1).square().sum(1)
    with torch.no_grad():
        model[1].weight *= 1e-6
        model[1].bias *= 1e-6
    few(norm, **settings)(model, x, y)
    assert (linear < 10).all()
    for (c, most), scale in zip(seen, (torch.ones(4).double(), 1e6 * linear / 10), strict=True):
        torch.testing.assert_close(c, 0.5 * scale)
        torch.testing.assert_close(most, 40 * scale)


@pytest.mark.parametrize("targets", [False, True], ids=["untargeted", "targeted"])
@pytest.mark.parametrize("norm", NORMS)
def test_confidence_is_held(norm, targets):
    problem, model, x, y = setting(n=4)
    goal = Targeted(problem.targets(x, y, norm)) if targets else Untargeted(y)
    kappa = 0.4
    plain, sure = (few(norm, confidence=k, targets=0)(model, x, goal) for k in (0.0, kappa))
    assert plain.success.all()
    assert sure.success.all()
    assert (margin(model(sure.x_adv), goal) >= kappa).all()
    assert (margin(model(plain.x_adv), goal) < kappa).any()
    assert (sure.distance >= plain.distance).all()
    if norm != "l0":
        assert (sure.distance > 1.1 * plain.distance).all()
        assert (margin(model(sure.x_adv), goal) < kappa + 0.05).all()  # and no more than was asked for


def test_a_goals_own_confidence_counts():
    _, model, x, y = setting(n=3)
    attack = few("l2", confidence=0.1)
    assert attack.aim(Untargeted(y, confidence=0.3)).confidence == 0.3
    assert attack.aim(Untargeted(y)).confidence == 0.1
    result = attack(model, x, Untargeted(y, confidence=0.3))
    assert (margin(model(result.x_adv), Untargeted(y)) >= 0.3).all()


def test_every_sample_bisects_its_own_constant_and_starts_anew(monkeypatch):
    """Ten times larger until one wins, then the middle of the largest that lost and the smallest that won."""
    seen = []
    follow = EuclideanDescent.follow

    def watched(self, u, grad, loss, won, ended):
        c, has_won, place = self.c.clone(), self.has_won | won, self.place.clone()
        follow(self, u, grad, loss, won, ended)
        for row in ended.nonzero().flatten().tolist():
            seen.append((int(place[row]), float(c[row]), bool(has_won[row]), float(self.c[row])))
            assert torch.equal(self.w[row], self.w_0[row])
            assert not self.first[row].any()
            assert not self.second[row].any()
            assert self.beat[row] == 0

    monkeypatch.setattr(EuclideanDescent, "follow", watched)
    _, model, x, y = setting(n=4)
    few("l2", initial_c=1e-3, search_steps=8, lr=0.03, polish=0)(model, x, y)
    turns = 0
    for sample in range(4):
        mine = [entry[1:] for entry in seen if entry[0] == sample]
        low, high, expected = 0.0, None, 1e-3
        assert len(mine) == 8
        for c, won, following in mine:
            assert c == pytest.approx(expected)
            low, high = (low, c) if won else (c, high)
            expected = 10 * c if high is None else (low + high) / 2
            assert following == pytest.approx(expected)
        outcomes = [won for _, won, _ in mine]
        assert not outcomes[0]
        assert True in outcomes
        turns += False in outcomes[outcomes.index(True) :]
    assert turns  # and constants that lost after one that won
    ends = {place: round(c, 6) for place, c, _, _ in seen}  # the last of each sample
    assert len(set(ends.values())) > 1


def test_early_ends_save_gradients_and_samples_leave_the_batch():
    _, model, x, y = setting(n=6)
    rows = []
    model.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    full = few("l2", steps=60, abort_early=False, polish=0)(model, x, y)
    assert (full.backwards == 60 * 4).all()
    rows.clear()
    early = few("l2", steps=60, polish=0)(model, x, y)
    assert (early.backwards < 60 * 4).all()
    assert len(set(early.backwards.tolist())) > 1
    assert min(rows) < max(rows) == 6
    assert sum(rows) == early.forwards.sum()
    assert early.distance.mean() < 1.1 * full.distance.mean()


@pytest.mark.parametrize("norm", NORMS)
def test_with_a_budget_any_move_inside_is_enough(norm):
    problem, model, x, y = setting()
    exact = problem.distance(x, y, norm)
    free = few(norm)(model, x, y)
    half = torch.arange(8) % 2 == 0
    eps = torch.where(half, (exact - 1) if norm == "l0" else 0.97 * exact, (exact + 1) if norm == "l0" else 1.2 * exact)
    attack = few(norm, eps=eps)
    result = attack(model, x, y)
    audit(result, model, x, y, attack.threat)
    assert torch.equal(result.success, ~half)
    assert result.backwards[~half].sum() < free.backwards[~half].sum()


@pytest.mark.parametrize("norm", NORMS)
def test_in_training_the_best_move_comes_back(norm):
    problem, model, x, y = setting()
    eps = 1.5 * problem.distance(x, y, norm).ceil() if norm == "l0" else 1.5 * problem.distance(x, y, norm)
    attack = few(norm, eps=eps)
    moved = attack.perturb(model, x, y)
    assert (model(moved).argmax(1) != y).all()
    assert (attack.threat.size(x, moved - x) <= attack.threat.limit(x)).all()


def test_l0_counts_pixels_or_features():
    """Two classes: the fewest are those that gain most, which sorting tells."""
    problem, model, x, y = setting(classes=2)
    weight, bias = problem.weights()
    w = weight[1 - y] - weight[y]
    z = x.flatten(1) @ weight.T + bias
    gap = (z.gather(1, y[:, None]) - z.gather(1, 1 - y[:, None])).flatten()
    gain = (w.abs() * torch.where(w > 0, 1 - x.flatten(1), x.flatten(1))).reshape(x.shape)
    for unit, gains in (("feature", gain.flatten(1)), ("pixel", gain.sum(1).flatten(1))):
        fewest = (gains.sort(dim=1, descending=True).values.cumsum(1) < gap[:, None]).sum(1) + 1
        attack = CarliniWagner(threat=L0(unit=unit), **FEW["l0"])
        result = attack(model, x, y)
        audit(result, model, x, y, attack.threat)
        assert torch.equal(result.distance, fewest.double())
        rough = CarliniWagner(threat=L0(unit=unit), polish=0, **FEW["l0"])(model, x, y)
        assert (rough.distance < gains.shape[1] / 2).all()


def test_l0_freezes_a_third_of_the_root_of_what_changed(monkeypatch):
    """At most `0.3 sqrt(n)` of n changed units, at least one, besides those that did not move; the least ones."""
    freeze, steps = SparseDescent._freeze, []

    def watched(self, u, grad, rows):
        before = self.free.clone().flatten(1)
        freeze(self, u, grad, rows)
        for row in rows.nonzero().flatten().tolist():
            size = u[row].flatten().abs()
            moved = before[row] & (size > 0)
            frozen = moved & ~self.free[row].flatten()
            worth = size * grad[row].flatten().abs()
            steps.append((int((size >= 1e-4).sum()), int(frozen.sum())))
            assert not (self.free[row].flatten() & ~moved).any()
            if bool((moved & ~frozen).any()):
                assert worth[frozen].max() <= worth[moved & ~frozen].min()

    monkeypatch.setattr(SparseDescent, "_freeze", watched)
    _, model, x, y = setting(n=4)
    few("l0", polish=0, initial_c=10.0)(model, x, y)
    assert any(frozen > 1 for _, frozen in steps)
    assert all(1 <= frozen <= max(1, math.ceil(0.3 * changed**0.5)) for changed, frozen in steps)


def test_half_precision_inputs():
    problem, _, x, y = setting(classes=2)
    model, half = problem.model(torch.float16), x.half()
    exact = problem.distance(half.double(), y, "l2")
    result = few("l2")(model, half, y)
    assert result.x_adv.dtype == torch.float16
    assert result.success.all()
    assert (result.distance <= 1.1 * exact).all()


@pytest.mark.parametrize(
    ("norm", "numbers"),
    [("l2", (10_000, 1e-2, 1e-3, 1e10)), ("linf", (1000, 5e-3, 1e-5, 20.0)), ("l0", (1000, 1e-2, 1e-3, 2e6))],
)
def test_the_defaults_are_the_papers(norm, numbers):
    attack = CarliniWagner(threat=THREATS[norm]())
    plan = attack._plan(Untargeted(torch.tensor([0])))
    assert (plan.steps, plan.lr, plan.initial_c, plan.max_c) == numbers
    assert (attack.search_steps, attack.confidence, attack.abort_early) == (9, 0.0, True)


@pytest.mark.parametrize(
    "setting",
    [
        {"steps": 0},
        {"search_steps": 0},
        {"lr": 0.0},
        {"initial_c": -1.0},
        {"max_c": float("inf")},
        {"polish": -1},
        {"targets": -1},
        {"confidence": -0.1},
        {"confidence": float("nan")},
    ],
)
def test_settings_are_checked(setting):
    with pytest.raises(SettingError, match=next(iter(setting))):
        CarliniWagner(threat=Linf(), **setting)


def test_what_it_cannot_do_has_a_name():
    with pytest.raises(ThreatError, match="L2, Linf and L0"):
        CarliniWagner(threat=L1())
    with pytest.raises(LossError, match="classes"):
        few("l2").aim(object())
