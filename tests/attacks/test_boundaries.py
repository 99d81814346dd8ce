"""Linearised boundaries are the exact half-spaces of an affine model, one backward pass each."""

from __future__ import annotations

import pytest
import torch

from assay.attacks import DDN, FAB, PDPGD, DeepFool, boundaries
from assay.attacks.boundaries import Boundaries, class_goal, groups, logits, ranked, target_ahead
from assay.errors import LossError
from assay.goals import Targeted, Untargeted
from assay.oracle import Oracle
from assay.testing.problems import Affine
from assay.threats import L2


def setting(classes, goal=None, n=6):
    problem = Affine(classes=classes)
    x, y = problem.inputs(n, dtype=torch.float64)
    model = problem.model(torch.float64)
    goal = Untargeted(y) if goal is None else goal
    return problem, Oracle(model, x, goal, L2()), x, y


@pytest.mark.parametrize(("classes", "candidates", "k"), [(2, None, 1), (5, None, 4), (5, 3, 2), (5, 50, 4)])
def test_gaps_and_normals_are_those_of_the_model(classes, candidates, k):
    problem, oracle, x, y = setting(classes)
    gap, normal, output = Boundaries.of(oracle, oracle.goal, candidates).linearise(oracle, torch.zeros_like(x))
    assert gap.shape == (6, k)
    assert (oracle.record.backwards == k).all()
    weights, bias = problem.weights()
    z = x.flatten(1) @ weights.T + bias
    torch.testing.assert_close(output, z)
    to = ranked(z, oracle.goal)[:, :k]
    torch.testing.assert_close(gap, z.gather(1, y[:, None]) - z.gather(1, to))
    torch.testing.assert_close(normal, weights[to] - weights[y][:, None])


def test_towards_a_target_the_strongest_other_class_stands_in_the_way():
    problem, _, x, y = setting(4)
    targets = (y + 1) % 4
    goal = Targeted(targets, confidence=0.5)
    _, oracle, _, _ = setting(4, goal)
    gap, normal, _ = Boundaries.of(oracle, goal, None).linearise(oracle, torch.zeros_like(x))
    weights, bias = problem.weights()
    z = x.flatten(1) @ weights.T + bias
    torch.testing.assert_close(gap[:, 0], z.gather(1, y[:, None])[:, 0] - z.gather(1, targets[:, None])[:, 0] + 0.5)
    torch.testing.assert_close(normal[:, 0], weights[targets] - weights[y])


def test_other_classes_are_ranked_without_the_own_one():
    output = torch.tensor([[3.0, 1.0, 2.0, 1.0], [-5.0, -1.0, -3.0, -2.0]])
    assert ranked(output, Untargeted(torch.tensor([0, 3]))).tolist() == [[2, 1, 3], [1, 2, 0]]


def test_a_target_is_ahead_by_the_difference_to_the_right_class_alone():
    output = torch.tensor([[3.0, 1.0, 2.0], [-5.0, -1.0, -3.0]])
    goal = Targeted(torch.tensor([1, 1]), away=torch.tensor([2, 0]))
    assert target_ahead(output, goal).tolist() == [-1.0, 4.0]


def test_normals_are_held_for_one_micro_batch_at_a_time():
    _, oracle, x, y = setting(4)
    small = Oracle(oracle.model, x, Untargeted(y), L2(), micro_batch=4)
    lines = Boundaries.of(small, Untargeted(y), None)
    assert [rows.tolist() for rows in groups(small, lines)] == [[0, 1, 2, 3], [4, 5]]
    assert [rows.tolist() for rows in groups(small.at(torch.tensor([5, 1])), lines)] == [[0, 1]]
    training = Oracle(oracle.model, x, Untargeted(y), L2(), micro_batch=4, referee=False)
    assert [len(rows) for rows in groups(training, lines)] == [6]  # batch norms see the whole batch


def test_normals_of_few_rows_and_classes_are_held_at_once(monkeypatch):
    """Inputs have 48 values: room for the three normals of two inputs, of one, and for two of one input."""
    _, oracle, x, y = setting(4)
    lines = Boundaries.of(oracle, Untargeted(y), None)
    for room, at_once, classes in ((6 * 48, 2, [3]), (5 * 48, 1, [3]), (2 * 48 + 5, 1, [2, 1]), (1, 1, [1, 1, 1])):
        monkeypatch.setattr(boundaries, "_VALUES", room)
        assert [len(rows) for rows in groups(oracle, lines)] == [at_once] * (6 // at_once)
        parts = lines.parts(x)
        assert [len(part.losses) for part in parts] == classes
        assert sum((part.losses for part in parts), ()) == lines.losses


NEAREST = {
    "fab": lambda threat: FAB(threat=threat, steps=6),
    "pdpgd": lambda threat: PDPGD(threat=threat, steps=4, restarts=3),
    "deepfool": lambda threat: DeepFool(threat=threat),
    "ddn": lambda threat: DDN(threat=threat, steps=4),
}


@pytest.mark.parametrize("name", NEAREST)
def test_searches_hold_as_many_normals_as_there_is_room_for(name, monkeypatch):
    """Nothing is found by it, and nothing lost; the largest set of normals asked for fits."""
    problem = Affine(classes=10)
    x, y = problem.inputs(6, dtype=torch.float64)
    asked, gradients = [], Oracle.gradients

    def watched(self, theta, losses, rows=None):
        asked.append(theta.numel() * len(losses))
        return gradients(self, theta, losses, rows)

    monkeypatch.setattr(Oracle, "gradients", watched)
    whole = NEAREST[name](L2())(problem.model(torch.float64), x, y)
    assert max(asked) == 6 * 9 * 48
    for room in (12 * 48, 4 * 48):
        if room < 9 * 48 and name in ("deepfool", "ddn"):
            continue  # at most ten classes count, and those of one input are held together
        asked.clear()
        monkeypatch.setattr(boundaries, "_VALUES", room)
        parts = NEAREST[name](L2())(problem.model(torch.float64), x, y)
        assert max(asked) <= room
        torch.testing.assert_close(parts.x_adv, whole.x_adv)
        assert torch.equal(parts.backwards, whole.backwards)


def test_what_is_not_about_classes_is_refused():
    for output in (torch.zeros(3), [torch.zeros(2, 3)], None):
        with pytest.raises(LossError, match="logits"):
            logits(output)
    with pytest.raises(LossError, match="goal on classes"):
        class_goal(object())
