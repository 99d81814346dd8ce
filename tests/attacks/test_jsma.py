"""JSMA: the fewest features where greedy steps are best, the paper's pairs, directions, shares and stops."""

from __future__ import annotations

import resource

import pytest
import torch
from torch import nn

import assay
from assay.attacks import JSMA
from assay.errors import LossError, SettingError, ThreatError
from assay.goals import Goal, Targeted
from assay.testing.case import audit
from assay.testing.problems import Affine, Constant, Sparse

WIDE = (-2.0, 3.0)


class Watched(nn.Module):
    """A linear classifier that keeps every input it sees."""

    def __init__(self, weight, bias=None):
        super().__init__()
        self.weight = nn.Parameter(torch.as_tensor(weight))
        self.bias = torch.zeros(len(self.weight)) if bias is None else torch.as_tensor(bias)
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach().clone())
        return x.flatten(1) @ self.weight.T + self.bias


def problems():
    for bounds in ((0.0, 1.0), WIDE):
        yield Affine(classes=2, bounds=bounds), 1.0
        yield Affine(classes=2, shape=(1, 10, 10), bounds=bounds, seed=1), 0.5
    yield Sparse(needed=3), 1.0
    yield Sparse(needed=4, bounds=WIDE), 1.0


@pytest.mark.parametrize("pairs", [True, False])
def test_it_changes_the_fewest_features_that_are_enough(pairs):
    """Between two classes the effect on the margin is the same everywhere: greedy steps are the best ones."""
    for problem, theta in problems():
        x, y = problem.inputs(8, dtype=torch.float64)
        if theta < 1:  # then every feature takes several steps; from the middle all come equally far
            x = torch.full_like(x, sum(problem.bounds) / 2) + 0.01 * (x - x.mean())
            y = problem.model(torch.float64)(x).argmax(1).detach()
        model, threat = problem.model(torch.float64), assay.L0(bounds=problem.bounds)
        for goal in (y, Targeted(1 - y)):
            exact = problem.distance(x, y, "l0", None if goal is y else 1 - y)
            result = JSMA(threat=threat, theta=theta, gamma=1.0, pairs=pairs)(model, x, goal)
            audit(result, model, x, goal, threat)
            assert torch.equal(result.distance, exact), problem


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("jacobian", ["softmax", "logits"])
def test_batches_of_any_size_give_the_same(size, jacobian):
    problem = Affine(classes=4, shape=(1, 6, 6))
    x, y = problem.inputs(8, dtype=torch.float64)
    attack, model = JSMA(threat=assay.L0(), gamma=1.0, jacobian=jacobian), problem.model(torch.float64)
    whole = attack(model, x, y)
    assert whole.success.all()
    parts = [attack(model, x[rows], y[rows]) for rows in torch.arange(8).split(size)]
    for field in ("success", "distance", "prediction", "forwards", "backwards", "x_adv"):
        assert torch.equal(torch.cat([getattr(part, field) for part in parts]), getattr(whole, field))


@pytest.mark.parametrize("jacobian", ["softmax", "logits"])
def test_several_classes_and_their_targets(jacobian):
    problem = Affine(classes=5, shape=(1, 8, 8))
    x, y = problem.inputs(8, dtype=torch.float64)
    model, threat = problem.model(torch.float64), assay.L0()
    targets = problem.targets(x, y, "l0")
    for goal, exact in ((y, problem.distance(x, y, "l0")), (Targeted(targets), None)):
        exact = problem.distance(x, y, "l0", targets) if exact is None else exact
        result = JSMA(threat=threat, gamma=1.0, jacobian=jacobian)(model, x, goal)
        audit(result, model, x, goal, threat)
        assert result.success.all()
        assert (result.distance >= exact).all()
        assert (result.distance <= 2 * exact + 1).all()


def test_the_first_pair_is_the_papers():
    """Of all pairs the one with the largest -alpha * beta, by logits; not the two largest gradients of the target."""
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 12, generator=generator)
    model = Watched(weight, bias=[9.0, 0.0, 0.0, 0.0])
    x, target = torch.full((1, 12), 0.5), 2
    JSMA(threat=assay.L0(), gamma=1.0, direction="increase", weight="slope", jacobian="logits")(
        model, x, Targeted(torch.tensor([target]))
    )
    alpha, beta = weight[target], weight.sum(0) - weight[target]
    best = max(
        ((i, j) for i in range(12) for j in range(i) if alpha[i] + alpha[j] > 0 and beta[i] + beta[j] < 0),
        key=lambda pair: float(-(alpha[list(pair)].sum() * beta[list(pair)].sum())),
    )
    changed = (model.seen[2] != x)[0].nonzero().flatten().tolist()
    assert changed == sorted(best)
    assert changed != sorted(alpha.topk(2).indices.tolist())
    assert torch.equal(model.seen[2][0, changed], torch.ones(2))


@pytest.mark.parametrize("direction", ["increase", "decrease", "both"])
def test_directions_steps_and_saturation(direction):
    """Features move by theta of the width, never back, and not from a bound outwards."""
    low, high = WIDE
    problem = Affine(classes=3, shape=(20,), bounds=WIDE)
    x, y = problem.inputs(6, dtype=torch.float64)
    weight, bias = problem.weights()
    model = Watched(weight, bias)
    JSMA(threat=assay.L0(bounds=WIDE), theta=0.25, gamma=1.0, direction=direction)(model, x, y, micro_batch=1)
    moved = torch.cat(model.seen)
    start = (moved[:, None] == x).sum(2).argmax(1)  # the sample that shares most features with a move
    delta = moved - x[start]
    width = 0.25 * (high - low)
    if direction == "increase":
        assert (delta >= 0).all()
    if direction == "decrease":
        assert (delta <= 0).all()
    if direction == "both":
        assert (delta < 0).any()
        assert (delta > 0).any()
    steps = delta / width
    whole = (steps - steps.round()).abs() < 1e-9
    assert (whole | (moved == low) | (moved == high)).all()
    assert (delta.abs() > width * 1.5).any()


def test_gamma_limits_the_steps():
    problem = Constant(shape=(40,), classes=2)
    x, y = torch.full((2, 40), 0.5), torch.ones(2, dtype=torch.int64)
    flat = nn.Linear(40, 2)
    with torch.no_grad():
        flat.weight.copy_(torch.stack([torch.linspace(1, 2, 40), -torch.linspace(1, 2, 40)]) * 1e-3)
        flat.bias.copy_(torch.tensor([0.0, 9.0]))
    for pairs, gamma, steps in ((True, 0.25, 5), (False, 0.25, 10), (True, None, 2), (False, None, 5), (True, 0.01, 1)):
        result = JSMA(threat=assay.L0(), gamma=gamma, pairs=pairs)(flat, x, y)
        assert not result.success.any()
        assert result.backwards.tolist() == [steps] * 2
        assert result.forwards.tolist() == [steps + 2] * 2
    spent = JSMA(threat=assay.L0(torch.tensor([4.0, 7.0])))(flat, x, y)
    assert spent.backwards.tolist() == [3, 4]
    assert not JSMA(threat=assay.L0())(problem.model(), x, y).success.any()


def test_what_a_step_costs():
    """Two backward passes with logits whatever the number of classes, one with the softmax; two tries at the end."""
    problem = Affine(classes=30, shape=(200,), seed=2)
    x, y = problem.inputs(4)
    for jacobian, backwards in (("logits", 2), ("softmax", 1)):
        result = JSMA(threat=assay.L0(), gamma=1.0, jacobian=jacobian, pairs=False)(problem.model(), x, y)
        assert result.success.all()
        assert torch.equal(result.backwards, backwards * (result.forwards - 1))
    result = JSMA(threat=assay.L0(), gamma=1.0)(problem.model(), x, y)
    assert (result.backwards <= result.forwards - 1).all()
    assert (result.forwards - 1 - result.backwards <= 2).all()


def test_an_odd_number_of_features_is_possible_with_pairs():
    problem = Sparse(needed=3)
    x, y = problem.inputs(4)
    result = JSMA(threat=assay.L0(3), gamma=1.0)(problem.model(), x, y)
    assert result.success.all()
    assert result.distance.tolist() == [3.0] * 4
    assert not JSMA(threat=assay.L0(2), gamma=1.0)(problem.model(), x, y).success.any()


def test_untargeted_goes_to_the_likeliest_class_not_to_the_next_number():
    weight = torch.zeros(10, 40)
    weight[7] = torch.linspace(0.1, 1, 40)
    weight[4] = -0.1
    model = Watched(weight, bias=torch.tensor([0.0, 0, 0, 3, 0, 0, 0, 2, 0, 0]))
    result = JSMA(threat=assay.L0(), gamma=1.0)(model, torch.full((2, 40), 0.01), torch.tensor([3, 3]))
    assert result.prediction.tolist() == [7, 7]
    assert result.distance.tolist() == [1.0, 1.0]


def test_unlikely_targets_are_reached_by_the_softmax():
    """In float32 the target's probability is 0 at first, and so is its derivative."""
    weight = torch.zeros(2, 30)
    weight[1] = 10.0
    model = Watched(weight, bias=[120.0, -20.0])
    x = torch.zeros(1, 30)
    assert model(x).softmax(1)[0, 1] == 0
    result = JSMA(threat=assay.L0(), gamma=1.0)(model, x, Targeted(torch.tensor([1])))
    assert result.distance.tolist() == [15.0]


def test_a_single_feature_is_enough_where_there_is_no_pair():
    model = Watched([[0.0], [4.0]], bias=[1.0, 0.0])
    result = JSMA(threat=assay.L0())(model, torch.tensor([[0.1], [0.9]]), torch.tensor([0, 1]))
    assert result.distance.tolist() == [1.0, 1.0]


def test_large_images_need_little_memory():
    """With 150,528 features the matrix of all pairs would be 90 GB for each image."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 7, stride=8), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 28 * 28, 10)).eval()
    x = torch.rand(2, 3, 224, 224)
    y = model(x).argmax(1)
    attack = JSMA(threat=assay.L0(), gamma=3e-5, jacobian="logits")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = attack(model, x, Targeted((y + 1) % 10))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024
    assert result.backwards.max() == 4


def test_training_gets_moves_inside_the_budget():
    problem = Affine(classes=3)
    x, y = problem.inputs(6)
    result = JSMA(threat=assay.L0(4))(problem.model(), x, y)
    trained = JSMA(threat=assay.L0(4)).perturb(problem.model(), x, y)
    assert ((trained != x).flatten(1).sum(1) <= 4).all()
    assert result.success.any()
    assert torch.equal(problem.model()(trained).argmax(1) != y, result.success)


@pytest.mark.parametrize(
    "settings",
    [
        {"theta": 0.0},
        {"theta": 1.5},
        {"gamma": 0.0},
        {"gamma": 2.0},
        {"direction": "up"},
        {"jacobian": "probs"},
        {"weight": "none"},
    ],
)
def test_settings_are_checked(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        JSMA(threat=assay.L0(), **settings)


def test_only_l0_in_features():
    with pytest.raises(ThreatError, match="unit='feature'"):
        JSMA(threat=assay.L0(unit="pixel"))
    with pytest.raises(ThreatError, match="L0"):
        JSMA(threat=assay.Linf(0.1))


def test_only_goals_on_classes():
    class Other(Goal):
        def __len__(self):
            return 2

        def at(self, rows):
            return self

        def reached(self, output):
            return torch.zeros(len(output), dtype=torch.bool)

        def loss(self, output):
            return output.sum(1)

        def labels(self, output):
            return output.argmax(1)

        def reached_labels(self, labels):
            return labels < 0

        def to(self, device):
            return self

    with pytest.raises(LossError, match="goals on classes"):
        JSMA(threat=assay.L0())(nn.Linear(4, 3), torch.full((2, 4), 0.5), Other())
