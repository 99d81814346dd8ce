"""Two-sided exactness: a success at 1.05 times the exact radius, none at 0.95, on affine and quadratic problems.

With two classes every loss has its maximum where the margin has it, so that an attack that optimises well must reach
the exact radius. With more, cross-entropy pulls towards a mixture of classes and ends elsewhere than the nearest one,
whatever the optimiser; there the margin to one target is what has an exact answer: targeted attacks with the margin,
and `MultiTargeted` for the nearest of all classes.
"""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from assay.attacks import APGD, BIM, FGSM, MIFGSM, PGD, MultiTargeted, Square
from assay.goals import Targeted
from assay.testing.case import THREATS, audit
from assay.testing.problems import Affine, Constant, Masked, Quadratic, Sparse
from assay.threats import L0

NORMS = ("linf", "l2", "l1")
UNIT, WIDE = (0.0, 1.0), (-2.0, 3.0)
SETUPS = [  # shape, bounds: images, a vector, one pixel, a flat image, five axes
    ((3, 4, 4), UNIT),
    ((1, 6, 6), WIDE),
    ((7,), UNIT),
    ((1, 1, 1), WIDE),
    ((2, 1, 9), (0.0, 255.0)),
    ((2, 2, 2, 2), (-1.0, 1.0)),
]
STRONG = {"PGD": lambda threat: PGD(threat=threat), "APGD": lambda threat: APGD(threat=threat, steps=60)}


def won(make, problem, norm, factors, n=8, targets=False, dtype=torch.float64, batch=64, seed=0):
    """How many of n samples fall at each multiple of their exact radius; every result is audited."""
    x, y = problem.inputs(n, seed=seed, dtype=dtype)
    t = None
    if targets:
        t = problem.targets(x, y, norm) if isinstance(problem, Affine) else 1 - y
    exact = problem.distance(x, y, norm, t)
    eps = torch.cat([factor * exact for factor in factors]).to(dtype)
    x, y = x.repeat(len(factors), *[1] * (x.ndim - 1)), y.repeat(len(factors))
    t = None if t is None else t.repeat(len(factors))
    model, successes = problem.model(dtype), []
    for part in torch.arange(len(x)).split(batch):
        threat = THREATS[norm](eps[part], bounds=problem.bounds)
        goal = y[part] if t is None else Targeted(t[part])
        result = make(threat)(model, x[part], goal, index=part)
        audit(result, model, x[part], goal, threat)
        successes.append(result.success)
    return torch.cat(successes).reshape(len(factors), n).sum(1).tolist()


def two_sided(make, problem, norm, upper=1.05, n=8, **settings):
    assert won(make, problem, norm, (0.95, upper), n=n, **settings) == [0, n]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", STRONG)
@pytest.mark.parametrize(("shape", "bounds"), SETUPS)
def test_affine(name, norm, shape, bounds):
    for targets in (False, True) if shape == (1, 6, 6) else (False,):
        two_sided(STRONG[name], Affine(shape=shape, classes=2, bounds=bounds), norm, targets=targets)


@pytest.mark.parametrize("name", STRONG)
def test_sparse_steps_find_the_few_coordinates_that_are_enough(name):
    two_sided(STRONG[name], Affine(shape=(3, 20, 20), classes=2), "l1", dtype=torch.float32)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", STRONG)
@pytest.mark.parametrize(("shape", "bounds"), SETUPS)
def test_quadratic(name, norm, shape, bounds):
    for targets in (False, True) if shape == (1, 6, 6) else (False,):
        two_sided(STRONG[name], Quadratic(shape=shape, bounds=bounds), norm, targets=targets)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", STRONG)
def test_batch_sizes(name, norm):
    two_sided(STRONG[name], Affine(classes=2, seed=1), norm, batch=1, n=2)
    two_sided(STRONG[name], Quadratic(), norm, batch=3, n=3)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", STRONG)
def test_float32(name, norm):
    two_sided(STRONG[name], Affine(classes=2), norm, dtype=torch.float32, n=16)
    two_sided(STRONG[name], Quadratic(), norm, dtype=torch.float32, n=16)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("seed", range(2))
def test_many_inputs_at_the_edge_of_the_box(norm, seed):
    problem = Affine(shape=(1, 5, 5), classes=2, seed=seed)
    for make in STRONG.values():
        two_sided(make, problem, norm, n=32, seed=seed)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("bounds", [UNIT, WIDE])
def test_more_classes_towards_a_target(norm, bounds):
    problem = Affine(classes=5, bounds=bounds)
    for make in (lambda t: PGD(threat=t, loss="margin"), lambda t: APGD(threat=t, loss="margin")):
        two_sided(make, problem, norm, targets=True, n=16)


@pytest.mark.parametrize("norm", NORMS)
def test_multi_targeted_finds_the_nearest_of_many_classes(norm):
    problem = Affine(classes=4)
    two_sided(lambda t: MultiTargeted(attack=APGD(threat=t, loss="margin", steps=60)), problem, norm, n=16)


FEW = {
    "PGD": lambda threat: PGD(threat=threat, steps=15),
    "APGD": lambda threat: APGD(threat=threat, steps=15),
}


def counted(make, problem, count, batch=8, targets=None, **settings):
    """The successes at one unit less than these counts, and at the counts themselves."""
    x, y = problem.inputs(len(count), dtype=torch.float64)
    model, goal = problem.model(torch.float64), y if targets is None else Targeted(targets)
    found = []
    for eps in ((count - 1).clamp_min(0), count):
        for part in torch.arange(len(x)).split(batch):
            threat = L0(eps[part], bounds=problem.bounds, **settings)
            aim = goal[part] if targets is None else goal.at(part)
            result = make(threat)(model, x[part], aim, index=part)
            audit(result, model, x[part], aim, threat)
            found.append(result.success)
    return torch.cat(found).reshape(2, -1).sum(1).tolist()


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize(("shape", "bounds"), [*SETUPS[1:], ((3, 16, 16), UNIT)])
def test_l0_needs_the_exact_count(name, shape, bounds):
    problem = Affine(shape=shape, classes=2, bounds=bounds)
    x, y = problem.inputs(16, dtype=torch.float64)
    assert counted(FEW[name], problem, problem.distance(x, y, "l0")) == [0, 16]
    assert counted(FEW[name], problem, problem.distance(x, y, "l0", 1 - y), targets=1 - y) == [0, 16]


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_l0_finds_the_features_that_count(name, batch):
    for problem in (Sparse(needed=5), Sparse(shape=(30,), needed=12, bounds=WIDE)):
        count = problem.distance(*problem.inputs(8), "l0")
        assert counted(FEW[name], problem, count, batch) == [0, 8]


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("bounds", [UNIT, WIDE])
@pytest.mark.parametrize("unit", ["feature", "pixel"])
def test_l0_beside_all_subsets(name, bounds, unit):
    """The smallest number of units with a subset whose best corner of the box changes the decision."""
    shape, units = ((2, 2, 4), 8) if unit == "pixel" else ((1, 4, 5), 20)
    problem = Affine(shape=shape, classes=2, bounds=bounds, seed=2)
    x, y = problem.inputs(8, dtype=torch.float64)
    model, (w, _) = problem.model(torch.float64), problem.weights()
    toward = (w[1 - y] - w[y]).reshape(x.shape)
    corner = torch.where(toward > 0, bounds[1], bounds[0])
    count = torch.full((8,), torch.inf, dtype=torch.float64)
    for size in (3, 2, 1):
        for subset in combinations(range(units), size):
            mask = torch.zeros(units, dtype=torch.bool).index_fill(0, torch.tensor(subset), 1)
            mask = mask.reshape(1, 1, *shape[1:]) if unit == "pixel" else mask.reshape(1, *shape)
            count[model(torch.where(mask, corner, x)).argmax(1) != y] = size
    assert set(count.tolist()) >= {1.0, 2.0}
    assert count.isfinite().all()
    assert counted(FEW[name], problem, count, unit=unit) == [0, 8]
    assert counted(FEW[name], problem, count, batch=3, targets=1 - y, unit=unit) == [0, 8]


@pytest.mark.parametrize("make", [FGSM, BIM, MIFGSM], ids=["FGSM", "BIM", "MIFGSM"])
@pytest.mark.parametrize(("shape", "bounds"), SETUPS)
def test_sign_attacks_are_exact_on_two_classes_in_linf(make, shape, bounds):
    """The gradient of an affine margin is the same everywhere: one sign step reaches the best point of ball and box."""
    for targets in (False, True):
        problem = Affine(shape=shape, classes=2, bounds=bounds)
        two_sided(lambda t: make(threat=t), problem, "linf", upper=1.001, targets=targets)


@pytest.mark.parametrize("norm", NORMS)
def test_bim_is_exact_in_every_norm(norm):
    two_sided(lambda t: BIM(threat=t), Affine(classes=2), norm)


def test_bim_is_exact_in_l0():
    problem = Sparse(needed=4)
    assert counted(lambda t: BIM(threat=t), problem, problem.distance(*problem.inputs(8), "l0")) == [0, 8]


@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_square_linf(goal):
    """One-pixel windows with their own sign per channel can build the exact answer, given enough queries."""
    problem = Affine(shape=(2, 3, 3), classes=2)
    make = lambda t: Square(threat=t, queries=600, rescale=True)  # noqa: E731
    two_sided(make, problem, "linf", targets=goal == "targeted")


def test_square_l2():
    """Its bumps cannot follow weights that are noise from pixel to pixel: 4 times the radius here."""
    two_sided(lambda t: Square(threat=t, queries=300), Affine(classes=2), "l2", upper=4.0)


@pytest.mark.parametrize(
    "make", [lambda t: PGD(threat=t), lambda t: APGD(threat=t), lambda t: Square(threat=t, queries=100)]
)
def test_nothing_changes_a_constant_model(make):
    problem = Constant()
    x, y = problem.inputs(4)
    result = make(THREATS["linf"](1.0))(problem.model(), x, y)
    assert not result.success.any()
    assert (result.forwards > 10).all()  # it was looked for


def test_square_wins_where_gradients_are_masked():
    problem = Masked(shape=(1, 4, 4))
    assert won(lambda t: PGD(threat=t), problem, "linf", (2.0,)) == [0]
    assert won(lambda t: APGD(threat=t), problem, "linf", (2.0,)) == [0]
    assert won(lambda t: Square(threat=t, queries=400), problem, "linf", (0.95, 2.0)) == [0, 8]
