"""Adam on moves: the optimiser's own steps, indifference to scale, the penalty, and samples that leave."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.attacks import AdamSearch, ReColorAdv, adam
from assay.errors import SettingError, ThreatError
from assay.goals import Untargeted
from assay.losses import margin
from assay.testing.problems import Affine
from assay.threats import L0, L1, L2, Combined, Linf, Recolor, ToneCurve


class Curved(nn.Module):
    """A smooth network on images, its scores times a constant."""

    def __init__(self, factor=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = torch.randn(48, 16, generator=generator, dtype=torch.float64)
        self.last = torch.randn(16, 4, generator=generator, dtype=torch.float64)
        self.factor = factor

    def forward(self, x):
        return self.factor * (x.flatten(1) @ self.first.to(x)).tanh() @ self.last.to(x)


def images(n=4):
    return torch.rand(n, 3, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.4 + 0.3


# The penalty's slope blows up rounding where neighbours move almost alike, so that only its first step is compared.
@pytest.mark.parametrize(("weight", "steps"), [(0.0, 15), (0.3, 2)])
def test_moves_are_those_of_the_optimiser_where_nothing_is_projected(weight, steps, monkeypatch):
    monkeypatch.setattr(adam, "_FLOOR", 0.0)
    x, model, threat = images(), Curved(), Recolor(10.0, space="rgb", resolution=(3, 3, 3))
    y = model(x).argmax(1)
    attack = AdamSearch(threat=threat, steps=steps, lr=0.004, smoothness_weight=weight, loss="margin")
    moved = attack.perturb(model, x, y)

    theta = threat.identity(x).requires_grad_()
    optimiser = torch.optim.Adam([theta], lr=0.004, eps=1e-300, maximize=True)
    for _ in range(steps):
        optimiser.zero_grad()
        output = model(threat.apply(x, theta))
        own = output.gather(1, y[:, None]).squeeze(1)
        gap = output.scatter(1, y[:, None], -torch.inf).amax(dim=1) - own
        (gap - weight * threat.roughness(x, theta)).sum().backward()
        optimiser.step()
    assert torch.allclose(moved, threat.apply(x, theta.detach()), atol=1e-12)
    assert float((moved - x).abs().max()) > 0.003


@pytest.mark.parametrize("factor", [1e-9, 1e6])
def test_the_scale_of_the_scores_changes_nothing(factor):
    x = images()
    y = Curved()(x).argmax(1)
    attack = AdamSearch(threat=Linf(0.05), steps=10, loss="margin")
    assert torch.allclose(attack.perturb(Curved(factor), x, y), attack.perturb(Curved(), x, y), atol=1e-9)


def test_the_penalty_makes_moves_even_and_costs_loss():
    x, model = images(), Curved()
    y, threat = model(x).argmax(1), ToneCurve(0.2, points=12)
    found = []
    for weight in (0.0, 0.2, 5.0):
        moved = AdamSearch(threat=threat, steps=30, smoothness_weight=weight, loss="margin").perturb(model, x, y)
        found.append((unevenness(x, moved), float(margin(model(moved), Untargeted(y)).sum())))
    uneven, losses = zip(*found, strict=True)
    assert uneven[0] > 1.2 * uneven[1] > uneven[2]
    assert losses[0] > losses[2]


def unevenness(x, moved):
    """How much neighbours in brightness differ in what was done to them."""
    order = x.flatten(1).argsort(dim=1)
    change = (moved - x).flatten(1).gather(1, order)
    return float(change.diff(dim=1).abs().sum())


def test_weights_of_parts_apply_to_their_own_part():
    x, model = images(), Curved()
    y = model(x).argmax(1)
    threat = Combined(ToneCurve(0.1, points=6), ToneCurve(0.1, points=9))

    def moves(weight):
        return AdamSearch(threat=threat, steps=8, smoothness_weight=weight).perturb(model, x, y)

    assert torch.equal(moves((0.5, 0.5)), moves(0.5))
    assert torch.equal(moves((0.0, 0.0)), moves(0.0))
    assert not torch.equal(moves((0.5, 0.0)), moves((0.0, 0.5)))


def test_samples_that_are_decided_cost_nothing_more_and_change_nothing_for_others():
    problem = Affine(shape=(3, 4, 4), classes=3)
    x, y = problem.inputs(6, dtype=torch.float64)
    radius = problem.distance(x, y, "linf")
    eps = radius * torch.tensor([0.5, 1.2, 0.5, 3.0, 1.05, 0.9]).double()
    model = problem.model(torch.float64)
    whole = AdamSearch(threat=Linf(eps), steps=25)(model, x, y)
    assert whole.success.tolist() == [False, True, False, True, True, False]
    assert whole.backwards[~whole.success].tolist() == [25] * 3
    assert int(whole.backwards[3]) < 10
    for i in range(6):
        alone = AdamSearch(threat=Linf(eps[i : i + 1]), steps=25)(model, x[i : i + 1], y[i : i + 1])
        assert torch.equal(alone.backwards, whole.backwards[i : i + 1])
        assert torch.allclose(alone.x_adv, whole.x_adv[i : i + 1], atol=1e-9)


def test_restarts_keep_the_better_run():
    x, model = images(), Curved()
    y = model(x).argmax(1)
    losses = [
        loss_at(model, AdamSearch(threat=L2(1.0), steps=3, random_start=True, restarts=n).perturb(model, x, y), y)
        for n in (1, 6)
    ]
    assert bool((losses[1] >= losses[0] - 1e-12).all())
    assert bool((losses[1] > losses[0] + 1e-6).any())


def loss_at(model, x, y):
    return nn.functional.cross_entropy(model(x), y, reduction="none")


def test_recoloradv_has_the_settings_of_the_paper():
    attack = ReColorAdv(threat=Recolor(0.06))
    assert isinstance(attack, AdamSearch)
    assert (attack.steps, attack.lr, attack.smoothness_weight, attack.loss) == (100, 1e-3, 0.05, "margin")
    assert not attack.random_start
    assert attack.threat.resolution == (16, 32, 32)


def test_bad_settings_are_refused_with_the_cure():
    for wrong, words in (
        ({"steps": 0}, "at least 1"),
        ({"lr": 0.0}, "positive"),
        ({"rel_lr": -1.0}, "positive"),
        ({"lr": 0.1, "rel_lr": 0.1}, "not both"),
        ({"smoothness_weight": -1.0}, "not negative"),
        ({"smoothness_weight": (1.0, 1.0)}, "2 weights for the 1 part of"),
        ({"restarts": 2}, "random_start"),
    ):
        with pytest.raises(SettingError, match=words):
            AdamSearch(threat=Linf(0.1), **wrong)
    for sparse in (L1(1.0), L0(2)):
        with pytest.raises(ThreatError, match="PGD or APGD"):
            AdamSearch(threat=sparse)
    with pytest.raises(ThreatError, match="needs a budget"):
        AdamSearch(threat=Linf())
