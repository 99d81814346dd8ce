"""Attacks on explanations: what counts, what is counted, and how far they go."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import assay
from assay.attacks import APGD, PGD, DeepFool, Square
from assay.attribution import (
    Explained,
    Gradient,
    IntegratedGradients,
    Manipulation,
    MassCentre,
    Region,
    SmoothGrad,
    TopK,
    heat,
)
from assay.attribution.similarity import centre_shift, top_k
from assay.errors import InputError, LossError, SettingError, ThreatError

THREAT = assay.Linf(0.1)
CHANGES = [TopK(k=10), MassCentre(), Region(height=0.5, width=0.5)]


@pytest.fixture
def decided(net, images):
    """A network, images, and its decisions."""
    model, x = net(), images(6)
    return model, x, model(x).argmax(1)


def held(model, x, result, classes):
    return bool((model(result.x_adv).argmax(1) == classes).all() and (result.prediction == classes).all())


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: type(change).__name__)
@pytest.mark.parametrize("threat", [THREAT, assay.L2(0.5), assay.L1(4.0)], ids=repr)
def test_the_explanation_changes_more_than_at_random_and_the_decision_stays(decided, change, threat):
    model, x, classes = decided
    goal = Explained.of(model, x, change=change)
    result = PGD(threat=threat, steps=20)(model, x, goal)
    assert held(model, x, result, classes)
    assert (threat.size(x, result.x_adv - x) <= threat.limit(x)).all()
    after = heat(Gradient()(model, result.x_adv, classes))
    torch.testing.assert_close(
        change.amount(after, goal.before, None)[result.success], result.worth[result.success], rtol=1e-6, atol=1e-9
    )
    noise = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    theta = threat.project(x, threat.ascend(x, torch.zeros_like(x), noise, threat.budget(x)))
    random = change.amount(heat(Gradient()(model, x + theta, classes)), goal.before, None)
    assert float(result.worth[result.success].sum()) / len(x) > float(random.mean())
    assert bool(result.success.any())


def test_a_manipulation_nears_the_map_that_is_given(net, images):
    model, x = net(nn.Softplus), images(6)
    target = heat(Gradient()(model, images(6, seed=5)))
    goal = Explained.of(model, x, change=Manipulation(), target=target)
    result = PGD(threat=assay.Linf(0.3), steps=40)(model, x, goal)
    after = heat(Gradient()(model, result.x_adv, goal.classes))
    left, whole = ((maps - target).square().sum((1, 2)) for maps in (after, goal.before))
    assert float((left / whole).mean()) < 0.7
    torch.testing.assert_close(result.worth, 1 - left / whole, rtol=1e-6, atol=1e-9)


def test_the_largest_change_of_all_that_were_judged_is_kept(decided):
    """Held against a loop over the same moves."""
    model, x, classes = decided
    goal = Explained.of(model, x, change=MassCentre())
    oracle = assay.Oracle(model, x, goal, THREAT)
    moves = 0.2 * torch.rand(6, 30, *x.shape[1:], dtype=x.dtype, generator=torch.Generator().manual_seed(3)) - 0.1
    moves[:, 25:] *= 3  # outside the threat
    oracle.judge(moves)
    best = torch.full((6,), float("-inf"), dtype=torch.float64)
    for k in range(25):
        moved = (x + moves[:, k]).clamp(0, 1)
        shift = centre_shift(heat(Gradient()(model, moved, classes)), goal.before)
        allowed = model(moved).argmax(1) == classes
        best = torch.where(allowed & (shift > best), shift, best)
    torch.testing.assert_close(oracle.record.worth, best, rtol=1e-6, atol=1e-9)
    assert bool(oracle.active.all())


def test_a_lost_decision_never_counts(images):
    """A linear model's explanation never changes; one that flips its sign changes only with the decision."""
    x = images(4)
    flips = lambda x: torch.stack([(x - 0.5).sum((1, 2, 3)), -(x - 0.5).sum((1, 2, 3)) * (1 + 9 * x[:, 0, 0, 0])], 1)  # noqa: E731
    linear = nn.Sequential(nn.Flatten(), nn.Linear(128, 3)).double()
    result = PGD(threat=THREAT, steps=5)(linear, x, Explained.of(linear, x))
    assert not result.success.any()
    assert torch.equal(result.x_adv, x)
    goal = Explained.of(flips, x)
    other = PGD(threat=assay.Linf(0.5), steps=10)(flips, x, goal)
    assert torch.equal(flips(other.x_adv).argmax(1), goal.classes)


def test_the_threshold_says_what_is_a_success(decided):
    model, x, _ = decided
    none, half = (
        PGD(threat=THREAT, steps=10)(model, x, Explained.of(model, x, change=TopK(k=10), least=least))
        for least in (0.0, 0.5)
    )
    assert torch.equal(half.success, none.worth >= 0.5)
    assert not bool(half.success.all())
    assert bool(half.success.any())


@pytest.mark.parametrize("beta", [None, 30.0])
@pytest.mark.parametrize("attribution", [Gradient(), IntegratedGradients(steps=3), SmoothGrad(draws=2)], ids=str)
def test_counts_are_the_passes_that_happened(decided, attribution, beta):
    """A second derivative goes back twice: through the pass that went back, and through the one that went forward."""
    calls = {"forwards": 0, "backwards": 0}

    class Back(torch.autograd.Function):
        @staticmethod
        def forward(ctx, grad):
            calls["backwards"] += len(grad)
            return grad.clone()

        @staticmethod
        def backward(ctx, slope):
            calls["backwards"] += len(slope)
            return slope.clone()

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            calls["forwards"] += len(x)
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            return Back.apply(grad)

    _, x, _ = decided
    smooth = nn.Sequential(nn.Flatten(), nn.Linear(128, 9), nn.Softplus(), nn.Linear(9, 4)).double()
    goal = Explained.of(smooth, x, attribution=attribution, beta=beta)
    seen = lambda x: smooth(Counted.apply(x))  # noqa: E731
    calls.update(forwards=0, backwards=0)
    result = PGD(threat=THREAT, steps=3, look_ahead=False)(seen, x, goal)
    assert int(result.forwards.sum()) == calls["forwards"]
    last = len(x) * 3 * (attribution.passes.forwards - attribution.passes.backwards)
    # the logits at the input itself, where no map needs them, have one way back from the loss: it is part of the third
    assert int(result.backwards.sum()) <= calls["backwards"] <= int(result.backwards.sum()) + last


def test_the_budget_of_queries_holds(decided):
    model, x, _ = decided
    goal = Explained.of(model, x, attribution=IntegratedGradients(steps=4))
    result = PGD(threat=THREAT, steps=20)(model, x, goal, max_queries=37)
    assert int(result.forwards.max()) <= 37
    assert int(result.forwards.min()) > 20


@pytest.mark.parametrize("attribution", [Gradient(), SmoothGrad(draws=3)], ids=str)
def test_results_do_not_depend_on_the_batch(decided, attribution):
    model, x, _ = decided
    index = torch.tensor([4, 8, 15, 16, 23, 42])
    attack = PGD(threat=THREAT, steps=5)
    whole = attack(model, x, Explained.of(model, x, index=index, attribution=attribution), index=index)
    for rows in (torch.tensor([5]), torch.tensor([3, 0])):
        goal = Explained.of(model, x[rows], index=index[rows], attribution=attribution)
        part = attack(model, x[rows], goal, index=index[rows], micro_batch=8)
        torch.testing.assert_close(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-9)
        torch.testing.assert_close(part.worth, whole.worth[rows])


def test_the_surrogate_leads_where_the_network_has_no_slope(decided):
    """Of a network of ReLUs the gradient is flat, and the loss of its map leads nowhere."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(128, 40), nn.ReLU(), nn.Linear(40, 4)).double()
    _, x, _ = decided
    followed, flat = (
        PGD(threat=THREAT, steps=15, random_start=False)(model, x, Explained.of(model, x, beta=beta, keep=0.0)).worth
        for beta in (50.0, None)
    )
    assert float(followed.clamp_min(0).mean()) > 2 * float(flat.clamp_min(0).mean())


def test_other_searches_drive_it_too(decided):
    model, x, classes = decided
    goal = Explained.of(model, x, change=TopK(k=10))
    for attack in (APGD(threat=THREAT, steps=10, loss=None), Square(threat=THREAT, queries=40, loss=None)):
        result = attack(model, x, goal)
        assert held(model, x, result, classes)
        assert float(result.worth.clamp_min(0).mean()) > 0


def test_the_loss_is_that_of_the_change_less_what_the_decision_costs(decided):
    model, x, classes = decided
    goal = Explained.of(model, x, change=TopK(k=10), margin=2.0, keep=3.0, beta=None)
    seen = goal.followed(model, x.clone().requires_grad_())
    best = goal.before.flatten(1).topk(10, dim=1).indices
    rest = seen.logits.scatter(1, classes[:, None], -1e9).amax(1)
    lead = seen.logits.gather(1, classes[:, None])[:, 0] - rest
    wanted = -seen.map.flatten(1).gather(1, best).sum(1) - 3 * F.relu(2 - lead)
    torch.testing.assert_close(goal.loss(seen), wanted)
    torch.testing.assert_close(goal.worth(seen), 1 - top_k(seen.map, goal.before, 10))


def test_what_cannot_be_used_is_refused(decided):
    model, x, _ = decided
    goal = Explained.of(model, x)
    with pytest.raises(ThreatError, match="give it an eps"):
        assay.attacks.FMN(threat=assay.Linf())(model, x, goal)
    with pytest.raises(SettingError, match="leave eot out"):
        PGD(threat=THREAT)(model, x, goal, eot=assay.EOT(assay.transformations.Noise(0.1)))
    for attack in (PGD(threat=THREAT, loss="ce"), Square(threat=THREAT, queries=40)):
        with pytest.raises(LossError, match=r"needs its own \(loss=None\)"):
            attack(model, x, goal)
    with pytest.raises(LossError, match="not Explained"):
        DeepFool(threat=THREAT)(model, x, goal)
    with pytest.raises(InputError, match="target must have the shape"):
        Explained.of(model, x, change=Manipulation())
    for settings in ({"beta": 0.0}, {"margin": -1.0}, {"keep": -1.0}, {"least": float("nan")}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            Explained.of(model, x, **settings)
    for wrong in (lambda: TopK(k=0), lambda: Region(top=0.9, height=0.5), lambda: Region(width=0.0)):
        with pytest.raises(SettingError):
            wrong()
    with pytest.raises(SettingError, match="no pixel"):
        Region(height=0.01, width=0.01).amount(goal.before, goal.before, None)


@pytest.mark.parametrize("beta", [50.0, None])
def test_explanations_of_attention_are_attacked_too(beta):
    """Its fused kernels cannot be derived twice."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Unflatten(1, (4, 16)), layer, nn.Flatten(), nn.Linear(64, 3))
    x = torch.rand(5, 64)
    result = PGD(threat=THREAT, steps=5)(model, x, Explained.of(model, x, beta=beta))
    assert bool((result.worth > 0).any())
