"""DeepFool: exact on affine problems up to its overshoot, and cheap."""

from __future__ import annotations

import pytest
import torch

from assay.attacks import DeepFool
from assay.errors import SettingError, ThreatError
from assay.goals import Targeted, Untargeted
from assay.losses import margin
from assay.testing.case import THREATS, audit
from assay.testing.models import curved
from assay.testing.problems import Affine
from assay.threats import L1, L2, Linf

NORMS = ("linf", "l2")
CLIPS = (False, True)


def inner(classes, bounds=(0.0, 1.0), n=8):
    """An affine problem whose smallest moves stay away from the bounds: distances are those without a box."""
    problem = Affine(classes=classes, bounds=bounds, boxed=False)
    x, _ = problem.inputs(64, dtype=torch.float64)
    middle, width = (bounds[0] + bounds[1]) / 2, bounds[1] - bounds[0]
    x, model = middle + 0.5 * (x - middle), problem.model(torch.float64)
    y = model(x).argmax(1).detach()
    keep = (problem.distance(x, y, "l2") > 0.05 * width).nonzero().flatten()[:n]
    assert len(keep) == n
    return problem, model, x[keep], y[keep]


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 3.0)])
def test_exact_where_no_bound_binds(clip, norm, classes, bounds):
    problem, model, x, y = inner(classes, bounds)
    attack = DeepFool(threat=THREATS[norm](bounds=bounds), overshoot=1e-3, clip=clip)
    targets = problem.targets(x, y, norm)
    for goal, exact in (
        (Untargeted(y), problem.distance(x, y, norm)),
        (Targeted(targets), problem.distance(x, y, norm, targets)),
    ):
        whole = attack(model, x, goal)
        audit(whole, model, x, goal, attack.threat)
        assert (whole.distance >= exact * (1 - 1e-9)).all()
        assert (whole.distance <= 1.01 * exact).all()
        for size in (1, 3):
            parts = [attack(model, x[p], goal.at(p)) for p in torch.arange(8).split(size)]
            torch.testing.assert_close(torch.cat([p.x_adv for p in parts]), whole.x_adv)
            assert torch.equal(torch.cat([p.backwards for p in parts]), whole.backwards)


@pytest.mark.parametrize("clip", CLIPS)
@pytest.mark.parametrize("norm", NORMS)
def test_bounds_cost_steps_not_distance(clip, norm):
    """Values at the bounds stop a part of each step; the next ones make up for it."""
    problem = Affine(classes=4)
    x, y = problem.inputs(16, dtype=torch.float64)
    model, exact = problem.model(torch.float64), problem.distance(x, y, norm)
    result = DeepFool(threat=THREATS[norm](), overshoot=1e-3, clip=clip)(model, x, y)
    assert (result.distance >= exact * (1 - 1e-9)).all()
    assert (result.distance <= 1.01 * exact).all()


@pytest.mark.parametrize("norm", NORMS)
def test_the_overshoot_lengthens_the_whole_move(norm):
    problem, model, x, y = inner(4)
    for overshoot in (0.02, 0.3):
        result = DeepFool(threat=THREATS[norm](), overshoot=overshoot)(model, x, y)
        torch.testing.assert_close(
            result.distance, (1 + overshoot) * problem.distance(x, y, norm), rtol=5e-3, atol=0, check_dtype=False
        )


@pytest.mark.parametrize("norm", NORMS)
def test_the_scale_of_the_inputs_does_not_matter(norm):
    """The released code adds 1e-4 to each step whatever the range: with 0..255 another attack than with 0..1."""
    beyond = []
    for high in (1.0, 255.0):
        problem, model, x, y = inner(4, (0.0, high))
        result = DeepFool(threat=THREATS[norm](bounds=(0.0, high)), overshoot=0.0)(model, x, y)
        assert result.success.all()
        beyond.append((result.distance - problem.distance(x, y, norm)) / high)
    torch.testing.assert_close(beyond[0], beyond[1], rtol=1e-3, atol=0)
    expected = 1e-4 / (1 if norm == "l2" else 48**0.5)
    torch.testing.assert_close(beyond[0], torch.full_like(beyond[0], expected), rtol=1e-3, atol=0)


@pytest.mark.parametrize("classes", [2, 4, 6])
def test_one_step_costs_a_backward_pass_for_each_other_class(classes):
    _, model, x, y = inner(classes)
    result = DeepFool(threat=L2())(model, x, y)
    assert (result.backwards == classes - 1).all()
    assert (result.forwards == 3).all()  # clean, linearised, judged
    targeted = DeepFool(threat=L2())(model, x, Targeted((y + 1) % classes))
    assert (targeted.backwards <= 3).all()  # one a step


def test_few_candidates_save_backward_passes():
    _, model, x, y = inner(6)
    assert (DeepFool(threat=L2(), candidates=3)(model, x, y).backwards == 2).all()
    assert (DeepFool(threat=L2(), candidates=100)(model, x, y).backwards == 5).all()


def test_samples_leave_when_their_decision_has_changed():
    """Costs are a sample's own: those of the whole batch are not the slowest sample's."""
    model = curved(48, 5, (0.0, 1.0))
    x, _ = Affine(classes=5).inputs(24, dtype=torch.float64)
    y = model(x).argmax(1).detach()
    result = DeepFool(threat=L2())(model, x, y)
    assert result.success.all()
    assert len(result.backwards.unique()) > 1
    alone = [int(DeepFool(threat=L2())(model, x[i : i + 1], y[i : i + 1]).backwards) for i in range(24)]
    assert result.backwards.tolist() == alone


def test_steps_are_at_most_as_many_as_asked_for():
    model = curved(48, 5, (0.0, 1.0))
    x, _ = Affine(classes=5).inputs(24, dtype=torch.float64)
    y = model(x).argmax(1).detach()
    few, many = (DeepFool(threat=Linf(), steps=steps, overshoot=0.0)(model, x, y) for steps in (1, 50))
    assert (few.backwards <= 4).all()
    assert many.success.all()
    assert int(few.success.sum()) < 24
    assert (many.distance[few.success] == few.distance[few.success]).all()


def test_a_number_asks_whether_the_point_found_is_inside():
    problem, model, x, y = inner(4)
    exact = problem.distance(x, y, "l2")
    eps = torch.where(torch.arange(8) % 2 == 0, 1.01, 1.03) * exact
    result = DeepFool(threat=L2(eps), overshoot=0.02)(model, x, y)
    audit(result, model, x, y, L2(eps))
    assert torch.equal(result.success, torch.arange(8) % 2 == 1)


def test_the_two_forms_differ_where_bounds_bind_and_nowhere_else():
    """Clipped, the sum of steps forgets what the bounds stopped; unclipped, it does not. Both end inside the bounds."""
    model = curved(48, 5, (0.0, 1.0))
    x, _ = Affine(classes=5).inputs(24, dtype=torch.float64)
    for inputs, differ in ((x, True), (0.5 + 0.5 * (x - 0.5), False)):
        y = model(inputs).argmax(1).detach()
        found = [DeepFool(threat=L2(), clip=clip)(model, inputs, y) for clip in CLIPS]
        for result in found:
            audit(result, model, inputs, y, L2())
            assert result.success.all()
        assert torch.allclose(found[0].x_adv, found[1].x_adv) != differ


@pytest.mark.parametrize("norm", NORMS)
def test_a_class_behind_a_bound_does_not_hold_the_sample(norm):
    """The nearest boundary asks for more of a value that is as large as it can be."""
    model = torch.nn.Linear(2, 3)
    weight, bias = [[0.0, 0.0], [10.0, 0.0], [0.0, 1.0]], [0.0, -10.1, -0.7]
    model.load_state_dict({"weight": torch.tensor(weight), "bias": torch.tensor(bias)})
    x, y = torch.tensor([[1.0, 0.5]]), torch.tensor([0])
    result = DeepFool(threat=THREATS[norm]())(model, x, y)
    assert model(result.x_adv).argmax(1).tolist() == [2]
    torch.testing.assert_close(result.distance, torch.tensor([0.2]), rtol=0.03, atol=0)
    assert not DeepFool(threat=THREATS[norm](), clip=False)(model, x, y).success.any()


def test_confidence_is_reached_too():
    _, model, x, y = inner(4)
    goal = Untargeted(y, confidence=0.3)
    result = DeepFool(threat=L2())(model, x, goal)
    assert result.success.all()
    torch.testing.assert_close(margin(model(result.x_adv), goal), torch.full((8,), 0.3).double(), rtol=0.1, atol=0)


def test_training_gets_the_points_found():
    problem, model, x, y = inner(4)
    exact = problem.distance(x, y, "linf")
    moved = DeepFool(threat=Linf(1.1 * exact)).perturb(model, x, y)
    assert (model(moved).argmax(1) != y).all()
    near = DeepFool(threat=Linf(0.5 * exact)).perturb(model, x, y)
    assert ((near - x).flatten(1).abs().amax(1) <= 0.5 * exact * (1 + 1e-9)).all()


def test_mistakes_have_names():
    for settings in ({"steps": 0}, {"candidates": 1}, {"overshoot": -0.1}, {"overshoot": float("inf")}):
        with pytest.raises(SettingError):
            DeepFool(threat=L2(), **settings)
    for threat in (L1(), None):
        with pytest.raises(ThreatError):
            DeepFool(threat=threat)
