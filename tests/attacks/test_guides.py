"""What leads runs to the nearest boundary: soft margin, distances of linearised boundaries, the order of classes."""

from __future__ import annotations

import pytest
import torch

from assay.attacks.guides import boundary_distance, guides, soft_margin
from assay.errors import LossError
from assay.goals import Goal, Targeted, Untargeted
from assay.losses import cross_entropy, margin
from assay.oracle import Oracle
from assay.testing.case import THREATS
from assay.testing.problems import Affine
from assay.threats import L0

NORMS = ("linf", "l2", "l1", "l0")


def half_space(bounds=(0.0, 1.0), classes=2, n=8):
    problem = Affine(shape=(3, 4, 4), classes=classes, bounds=bounds)
    x, y = problem.inputs(n, dtype=torch.float64)
    weight, bias = problem.weights()
    normal = weight[1 - y] - weight[y]
    return problem, x, y, normal.reshape(x.shape), -(normal * x.flatten(1)).sum(1) - (bias[1 - y] - bias[y])


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 3.0)])
@pytest.mark.parametrize("norm", NORMS)
def test_the_distance_of_a_boundary_is_exact_inside_the_box(norm, bounds):
    problem, x, y, normal, gap = half_space(bounds)
    for scale in (1.0, 1e-30):
        distance = boundary_distance(THREATS[norm](bounds=bounds), x, scale * normal, scale * gap)
        assert torch.allclose(distance, problem.distance(x, y, norm), rtol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
def test_what_the_box_does_not_reach_is_infinitely_far(norm):
    _, x, _, normal, gap = half_space()
    for far, flat in ((1e6, 1.0), (1.0, 0.0)):
        assert boundary_distance(THREATS[norm](), x, flat * normal, far * gap).isinf().all()


def test_pixels_are_counted_as_one():
    _, x, _, normal, _ = half_space()
    gain = (normal * torch.where(normal > 0, 1 - x, -x)).sum(1).flatten(1).sort(1, descending=True).values.cumsum(1)
    for k in (0, 2, 5):
        count = boundary_distance(L0(unit="pixel"), x, normal, gain[:, k] * (1 - 1e-9))
        assert count.eq(k + 1).all()


@pytest.mark.parametrize("goal", [Untargeted(torch.tensor([0, 1, 2])), Targeted(torch.tensor([0, 1, 2]))])
def test_the_soft_margin_has_the_direction_of_cross_entropy(goal):
    z = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    soft, hard = (torch.autograd.grad(loss(z, goal).sum(), z)[0] for loss in (soft_margin, cross_entropy))
    assert torch.allclose(torch.nn.functional.normalize(soft), torch.nn.functional.normalize(hard))
    assert soft.norm(dim=1).gt(hard.norm(dim=1)).all()


def test_the_soft_margin_does_not_vanish_where_the_model_is_sure():
    z = torch.tensor([[400.0, 0.0, 0.0]], requires_grad=True)
    goal = Untargeted(torch.tensor([0]))
    assert torch.autograd.grad(cross_entropy(z, goal).sum(), z)[0].eq(0).all()
    assert torch.autograd.grad(soft_margin(z, goal).sum(), z)[0].norm() > 1


def led(goal, targets, classes=5, norm="linf"):
    problem = Affine(shape=(3, 4, 4), classes=classes)
    x, y = problem.inputs(8, dtype=torch.float64)
    goal = goal(y) if callable(goal) else goal
    oracle = Oracle(problem.model(torch.float64), x, goal, THREATS[norm](), micro_batch=3)
    oracle.judge_clean()
    return problem, x, y, oracle, list(guides(oracle, goal, None, targets))


@pytest.mark.parametrize("norm", NORMS)
def test_classes_come_in_the_order_of_their_distances(norm):
    problem, x, y, oracle, found = led(Untargeted, 3, norm=norm)
    assert len(found) == 4
    exact, _ = problem._pairs(x, y, norm)
    chosen = torch.stack([guide.goal.classes for guide in found[1:]], 1)
    assert torch.equal(exact.gather(1, chosen), exact.sort(1).values[:, :3])
    assert oracle.record.forwards.eq(2).all()
    assert oracle.record.backwards.eq(4).all()


def test_a_guide_to_one_class_leads_along_its_difference_to_the_right_one():
    problem, x, y, _, found = led(lambda y: Untargeted(y, confidence=0.25), 2)
    z = problem.model(torch.float64)(x)
    rows = torch.arange(len(x))
    for guide in found[1:]:
        assert torch.allclose(guide.gap(z), 0.25 - (z[rows, guide.goal.classes] - z[rows, y]))
    assert torch.allclose(found[0].gap(z), 0.25 - margin(z, Untargeted(y)))


def test_a_target_is_followed_along_both_margins_and_one_of_two_classes_once():
    for goal in (Untargeted, lambda y: Targeted((y + 1) % 5)):
        assert len(led(goal, 0)[-1]) == 1
    assert [guide.loss for guide in led(lambda y: Targeted((y + 1) % 5), 4)[-1]] == [soft_margin, margin]
    assert len(led(Untargeted, 4, classes=2)[-1]) == 1


def test_other_goals_are_refused_by_name():
    class Other(Goal):
        __len__ = at = reached = loss = labels = reached_labels = to = lambda self, *_: None

    problem = Affine()
    x, y = problem.inputs(2)
    oracle = Oracle(problem.model(), x, Untargeted(y), THREATS["l2"]())
    with pytest.raises(LossError, match="Other"):
        next(guides(oracle, Other(), None, 0))
