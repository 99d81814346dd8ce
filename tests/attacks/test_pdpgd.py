"""PDPGD: exact on affine problems in every norm, near the best of networks, and under threats that it does not know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import pytest
import torch
from torch import nn

import assay
from assay.attacks import PDPGD
from assay.errors import SettingError, ThreatError
from assay.goals import Targeted
from assay.testing.case import THREATS, audit
from assay.testing.problems import Affine, Quadratic
from assay.threats import L2
from assay.threats.base import Threat

NORMS = ("linf", "l2", "l1", "l0")


def distances(problem, norm, targets, size):
    """What is found for 8 inputs in batches of this size, and the exact distances."""
    x, y = problem.inputs(8, dtype=torch.float64)
    t = problem.targets(x, y, norm) if targets else None
    model, threat, found = problem.model(torch.float64), THREATS[norm](bounds=problem.bounds), []
    for rows in torch.arange(8).split(size):
        goal = y[rows] if t is None else Targeted(t[rows])
        result = PDPGD(threat=threat, steps=4, restarts=2)(model, x[rows], goal, index=rows)
        audit(result, model, x[rows], goal, threat)
        found.append(result.distance)
    return torch.cat(found), problem.distance(x, y, norm, t)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize(
    ("shape", "classes", "bounds"), [((1, 6, 6), 2, (0.0, 1.0)), ((3, 4, 4), 5, (0.0, 1.0)), ((9,), 4, (-2.0, 3.0))]
)
def test_exact_on_affine_problems(norm, targets, shape, classes, bounds):
    found, exact = distances(Affine(shape=shape, classes=classes, bounds=bounds), norm, targets, 8)
    assert (found >= exact * (1 - 1e-6)).all()
    assert (found <= exact * (1.0 if norm == "l0" else 1.01)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_batch_sizes_make_no_difference(norm):
    for targets in (False, True):
        whole, alone, threes = (distances(Affine(classes=4), norm, targets, size)[0] for size in (8, 1, 3))
        assert whole.isfinite().all()
        assert torch.allclose(whole, alone, rtol=1e-9)
        assert torch.allclose(whole, threes, rtol=1e-9)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_exact_where_the_boundary_is_curved(norm):
    problem = Quadratic(shape=(1, 4, 4))
    x, y = problem.inputs(6, dtype=torch.float64)
    result = PDPGD(threat=THREATS[norm](bounds=problem.bounds), restarts=1)(problem.model(torch.float64), x, y)
    exact = problem.distance(x, y, norm)
    assert (result.distance >= exact * (1 - 1e-6)).all()
    assert (result.distance <= exact * 1.01).all()


def test_more_boundaries_come_nearer():
    """Known exact distances would be better still; here runs towards other classes must find what one run misses."""
    model, data = assay.load_model("digits-mlp"), assay.load_data("digits", limit=20)
    x, y = torch.stack([data[i][0] for i in range(20)]), torch.tensor([int(data[i][1]) for i in range(20)])
    one = PDPGD(threat=assay.Linf(), steps=10, restarts=1)(model, x, y)
    many = PDPGD(threat=assay.Linf(), steps=10, restarts=6)(model, x, y)
    assert one.success.all()
    assert (many.distance <= one.distance).all()
    assert (many.distance < 0.9 * one.distance).any()


def test_passes_are_the_linearisation_and_the_steps():
    problem = Affine(classes=4)
    x, y = problem.inputs(3)
    result = PDPGD(threat=L2(), steps=7, restarts=2)(problem.model(), x, y)
    assert (result.backwards == 3 + 2 * 7).all()
    assert (result.forwards == 1 + 1 + 2 * (7 + 1)).all()


def test_a_decided_sample_costs_no_more():
    problem = Affine(classes=3)
    x, y = problem.inputs(6)
    exact = problem.distance(x, y, "l2").float()
    eps = torch.where(torch.arange(6) % 2 == 0, 1.1, 0.9) * exact
    result = PDPGD(threat=L2(eps), steps=10, restarts=3)(problem.model(), x, y)
    assert torch.equal(result.success, torch.arange(6) % 2 == 0)
    assert (result.forwards[::2] <= 4).all()
    assert (result.forwards[1::2] > 30).all()


def test_random_starts_when_there_are_no_more_boundaries():
    problem, asked = Quadratic(shape=(1, 3, 3)), []
    model = problem.model()
    model.register_forward_pre_hook(lambda module, args: asked.append(args[0]))
    x, y = problem.inputs(3)
    for seed in (0, 0, 1):
        PDPGD(threat=L2(bounds=problem.bounds), steps=1, restarts=2)(model, x, y, seed=seed)
    first, again, other = torch.stack(asked).chunk(3)  # clean, linearised, two runs of a gradient and a last move
    assert torch.equal(first, again)
    assert torch.equal(first[:4], other[:4])
    assert not torch.equal(first[4], other[4])
    assert (first[4] != x).all()


@final
@dataclass(frozen=True, eq=False, repr=False)
class WeightedL2(Threat):
    """`||w * delta||_2 <= eps` without a box: nothing that the attack knows of."""

    name = "weighted"
    reach: float = 10.0

    def weights(self, x):
        return torch.linspace(0.5, 2.0, x[0].numel(), dtype=x.dtype).reshape(x.shape[1:])

    def identity(self, x):
        return torch.zeros_like(x)

    def start(self, x, rng):
        return self.project(x, rng.normal(*x.shape[1:]).to(x))

    def apply(self, x, theta):
        return x + theta

    def project(self, x, theta):
        """Nearest in the weighted length."""
        if self.eps is None:
            return theta
        scale = (self.budget(x) / self.size(x, theta).clamp_min(1e-30)).clamp_max(1)
        return theta * scale.reshape(-1, *[1] * (x.ndim - 1))

    def ascend(self, x, theta, grad, step):
        w = self.weights(x)
        unit = grad / w
        length = unit.flatten(1).norm(dim=1).clamp_min(1e-30)
        return theta + (step / length).reshape(-1, *[1] * (x.ndim - 1)) * unit / w

    def size(self, x, theta):
        return (self.weights(x) * theta).flatten(1).norm(dim=1)

    def slack(self, x):
        return 1e-6


@final
@dataclass(frozen=True, eq=False, repr=False)
class Gains(Threat):
    """One gain for each half of the input: a move that is no perturbation."""

    name = "gains"

    def identity(self, x):
        return x.new_zeros(len(x), 2)

    def start(self, x, rng):
        return self.project(x, rng.normal(2).to(x))

    def apply(self, x, theta):
        left, right = x.chunk(2, dim=1)
        return torch.cat([left * theta[:, :1].exp(), right * theta[:, 1:].exp()], dim=1)

    def project(self, x, theta):
        if self.eps is None:
            return theta
        scale = (self.budget(x) / self.size(x, theta).clamp_min(1e-30)).clamp_max(1)
        return theta * scale[:, None]

    def ascend(self, x, theta, grad, step):
        return theta + grad * (step / grad.norm(dim=1).clamp_min(1e-30))[:, None]

    def size(self, x, theta):
        return theta.norm(dim=1)

    def slack(self, x):
        return 1e-6


def test_a_threat_with_a_known_answer():
    """The least weighted length to a half-space is `gap / ||normal / w||`."""
    model = nn.Linear(8, 4).double()
    generator = torch.Generator().manual_seed(0)
    model.load_state_dict({name: torch.randn(v.shape, generator=generator) for name, v in model.state_dict().items()})
    x = torch.rand(5, 8, generator=generator, dtype=torch.float64)
    z = model(x).detach()
    y, w = z.argmax(1), WeightedL2().weights(x)
    normals = model.weight[None] - model.weight[y][:, None]
    exact = (z.gather(1, y[:, None]) - z) / (normals / w).norm(dim=2)
    exact = exact.masked_fill(torch.nn.functional.one_hot(y, 4).bool(), torch.inf).amin(1).detach()
    result = PDPGD(threat=WeightedL2(), steps=10, restarts=1)(model, x, y)
    assert (result.distance >= exact * (1 - 1e-9)).all()
    assert (result.distance <= exact * 1.001).all()
    moved = PDPGD(threat=WeightedL2(1.5), steps=10, restarts=1).perturb(model, x, y)
    assert ((w * (moved - x)).norm(dim=1) <= 1.5 + 1e-9).all()
    assert torch.equal(model(moved).argmax(1) != y, exact < 1.5)


def test_a_threat_whose_move_is_no_perturbation():
    """The decision of `a . x` changes on a curve in the plane of the two gains, which a fine grid finds too."""
    model = nn.Linear(4, 2, bias=False).double()
    model.load_state_dict({"weight": torch.tensor([[1.0, 2.0, -1.0, -1.0], [0.0, 0.0, 0.0, 0.0]])})
    x = torch.tensor([[0.5, 0.3, 0.2, 0.3], [0.2, 0.9, 0.5, 0.1]], dtype=torch.float64)
    result = PDPGD(threat=Gains(), restarts=1)(model, x, torch.zeros(2, dtype=torch.int64))
    line = torch.linspace(-3, 3, 2001, dtype=torch.float64)
    left, right = (x * model.weight[0]).detach().chunk(2, dim=1)
    sum_ = left.sum(1)[:, None, None] * line.exp()[:, None] + right.sum(1)[:, None, None] * line.exp()
    radius = (line[:, None] ** 2 + line**2).sqrt()
    least = torch.where(sum_ < 0, radius, torch.inf).flatten(1).amin(1)
    assert torch.allclose(result.distance, least, rtol=0.01)
    assert (result.distance <= least).all()


def test_settings_are_checked():
    for wrong in ({"steps": 0}, {"restarts": 0}, {"final_share": 0.0}, {"dual_rate": -1.0}, {"candidates": 1}):
        with pytest.raises(SettingError, match=next(iter(wrong))):
            PDPGD(threat=L2(), **wrong)
    with pytest.raises(ThreatError, match="needs a threat"):
        PDPGD(threat=0.1)
