"""IG-NORM and IG-SUM-NORM against their formulas."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import assay
from assay.errors import SettingError, ThreatError
from assay.training.recipes import IGNorm, IGSumNorm

EPS = 0.1


def norms(model, x, moved, y, segments):
    """The L1 norm of each sample's integrated gradients, point by point."""
    found = []
    for one, other, label in zip(x, moved, y, strict=True):
        total = torch.zeros_like(one)
        for k in range(1, segments + 1):
            point = (one + k / segments * (other - one))[None].detach().requires_grad_()
            total = (
                total + torch.autograd.grad(F.cross_entropy(model(point), label[None]), point, create_graph=True)[0][0]
            )
        found.append(((other - one) * total / segments).abs().sum())
    return torch.stack(found)


def moved_by(batch):
    return (batch.x + EPS * torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(2)).sign()).double()


def test_ig_norm_is_its_formula(net, batch, agree):
    b = batch()
    moved = moved_by(b)

    def formula(model):
        clean = F.cross_entropy(model(b.x), b.y)  # in train mode; the norm is taken in eval mode
        model.eval()
        return clean + 0.7 * norms(model, b.x, moved, b.y, 4).mean()

    agree(IGNorm(threat=assay.Linf(EPS), weight=0.7, segments=4), net(), b, {"x_adv": moved}, formula)


def test_ig_sum_norm_is_its_formula(net, batch, agree):
    b = batch()
    moved = moved_by(b)

    def formula(model):
        adversarial = F.cross_entropy(model(moved), b.y)
        model.eval()
        return adversarial + 0.3 * norms(model, b.x, moved, b.y, 4).mean()

    agree(IGSumNorm(threat=assay.Linf(EPS), weight=0.3, segments=4), net(), b, {"x_adv": moved}, formula)


@pytest.mark.parametrize(("recipe", "share"), [(IGNorm, 0.9), (IGSumNorm, 0.99)])
def test_the_search_finds_the_largest_norm_of_a_linear_model(batch, recipe, share):
    """Every coordinate has to move against the label; by the norm alone, one may stay at its other end."""
    b = batch(y=torch.tensor([0, 1, 0, 1, 1, 0]))
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(36, 2)).double()
    x_adv = recipe(threat=assay.Linf(EPS), steps=20, search_segments=20).prepare(model, b)["x_adv"]
    weight = model[1].weight
    worst = b.x + EPS * (weight[1 - b.y] - weight[b.y]).sign().reshape(b.x.shape)
    found, best = (float(norms(model, b.x, moved, b.y, 20).detach().mean()) for moved in (x_adv, worst))
    assert share * best < found <= best * (1 + 1e-9)


def test_with_one_sign_the_norm_is_the_growth_of_the_loss(net, batch):
    b, model = batch(1), net(dropout=0.0).eval()
    x = b.x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model(x), b.y), x)
    moved = b.x + 1e-4 * grad.sign()
    before, after = (F.cross_entropy(model(each), b.y) for each in (b.x, moved))
    penalty = IGNorm(threat=assay.Linf(EPS), weight=1.0).loss(model, b, {"x_adv": moved}) - before
    assert float(penalty.detach()) == pytest.approx(float((after - before).detach()), rel=1e-3)


def test_mixed_targets_count(net, batch):
    soft = torch.rand(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).softmax(1)
    plain, mixed = batch(), batch(targets=soft)
    recipe, model = IGSumNorm(threat=assay.Linf(EPS), segments=3), net(dropout=0.0).eval()
    losses = [recipe.loss(model, each, {"x_adv": moved_by(each)}) for each in (plain, mixed)]
    assert abs(float((losses[0] - losses[1]).detach())) > 1e-3
    hard = batch(targets=F.one_hot(plain.y, 5).double())
    torch.testing.assert_close(recipe.loss(model, hard, {"x_adv": moved_by(hard)}), losses[0])


@pytest.mark.parametrize("recipe", [IGNorm, IGSumNorm])
def test_what_cannot_be_used_is_refused(recipe):
    for settings in ({"segments": 0}, {"search_segments": 0}, {"steps": 0}, {"rel_step": 0.0}, {"weight": -1.0}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            recipe(threat=assay.Linf(EPS), **settings)
    with pytest.raises(ThreatError, match="budget"):
        recipe(threat=assay.Linf())
