"""The known answers are right: checked against a dense grid, which knows no formula, and random search."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from assay.errors import InputError, SettingError
from assay.testing.problems import Affine, Constant, Masked, Norm, Problem, Quadratic, Sparse

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")


def size(delta: Tensor, norm: Norm) -> Tensor:
    flat = delta.flatten(1).double()
    if norm == "l0":
        return (flat.abs() > 1e-9).sum(1).double()
    return torch.linalg.vector_norm(flat, {"linf": torch.inf, "l2": 2, "l1": 1}[norm], dim=1)


def grid_distance(problem: Problem, x: Tensor, y: Tensor, norm: Norm, targets: Tensor | None, points: int) -> Tensor:
    """The smallest move to a point of a dense grid over the box (through x itself) that reaches the goal."""
    model, (low, high) = problem.model(torch.float64), problem.bounds
    found = []
    for i in range(len(x)):
        axes = [torch.cat([torch.linspace(low, high, points).double(), v[None]]) for v in x[i].flatten().double()]
        grid = torch.cartesian_prod(*axes).reshape(-1, *x.shape[1:])
        prediction = model(grid).argmax(1)
        reached = prediction != y[i] if targets is None else prediction == targets[i]
        sizes = size(grid - x[i].double(), norm)[reached]
        found.append(sizes.min() if len(sizes) else torch.tensor(torch.inf).double())
    return torch.stack(found)


@pytest.mark.parametrize("norm", [*NORMS, "l0"])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 3.0)])
@pytest.mark.parametrize(("shape", "points"), [((1, 1, 1), 4001), ((2,), 501), ((1, 3, 1), 51)])
@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("targeted", [False, True])
def test_affine_distance_is_that_of_a_dense_grid(norm, bounds, shape, points, classes, targeted):
    problem = Affine(shape=shape, classes=classes, bounds=bounds, seed=3)
    x, y = problem.inputs(4, dtype=torch.float64)
    targets = problem.targets(x, y, norm) if targeted else None
    exact = problem.distance(x, y, norm, targets)
    step = (bounds[1] - bounds[0]) / (points - 1)
    grid = grid_distance(problem, x, y, norm, targets, points)
    assert (exact <= grid + 1e-6).all()
    if norm == "l0":
        assert (exact == grid).all()
    else:  # the next grid point beyond the boundary is at most a few steps further
        assert (grid <= exact + 6 * step).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 3.0)])
@pytest.mark.parametrize(("shape", "points"), [((1, 1, 1), 4001), ((2,), 501), ((1, 3, 1), 51)])
def test_quadratic_distance_is_that_of_a_dense_grid(norm, bounds, shape, points):
    problem = Quadratic(shape=shape, bounds=bounds)
    x, y = problem.inputs(6, dtype=torch.float64)
    assert y.tolist() == [0, 1] * 3
    exact = problem.distance(x, y, norm)
    grid = grid_distance(problem, x, y, norm, None, points)
    assert (exact <= grid + 1e-6).all()
    assert (grid <= exact + 6 * (bounds[1] - bounds[0]) / (points - 1)).all()


@pytest.mark.parametrize("norm", [*NORMS, "l0"])
def test_sparse_and_masked_distances_are_those_of_a_dense_grid(norm):
    for problem in (
        Sparse(shape=(3,), needed=2),
        Masked(shape=(3,), step=1e-3),
        Sparse(shape=(2,), needed=1),
    ):
        x, y = problem.inputs(4, dtype=torch.float64)
        grid = grid_distance(problem, x, y, norm, None, 51)
        exact = problem.distance(x, y, norm)
        assert (exact <= grid + 1e-6).all()
        assert (grid <= exact + (0.12 if norm != "l0" else 0)).all()
    assert (Sparse(shape=(3, 4, 4), needed=4).distance(*Sparse(shape=(3, 4, 4), needed=4).inputs(5), "l0") == 4).all()


@pytest.mark.parametrize("norm", [*NORMS, "l0"])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("boxed", [False, True])
def test_the_best_point_of_an_affine_problem_lies_on_the_boundary(norm, targeted, boxed):
    if norm == "l0" and not boxed:
        pytest.skip("without a box one feature is always enough")
    problem = Affine(shape=(3, 5, 5), classes=4, bounds=(-1.0, 2.0), boxed=boxed)
    x, y = problem.inputs(16, dtype=torch.float64)
    targets = problem.targets(x, y, norm) if targeted else None
    best = problem.optimum(x, y, norm, targets)
    torch.testing.assert_close(size(best - x, norm), problem.distance(x, y, norm, targets))
    z = problem.model(torch.float64)(best)
    if norm == "l0":  # the last feature moves only as far as the pair needs; a tied third class may be ahead
        return
    top = z.topk(2, dim=1)
    torch.testing.assert_close(top.values[:, 0], top.values[:, 1])
    assert (top.indices == y[:, None]).any(1).all()
    if targets is not None:
        assert (top.indices == targets[:, None]).any(1).all()
    assert not boxed or (best.amin() >= -1 - 1e-12 and best.amax() <= 2 + 1e-12)


def test_without_a_box_the_distance_is_the_gap_over_the_dual_norm():
    problem = Affine(shape=(7,), classes=2, boxed=False)
    x, y = problem.inputs(5, dtype=torch.float64)
    w, b = problem.weights()
    z = x @ w.T + b
    gap = (z[:, 0] - z[:, 1]).abs()
    w = (w[0] - w[1]).abs()
    for norm, dual in (("linf", w.sum()), ("l2", w.norm()), ("l1", w.max())):
        torch.testing.assert_close(problem.distance(x, y, norm), gap / dual)


@pytest.mark.parametrize("norm", NORMS)
def test_the_worst_margin_crosses_zero_at_the_distance_and_no_random_move_is_worse(norm):
    problem = Affine(shape=(1, 4, 4), classes=3)
    x, y = problem.inputs(8, dtype=torch.float64)
    exact = problem.distance(x, y, norm)
    assert problem.worst_margin(x, y, norm, exact).abs().max() < 1e-9
    assert (problem.worst_margin(x, y, norm, 1.001 * exact) < 0).all()
    assert (problem.worst_margin(x, y, norm, 0.999 * exact) > 0).all()
    model, worst = problem.model(torch.float64), problem.worst_margin(x, y, norm, exact / 2)
    generator = torch.Generator().manual_seed(0)
    for sharpness in (0.2, 1, 5):  # from dense to sparse moves
        delta = torch.randn(4000, 8, 16, generator=generator, dtype=torch.float64)
        delta = (delta.sign() * delta.abs() ** sharpness).reshape(-1, 1, 4, 4)
        delta *= (exact.repeat(4000) / 2 / size(delta, norm))[:, None, None, None]
        z = model((x.repeat(4000, 1, 1, 1) + delta).clamp(0, 1))
        label = y.repeat(4000)[:, None]
        margin = z.gather(1, label).squeeze(1) - z.scatter(1, label, -torch.inf).amax(1)
        assert (margin.reshape(4000, 8) >= worst - 1e-12).all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("side", ["inside", "outside"])
def test_no_random_move_leaves_the_sphere_early(norm, side):
    problem = Quadratic(shape=(3, 4, 4), side=side)
    x, y = problem.inputs(8, dtype=torch.float64)
    exact, model = problem.distance(x, y, norm), problem.model(torch.float64)
    generator = torch.Generator().manual_seed(0)
    way = (x - 0.5) * (1 if side == "inside" else -1)
    for sharpness in (0.01, 1, 30):
        noise = torch.rand(2000, *x.shape, generator=generator, dtype=torch.float64)
        delta = way.sign() * (way.abs() ** sharpness) * noise ** (sharpness / 10)
        delta = delta.flatten(0, 1)
        delta *= (0.999 * exact.repeat(2000) / size(delta, norm))[:, None, None, None]
        assert (model((x.repeat(2000, 1, 1, 1) + delta).clamp(0, 1)).argmax(1) == y.repeat(2000)).all()


def test_inputs_are_a_prefix_of_one_sequence_and_touch_the_bounds():
    for problem in (Affine(), Quadratic(), Sparse(), Masked(), Constant()):
        x, y = problem.inputs(9)
        few, labels = problem.inputs(2)
        assert torch.equal(x[:2], few)
        assert torch.equal(y[:2], labels)
        assert torch.equal(problem.model()(x).argmax(1), y)
        assert x.amin() >= 0
        assert x.amax() <= 1
    x, _ = Affine(bounds=(-1.0, 1.0)).inputs(9)
    assert (x == -1).any()
    assert (x == 1).any()


@pytest.mark.parametrize("problem", [Affine(), Quadratic(), Sparse(), Masked(), Constant()])
def test_float32_and_float64_models_are_one_function(problem):
    single, double = problem.inputs(5)[0], problem.inputs(5, dtype=torch.float64)[0]
    assert torch.equal(single.double(), double) or (single.double() - double).abs().max() < 1e-7
    torch.testing.assert_close(
        problem.model()(single).double(), problem.model(torch.float64)(double), atol=1e-5, rtol=0
    )


def test_a_target_that_a_third_class_guards_is_refused():
    problem = Affine(shape=(1,), classes=3, seed=1)
    x, y = problem.inputs(20)
    middle = problem.weights()[0].flatten().argsort()[1]  # on a line, the class of the middle slope is between others
    with pytest.raises(InputError, match="third class"):
        problem.distance(x, y, "l2", torch.full_like(y, int(middle)))


def test_wrong_from_the_start_is_distance_zero():
    for problem in (Affine(classes=2), Quadratic(), Sparse(), Masked(), Constant(classes=2)):
        x, y = problem.inputs(4)
        assert (problem.distance(x, 1 - y, "l2") == 0).all()
        assert (problem.distance(x, 1 - y, "l2", targets=y) == 0).all()


def test_settings_are_checked():
    for build in (
        lambda: Affine(classes=1),
        lambda: Affine(bounds=(1.0, 1.0)),
        lambda: Affine(shape=()),
        lambda: Quadratic(side="left"),
        lambda: Constant(classes=0),
        lambda: Sparse(shape=(2,), needed=2),
    ):
        with pytest.raises(SettingError):
            build()
    with pytest.raises(SettingError, match="norm"):
        Affine().distance(*Affine().inputs(1), "l3")
    with pytest.raises(SettingError, match="norm"):
        Quadratic().distance(*Quadratic().inputs(1), "l0")
