"""LLR against its formula and a search written out."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import assay
from assay.errors import SettingError, ThreatError
from assay.training.recipes import LLR

EPS = 0.1


def losses(model, x, y):
    return torch.stack([F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]) for i in range(len(x))])


def parts(model, x, y, moved):
    """The loss at x, its distance from linear and what its linear part does; each sample on its own."""
    x = x.clone().requires_grad_()
    value = losses(model, x, y)
    (grad,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    linear = ((moved - x.detach()) * grad).sum((1, 2, 3))
    return (losses(model, moved, y) - value - linear).abs(), linear.abs()


def test_loss_and_gradient_are_the_formula_s(net, batch, agree):
    b = batch()
    x_adv = (b.x + 0.07 * torch.randn_like(b.x).sign()).clamp(0, 1)

    def formula(model):
        model.eval()
        far, linear = parts(model, b.x, b.y, x_adv)
        model.train()  # in which the clean pass is, after the penalties
        return F.cross_entropy(model(b.x), b.y) + 4 * far.mean() + 3 * linear.mean()

    agree(LLR(threat=assay.Linf(EPS)), net(), b, {"x_adv": x_adv}, formula)


@pytest.mark.parametrize("train_mode", [False, True])
def test_the_loss_goes_on_with_the_slopes_of_the_search(net, batch, passes, train_mode):
    b, recipe = batch(), LLR(threat=assay.Linf(EPS), steps=2, train_mode=train_mode)
    found = []
    for same in (True, False):
        each, model = replace(b, same_weights=same), net(dropout=0.0)
        views = recipe.prepare(model, each)
        with passes(model) as calls:
            loss = recipe.loss(model, each, views)
        assert len(calls) == (2 if same else 3)  # at x, and at x + d; else at x for the slopes, too
        found.append([loss, *torch.autograd.grad(loss, list(model.parameters()))])
        assert set(views) == ({"x_adv", "value", "slope"} if same else {"x_adv"})
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-11)
    assert found[0][1].abs().max() > 1e-3


def test_in_train_mode_the_penalties_use_the_batch(net, batch, agree):
    b = batch()
    x_adv = b.x + 0.05

    def formula(model):
        x = b.x.clone().requires_grad_()
        value = F.cross_entropy(model(x), b.y, reduction="none")
        (grad,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        linear = 0.05 * grad.sum((1, 2, 3))
        far = (F.cross_entropy(model(x_adv), b.y, reduction="none") - value - linear).abs()
        return F.cross_entropy(model(b.x), b.y) + (0.5 * far + 2 * linear.abs()).mean()

    recipe = LLR(threat=assay.Linf(EPS), weight=0.5, slope_weight=2.0, train_mode=True)
    agree(recipe, net(dropout=0.0), b, {"x_adv": x_adv}, formula)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_search_climbs_gamma_from_a_random_start(net, batch, steps):
    b, model = batch(), net()
    recipe = LLR(threat=assay.Linf(EPS), steps=steps, rel_step=0.2)
    other = copy.deepcopy(model).eval()
    buffers = copy.deepcopy(list(model.buffers()))
    found = recipe.prepare(model, b)["x_adv"]
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(one, before) for one, before in zip(model.buffers(), buffers, strict=True))
    assert model.training

    start = LLR(threat=assay.Linf(EPS), steps=1, rel_step=1e-9).prepare(model, b)["x_adv"]
    assert EPS / 2 < (start - b.x).abs().max() <= EPS
    for _ in range(steps):
        start.requires_grad_()
        (grad,) = torch.autograd.grad(parts(other, b.x, b.y, start)[0].sum(), start)
        start = b.x + (start.detach() + 0.2 * EPS * grad.sign() - b.x).clamp(-EPS, EPS)
    torch.testing.assert_close(found, start, rtol=0, atol=1e-8)
    once = LLR(threat=assay.Linf(EPS), steps=1, rel_step=1e-9).prepare(model, b)["x_adv"]
    assert bool((parts(other, b.x, b.y, found)[0] > parts(other, b.x, b.y, once)[0]).all())


@pytest.mark.parametrize("threat", [assay.L2(0.5), assay.L1(2.0), assay.Flow(0.5)])
def test_any_threat_with_a_budget_will_do(net, batch, threat):
    b, model = batch(), net()
    recipe = LLR(threat=threat)
    views = recipe.prepare(model, b)
    assert (views["x_adv"] != b.x).any()
    grads = torch.autograd.grad(recipe.loss(model, b, views), list(model.parameters()))
    assert all(grad.isfinite().all() for grad in grads)


def test_a_sample_s_search_is_its_own(net, batch):
    b, model = batch(), net()
    recipe, rows = LLR(threat=assay.Linf(EPS)), torch.tensor([4, 1])
    part = batch(x=b.x[rows], y=b.y[rows], index=b.index[rows])
    found, whole = recipe.prepare(model, part)["x_adv"], recipe.prepare(model, b)["x_adv"]
    torch.testing.assert_close(found, whole[rows], rtol=0, atol=1e-12)


def test_what_cannot_be_used_is_refused():
    for name, wrong in (("weight", -1.0), ("slope_weight", -1.0), ("rel_step", 0.0), ("steps", 0)):
        with pytest.raises(SettingError, match=name):
            LLR(threat=assay.Linf(EPS), **{name: wrong})
    with pytest.raises(ThreatError, match="budget"):
        LLR(threat=assay.Linf())


def test_short_form():
    assert assay.grammar.recipe("llr", "l2:0.5", ["weight=2"]) == LLR(threat=assay.L2(0.5), weight=2.0)
