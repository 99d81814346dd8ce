"""CURE against its formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import assay
from assay.errors import GrammarError, SettingError, ThreatError
from assay.training.recipes import CURE

EPS = 0.1


def gradients(model, x, y):
    """Each sample's own gradient, one after the other."""
    found = []
    for one, label in zip(x, y, strict=True):
        one = one[None].detach().requires_grad_()
        found.append(torch.autograd.grad(F.cross_entropy(model(one), label[None]), one, create_graph=True)[0])
    return torch.cat(found)


@pytest.mark.parametrize("squared", [True, False])
def test_loss_and_gradient_are_the_formula_s(net, batch, agree, squared):
    b = batch()

    def formula(model):
        clean = F.cross_entropy(model(b.x), b.y)  # in train mode; the penalty is taken in eval mode
        model.eval()
        here = gradients(model, b.x, b.y)
        z = here.detach().sign() / here.detach().sign().flatten(1).norm(dim=1)[:, None, None, None]
        there = gradients(model, b.x + 0.7 * EPS * 36**0.5 * z, b.y)
        norm = (there - here).flatten(1).norm(dim=1)
        return clean + 5 * (norm**2 if squared else norm).mean()

    agree(CURE(threat=assay.Linf(EPS), weight=5.0, h=0.7, squared=squared), net(), b, {}, formula)


def test_in_train_mode_batch_norm_uses_the_batch_in_the_penalty(net, batch, agree):
    b = batch()

    def formula(model):
        clean = F.cross_entropy(model(b.x), b.y)
        x = b.x.clone().requires_grad_()
        (here,) = torch.autograd.grad(F.cross_entropy(model(x), b.y, reduction="sum"), x, create_graph=True)
        moved = (b.x + EPS * here.sign()).detach().requires_grad_()
        (there,) = torch.autograd.grad(F.cross_entropy(model(moved), b.y, reduction="sum"), moved, create_graph=True)
        return clean + 4 * (there - here).square().sum() / len(b.x)

    agree(CURE(threat=assay.Linf(EPS), train_mode=True), net(dropout=0.0), b, {}, formula)


def test_a_gradient_flows_through_both_gradients(net, batch):
    b, model = batch(), net().eval()
    recipe = CURE(threat=assay.Linf(EPS), weight=1.0)
    here = gradients(model, b.x, b.y)
    there = gradients(model, b.x + EPS * here.sign().detach(), b.y)
    found = torch.autograd.grad(recipe.loss(model, b, {}) - b.cross_entropy(model(b.x)), model.conv.weight)[0]
    for first, second, same in ((here, there, True), (here.detach(), there, False), (here, there.detach(), False)):
        loss = (second - first).square().sum() / len(b.x)
        wanted = torch.autograd.grad(loss, model.conv.weight, retain_graph=True)[0]
        assert bool((found - wanted).abs().max() < 1e-10) == same


def test_mixed_and_smoothed_targets_count(net, batch, agree):
    b = batch(targets=torch.rand(6, 5, dtype=torch.float64).softmax(1), label_smoothing=0.2)
    soft = 0.8 * b.targets + 0.2 / 5

    def formula(model):
        model.eval()
        x = b.x.clone().requires_grad_()
        loss = -(soft * model(x).log_softmax(1)).sum()
        (here,) = torch.autograd.grad(loss, x, create_graph=True)
        moved = (b.x + EPS * here.sign()).detach().requires_grad_()
        there = torch.autograd.grad(-(soft * model(moved).log_softmax(1)).sum(), moved, create_graph=True)[0]
        return loss / len(x) + 4 * (there - here).square().sum() / len(x)

    agree(CURE(threat=assay.Linf(EPS)), net().eval(), b, {}, formula)


def test_flags_are_put_back(net, batch):
    model, b = net(), batch()
    model.norm.eval()
    CURE(threat=assay.Linf(EPS), train_mode=True).loss(model, b, {})
    assert model.training
    assert not model.norm.training


def test_what_cannot_be_used_is_refused():
    for h in (0.0, (), (1.0, -1.0), float("inf")):
        with pytest.raises(SettingError, match="h of CURE"):
            CURE(threat=assay.Linf(EPS), h=h)
    with pytest.raises(SettingError, match="weight"):
        CURE(threat=assay.Linf(EPS), weight=-1.0)
    with pytest.raises(ThreatError, match="Linf, L2 or L1"):
        CURE(threat=assay.Flow(0.1))
    with pytest.raises(ThreatError, match="budget"):
        CURE(threat=assay.Linf())
    with pytest.raises(GrammarError, match="needs threat"):
        assay.grammar.recipe("cure")


def test_short_form_and_list_of_steps():
    assert assay.grammar.recipe("cure", "linf:0.1", ["h=[0.5, 1]"]) == CURE(threat=assay.Linf(0.1), h=(0.5, 1.0))
    assert assay.grammar.recipe("cure", "linf:0.1").threat == assay.Linf(0.1)
