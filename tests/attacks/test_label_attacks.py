"""Attacks that minimise from decisions alone: exact answers at a stated number of queries, budgets, labels only."""

from __future__ import annotations

import pytest
import torch

from assay.attacks import OPT, PGD, Boundary, GeoDA, HopSkipJump, Pointwise, SaltAndPepper, SignOPT
from assay.errors import AccessError, InputError
from assay.goals import Targeted
from assay.oracle import Access
from assay.testing.case import THREATS, audit, exact_within
from assay.testing.problems import Affine, Constant, Masked, Quadratic

UNIT = (0.0, 1.0)
# Attack and norm: queries, and how near to the exact distance they must lead.
PROMISES = {
    ("HopSkipJump", "l2"): (2000, 1.05),
    ("HopSkipJump", "linf"): (5000, 1.05),
    ("SignOPT", "l2"): (2000, 1.02),
    ("OPT", "l2"): (3500, 1.05),
    ("Boundary", "l2"): (2000, 1.05),
    ("GeoDA", "l2"): (4500, 1.05),
    ("GeoDA", "linf"): (4500, 1.05),
    ("GeoDA", "l1"): (4500, 1.15),
}
ATTACKS = {
    "HopSkipJump": HopSkipJump,
    "SignOPT": SignOPT,
    "OPT": OPT,
    "GeoDA": GeoDA,
    "SaltAndPepper": SaltAndPepper,
    "Pointwise": Pointwise,
    "Boundary": Boundary,
}
PAIRS = list(PROMISES)
ALL = [*PAIRS, ("SaltAndPepper", "l0"), ("Pointwise", "l0")]


class Labels:
    """A callable that answers with int64 labels, and counts for each sample how often it was asked."""

    access = Access.LABELS

    def __init__(self, model, x):
        self.model, self.x, self.rows = model, x, 0
        self.types = set()

    def __call__(self, inputs):
        self.rows += len(inputs)
        answer = self.model(inputs).argmax(1)
        self.types.add(answer.dtype)
        return answer


def smallest(name, norm, problem, x, goal, **call):
    attack = ATTACKS[name](threat=THREATS[norm](bounds=problem.bounds))
    return attack(Labels(problem.model(x.dtype), x), x, goal, **call)


@pytest.mark.parametrize(("name", "norm"), PAIRS)
@pytest.mark.parametrize("bounds", [UNIT, (-128.0, 127.0)])
def test_exact_distance_after_so_many_queries(name, norm, bounds):
    problem = Affine(classes=2, bounds=bounds)
    x, y = problem.inputs(8, dtype=torch.float64)
    queries, share = PROMISES[name, norm]
    result = smallest(name, norm, problem, x, y, max_queries=queries)
    audit(result, problem.model(torch.float64), x, y, THREATS[norm](bounds=bounds))
    exact_within(result, problem.distance(x, y, norm), share)


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_targets_among_several_classes(name, norm):
    problem = Affine(classes=4, shape=(1, 3, 4))
    x, y = problem.inputs(8, dtype=torch.float64)
    targets = problem.targets(x, y, norm)
    queries, share = PROMISES[name, norm]
    result = smallest(name, norm, problem, x, Targeted(targets), max_queries=max(queries // 3, 1500))
    exact_within(result, problem.distance(x, y, norm, targets), 1 + 3 * (share - 1))
    assert (result.prediction == targets).all()


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_a_curved_boundary(name, norm):
    problem = Quadratic(shape=(1, 3, 4))
    x, y = problem.inputs(4, dtype=torch.float64)
    queries, share = PROMISES[name, norm]
    result = smallest(name, norm, problem, x, y, max_queries=max(queries // 3, 1500))
    exact_within(result, problem.distance(x, y, norm), 1 + 3 * (share - 1))


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_wins_where_gradients_are_masked(name, norm):
    problem = Masked()
    x, y = problem.inputs(8, dtype=torch.float64)
    eps = 1.5 * problem.distance(x, y, norm)
    threat = THREATS[norm](eps)
    assert not PGD(threat=threat, random_start=False)(problem.model(torch.float64), x, y).success.any()
    assert ATTACKS[name](threat=threat)(problem.model(torch.float64), x, y).success.all()


@pytest.mark.parametrize(("name", "norm"), ALL)
def test_a_budget_of_queries_is_kept_and_a_smaller_one_finds_a_prefix(name, norm):
    problem = Affine(classes=2)
    x, y = problem.inputs(3, dtype=torch.float64)
    threat = THREATS[norm](2.0 * problem.distance(x, y, norm))
    won, nearest, spent = torch.zeros(3, dtype=torch.bool), torch.full((3,), torch.inf), None
    for queries in (1, 2, 10, 100, 600):
        model = Labels(problem.model(torch.float64), x)
        result = ATTACKS[name](threat=threat)(model, x, y, max_queries=queries)
        assert model.types == {torch.int64}
        assert result.forwards.max() <= queries
        assert result.forwards.sum() == model.rows
        assert not (won & ~result.success).any()
        if spent is not None:
            assert torch.equal(result.forwards[won], spent[won])
        won, spent = result.success, result.forwards
        free = smallest(name, norm, problem, x, y, max_queries=queries)
        assert (free.distance <= nearest).all()
        nearest = free.distance
    assert won.any()


@pytest.mark.parametrize(("name", "norm"), ALL)
def test_each_sample_alone_is_asked_as_often_as_it_says(name, norm):
    problem = Affine(classes=3)
    x, y = problem.inputs(3)
    for i in range(3):
        model = Labels(problem.model(), x)
        attack = ATTACKS[name](threat=THREATS[norm]())
        result = attack(model, x[i : i + 1], y[i : i + 1], index=torch.tensor([i]), max_queries=333)
        assert 20 < model.rows == int(result.forwards) <= 333


@pytest.mark.parametrize(("name", "norm"), ALL)
def test_a_model_that_never_changes_ends_the_search(name, norm):
    problem = Constant()
    x, y = problem.inputs(3)
    result = smallest(name, norm, problem, x, y)
    assert not result.success.any()
    assert torch.equal(result.x_adv, x)
    assert result.forwards.min() > 20
    assert result.forwards.max() < 2000


@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_searches_start_at_inputs_that_are_given(name, norm):
    problem = Affine(classes=2, shape=(2,), seed=3)
    x, y = problem.inputs(6, dtype=torch.float64)
    model = problem.model(torch.float64)

    def narrow(inputs):  # a class that noise does not meet: a small ball around one point
        near = (inputs - 0.9).flatten(1).norm(dim=1) < 1e-3
        return torch.nn.functional.one_hot(torch.where(near, 2, model(inputs).argmax(1)), 3).double()

    goal = Targeted(torch.full_like(y, 2))
    threat = THREATS[norm]()
    given = torch.cat([x[:1], torch.full((1, 2), 0.9, dtype=torch.float64)])
    assert not ATTACKS[name](threat=threat)(narrow, x, goal, max_queries=400).success.any()
    result = ATTACKS[name](threat=threat, start=given)(narrow, x, goal, max_queries=400)
    assert result.success.all()
    size = {"l2": 2, "linf": torch.inf, "l1": 1}[norm]
    exact = torch.linalg.vector_norm(x - 0.9, size, dim=1)
    assert (result.distance <= exact + 1e-9).all()
    for wrong in (given[:, :1], given + 1.0, given[:0], [0.9, 0.9]):
        with pytest.raises(InputError, match="start must"):
            ATTACKS[name](threat=threat, start=wrong)(narrow, x, goal)


def test_gradients_are_not_granted():
    problem = Affine()
    x, y = problem.inputs(2)
    with pytest.raises(AccessError):
        PGD(threat=THREATS["l2"](0.5))(Labels(problem.model(), x), x, y)
