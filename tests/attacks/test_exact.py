"""Two-sided exactness: a success at 1.05 times the exact radius, none at 0.95, on affine and quadratic problems.

With two classes every loss has its maximum where the margin has it, so that an attack that optimises well must reach
the exact radius. With more, cross-entropy pulls towards a mixture of classes and ends elsewhere than the nearest one,
whatever the optimiser; there the margin to one target is what has an exact answer: targeted attacks with the margin,
and `MultiTargeted` for the nearest of all classes.
"""

from __future__ import annotations

import pytest
import torch

from assay.attacks import APGD, BIM, FGSM, MIFGSM, PGD, MultiTargeted, Square
from assay.goals import Targeted
from assay.testing.case import THREATS, audit
from assay.testing.problems import Affine, Constant, Masked, Quadratic

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
    assert not make(THREATS["linf"](1.0))(problem.model(), x, y).success.any()


def test_square_wins_where_gradients_are_masked():
    problem = Masked(shape=(1, 4, 4))
    assert won(lambda t: PGD(threat=t), problem, "linf", (2.0,)) == [0]
    assert won(lambda t: APGD(threat=t), problem, "linf", (2.0,)) == [0]
    assert won(lambda t: Square(threat=t, queries=400), problem, "linf", (0.95, 2.0)) == [0, 8]
