"""Mistakes that attack libraries are known to have made, each as a test of ours.

What the contract checks of every attack (side effects, counts, failed samples, batches) is not repeated here.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay import registry
from assay.attacks import (
    APGD,
    BIM,
    DIFGSM,
    FAB,
    FGSM,
    FMN,
    MIFGSM,
    NES,
    NIFGSM,
    PDPGD,
    PGD,
    SINIFGSM,
    SPSA,
    TIFGSM,
    VMIFGSM,
    AdamSearch,
    CarliniWagner,
    DeepFool,
    Genetic,
    GeoDA,
    HopSkipJump,
    MultiTargeted,
    Pursuit,
    RandomSearch,
    ReColorAdv,
    Relay,
    SimBA,
    Square,
)
from assay.goals import Targeted, Untargeted
from assay.losses import cross_entropy, dlr, margin
from assay.rng import Keyed
from assay.testing import Counting
from assay.testing.case import THREATS, audit, sizes
from assay.testing.models import curved
from assay.testing.problems import Affine, Constant
from assay.threats import L1, L2, Linf

ALL = {
    "FGSM": FGSM,
    "BIM": BIM,
    "MIFGSM": MIFGSM,
    "DIFGSM": DIFGSM,
    "TIFGSM": lambda threat: TIFGSM(threat=threat, kernel_radius=1),
    "NIFGSM": NIFGSM,
    "SINIFGSM": lambda threat: SINIFGSM(threat=threat, scales=2),
    "VMIFGSM": lambda threat: VMIFGSM(threat=threat, neighbours=3),
    "PGD": PGD,
    "APGD": lambda threat: APGD(threat=threat, steps=20),
    "MultiTargeted": lambda threat: MultiTargeted(attack=APGD(threat=threat, steps=10)),
    "AdamSearch": lambda threat: AdamSearch(threat=threat, steps=20),
    "ReColorAdv": lambda threat: ReColorAdv(threat=threat, steps=20, lr=None),
    "RandomSearch": lambda threat: RandomSearch(threat=threat, draws=10, refine=150),
    "Square": lambda threat: Square(threat=threat, queries=60),
    "Pursuit": lambda threat: Pursuit(attack=APGD(threat=threat, steps=10), rounds=2),
    "Relay": lambda threat: Relay(attack=APGD(threat=threat, steps=10), turns=2, queries=20, steps=5),
    "DeepFool": DeepFool,
    "FAB": lambda threat: FAB(threat=threat, steps=20),
    "PDPGD": lambda threat: PDPGD(threat=threat, steps=10, restarts=2),
    "FMN": lambda threat: FMN(threat=threat, steps=20, targets=1),
    "CarliniWagner": lambda threat: CarliniWagner(threat=threat, steps=30, search_steps=5, lr=0.1, initial_c=0.1),
    "NES": lambda threat: NES(threat=threat, steps=20, samples=12),
    "SPSA": lambda threat: SPSA(threat=threat, steps=40, samples=24, lr=0.03),
    "SimBA": lambda threat: SimBA(threat=threat, steps=60, step=0.3),
    "Genetic": lambda threat: Genetic(threat=threat, generations=40),
    "HopSkipJump": lambda threat: HopSkipJump(threat=threat, steps=3, probes=30),
    "GeoDA": lambda threat: GeoDA(threat=threat, queries=150),
}
SOON = {"NES": 30, "SPSA": 200, "SimBA": 30}  # what a step in an estimated direction asks, of 261, 1001 and 112 in all
every_attack = pytest.mark.parametrize("name", ALL)


def test_the_list_of_attacks_is_complete():
    both = {entry.name for entry in registry.entries("attack") if {"linf", "l2"} <= set(entry.threats)}
    assert set(ALL) == both - {"Transfer"}  # the others cannot run these tests, and this one asks other models


@every_attack
def test_a_failed_sample_is_not_a_black_image(name):
    x, y = Constant(classes=4).inputs(4)
    result = ALL[name](threat=Linf(0.5))(Constant(classes=4).model(), x, y)
    assert not result.success.any()
    assert torch.equal(result.x_adv, x)
    assert result.distance.isinf().all()


@every_attack
def test_a_gradient_is_normalised_for_each_sample(name):
    """Scaling the scores of other samples must not change what happens to one."""

    class Uneven(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x) * (1 + 100 * (x.flatten(1)[:, :1] > 0.5))

    problem = Affine(classes=4)
    x, y = problem.inputs(8, dtype=torch.float64)
    x[:, 0, 0, 0] = torch.where(torch.arange(8) % 2 == 0, 0.05, 0.95)
    model = Uneven(problem.model(torch.float64))
    y, index = model(x).argmax(1).detach(), torch.arange(8)
    attack = ALL[name](threat=L2(0.4) if name != "Square" else Linf(0.05))
    whole = attack(model, x, y, index=index)
    assert whole.success.any()
    for i in range(8):
        alone = attack(model, x[i : i + 1], y[i : i + 1], index=index[i : i + 1])
        assert alone.success[0] == whole.success[i]
        torch.testing.assert_close(alone.x_adv[0], whole.x_adv[i])


@every_attack
@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (0.0, 255.0), (2.0, 3.0)])
def test_nothing_is_clipped_to_zero_and_one(name, bounds):
    problem = Affine(classes=4, bounds=bounds)
    x, y = problem.inputs(6)
    eps = 3 * problem.distance(x, y, "linf").float()
    result = ALL[name](threat=Linf(eps, bounds=bounds))(problem.model(), x, y)
    audit(result, problem.model(), x, y, Linf(eps, bounds=bounds))
    assert result.success.float().mean() >= 0.5
    moved = ALL[name](threat=Linf(eps, bounds=bounds)).perturb(problem.model(), x, y)
    assert (moved.min() < 0) == (bounds[0] < 0)
    assert (moved.max() > 1) == (bounds[1] > 1)


@pytest.mark.parametrize("name", [n for n in ALL if n != "MultiTargeted"])
def test_early_stopping_really_stops(name):
    """On samples that fall at once hardly anything is asked, whatever the number of steps allowed."""
    problem = Affine(classes=4)
    x, y = problem.inputs(6)
    model = Counting(problem.model())
    result = ALL[name](threat=Linf(1.0))(model, x, y)
    assert result.success.all()
    assert result.forwards.max() <= SOON.get(name, 12)
    assert model.forwards == result.forwards.sum()


@pytest.mark.parametrize("make", [PGD, BIM, APGD])
def test_l1_is_projected_not_rescaled_and_stepped_sparsely(make):
    """The nearest point of the L1 ball is sparse; a rescaled one stays dense and is further away."""
    x = torch.full((1, 16), 0.5)
    theta = torch.linspace(0.05, 0.4, 16)[None]
    threat = L1(1.0)
    nearest = threat.project(x, theta)
    rescaled = theta / theta.sum()
    assert (nearest == 0).sum() >= 6
    assert (nearest - theta).norm() < (rescaled - theta).norm()
    problem = Affine(shape=(64,), classes=2)
    x, y = problem.inputs(4, dtype=torch.float64)
    exact = problem.distance(x, y, "l1")
    result = make(threat=L1(1.05 * exact))(problem.model(torch.float64), x, y)
    assert result.success.all()


@every_attack
def test_the_best_of_all_moves_is_returned_not_the_last(name):
    """The model is fooled by moderate moves only: the last iterate, at the edge of the ball, is right again."""

    class Ring(nn.Module):
        def forward(self, x):
            z = (x - 0.5).flatten(1).abs().amax(1)
            fooled = ((z - 0.05) * (0.24 - z)) * 40
            return torch.stack([torch.zeros_like(z), fooled, fooled - 1, fooled - 2], 1)

    x = torch.full((3, 1, 3, 3), 0.5) + 0.01 * torch.rand(3, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(3, dtype=torch.long)
    threat = Linf(0.25)
    result = ALL[name](threat=threat)(Ring(), x, y)
    audit(result, Ring(), x, y, threat)
    assert result.success.all() == (name not in {"FGSM", "Square"})  # which only ever look at the edge


def test_targeted_attacks_go_to_their_target():
    problem = Affine(classes=4)
    x, y = problem.inputs(12, dtype=torch.float64)
    targets = (y + 1 + torch.arange(12) % 3) % 4
    for name in ("FGSM", "BIM", "MIFGSM", "PGD", "APGD", "Square"):
        result = ALL[name](threat=Linf(0.5))(problem.model(torch.float64), x, Targeted(targets))
        reached = problem.model(torch.float64)(result.x_adv).argmax(1)
        assert result.success.sum() >= (9 if name != "FGSM" else 4)
        assert torch.equal(reached[result.success], targets[result.success])
        assert torch.equal(reached[~result.success], y[~result.success])


def test_no_target_is_hard_coded():
    """An untargeted attack must not aim at (label + 1) mod 10: here that class can never be reached."""

    class Unreachable(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            z = self.model(x)
            never = z.new_full((len(x), 1), -50.0)
            return torch.cat([z[:, :1], never, z[:, 1:2], never], 1)

    problem = Affine(classes=2)
    x, label = problem.inputs(8)
    model = Unreachable(problem.model())
    y = label * 2
    eps = 3 * problem.distance(x, label, "linf").float()
    for name in ALL:
        assert ALL[name](threat=Linf(eps))(model, x, y).success.all(), name


def test_extreme_pixels_move():
    """Values exactly at a bound must not be stuck there."""
    problem = Affine(classes=2)
    x = torch.randint(0, 2, (6, 3, 4, 4), generator=torch.Generator().manual_seed(1)).float()
    y = problem.model()(x).argmax(1)
    eps = 1.3 * problem.distance(x, y, "linf").float()
    for name in ("FGSM", "BIM", "MIFGSM", "PGD", "APGD"):
        assert ALL[name](threat=Linf(eps))(problem.model(), x, y).success.all(), name


def test_the_margin_is_right_when_all_scores_are_negative():
    z = torch.tensor([[-1.0, -5.0, -9.0]])
    assert margin(z, Untargeted(torch.tensor([0]))).item() == -4
    assert margin(z, Targeted(torch.tensor([1]))).item() == -4


@pytest.mark.parametrize("loss", [cross_entropy, margin, dlr])
def test_a_loss_is_per_sample(loss):
    """Neither averaged over the batch nor broadcast to (b, b)."""
    z = torch.randn(5, 6, generator=torch.Generator().manual_seed(0))
    y = torch.arange(5)
    for goal in (Untargeted(y), Targeted(y)):
        whole = loss(z, goal)
        assert whole.shape == (5,)
        alone = torch.cat([loss(z[i : i + 1], goal.at(torch.tensor([i]))) for i in range(5)])
        torch.testing.assert_close(whole, alone)


def test_the_sign_of_a_step_is_towards_success():
    """One step lowers the right class's probability, or raises the target's: never the other way round."""
    problem = Affine(classes=4)
    x, y = problem.inputs(8, dtype=torch.float64)
    model, t = problem.model(torch.float64), (y + 1) % 4
    for norm, threat in THREATS.items():
        attack = FGSM(threat=threat({"linf": 0.01, "l0": 1}.get(norm, 0.1)))
        for goal, label, sign in ((y, y, -1), (Targeted(t), t, 1)):
            before, after = (
                model(p).log_softmax(1).gather(1, label[:, None]) for p in (x, attack.perturb(model, x, goal))
            )
            assert ((after - before) * sign > 0).all()


def test_steps_are_as_many_as_asked_for():
    """The number of gradients is the number of steps, for samples that never fall."""
    x, y = Constant(classes=4).inputs(3)
    for attack, steps in (
        (PGD(threat=Linf(0.1), steps=17), 17),
        (PGD(threat=Linf(0.1), steps=5, restarts=3), 15),
        (BIM(threat=Linf(0.1), steps=7), 7),
        (APGD(threat=Linf(0.1)), 100),
        (MultiTargeted(attack=APGD(threat=Linf(0.1), steps=20), targets=3), 60),
    ):
        result = attack(Constant(classes=4).model(), x, y)
        assert (result.backwards <= steps).all(), attack
        assert (result.backwards >= 0.9 * steps).all(), attack


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("shape", [(8,), (1, 8, 8), (3, 8, 4), (3, 1, 8)])
def test_random_starts_broadcast_along_the_batch_only(norm, batch, shape):
    """A (b,) radius against the last image axis fails for most batches, and is wrong when both are as long."""
    x = torch.full((batch, *shape), 0.5)
    eps = torch.linspace(0.01, 0.2, batch)
    start = THREATS[norm](eps).start(x, Keyed(0, torch.arange(batch)))
    assert (sizes(start, norm) <= eps + 1e-5).all()
    assert (sizes(start, norm) >= 0.2 * eps).all()


def test_a_projection_into_a_larger_ball_changes_nothing():
    x = torch.full((2, 2), 0.5)
    theta = torch.tensor([[0.3, 0.4], [-0.1, 0.2]])
    for threat in (Linf(0.45), L2(0.6), L1(0.8)):
        assert torch.equal(threat.project(x, theta), theta)


def test_momentum_uses_its_decay():
    """With decay 0 momentum is plain ascent; with decay 1 it adds up the normalised gradients of all steps."""
    model = curved(48, 4, (0.0, 1.0))
    x, _ = Affine().inputs(3, dtype=torch.float64)
    y = model(x).argmax(1).detach()
    settings = {"threat": L2(0.5), "random_start": False, "rel_step": 0.3}
    plain, heavy = (PGD(steps=4, momentum=m, **settings).perturb(model, x, y) for m in (0.0, 1.0))
    assert torch.equal(plain, PGD(steps=4, **settings).perturb(model, x, y))
    assert not torch.allclose(plain, heavy)
    at, total = x, 0
    for _ in range(2):
        at = at.detach().requires_grad_()
        (grad,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(at), y, reduction="sum"), at)
        total = total + grad / grad.flatten(1).abs().sum(1)[:, None, None, None]
        step = 0.15 * total / total.flatten(1).norm(dim=1)[:, None, None, None]
        at = L2(0.5).apply(x, L2(0.5).project(x, at.detach() + step - x))
    torch.testing.assert_close(at, PGD(steps=2, momentum=1.0, **settings).perturb(model, x, y))


def test_square_covers_the_last_row_and_column():
    """An exclusive upper bound would leave the last row and column to the initial stripes."""

    class Corner(nn.Module):
        def forward(self, x):
            z = (x[:, 0, -1, -1] - 0.5) * 4 - 1.2
            return torch.stack([-z, z], 1)

    x = torch.full((16, 1, 6, 6), 0.5)
    result = Square(threat=Linf(0.4), queries=200)(Corner(), x, torch.zeros(16, dtype=torch.long))
    assert result.success.all()


def test_an_attack_runs_in_plain_float32():
    """No hidden float64: a float32 model that sees a double fails."""
    problem = Affine(classes=4)
    x, y = problem.inputs(3)
    seen = []

    class Typed(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            seen.append(x.dtype)
            return self.model(x)

    for name in ALL:
        ALL[name](threat=Linf(torch.tensor([0.1, 0.2, 0.05], dtype=torch.float64)))(Typed(problem.model()), x, y)
    assert set(seen) == {torch.float32}
