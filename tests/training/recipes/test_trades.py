"""TRADES against its formula and a search written out."""

from __future__ import annotations

import copy

import pytest
import torch

import assay
from assay.attacks import PGD
from assay.errors import SettingError, ThreatError
from assay.rng import Keyed
from assay.training.recipes import TRADES

EPS = 0.1


def recipe(threat=None, **settings):
    return TRADES(attack=PGD(threat=threat or assay.Linf(EPS), steps=4, rel_step=0.25, start_noise=0.001), **settings)


def divergence(p, q):
    return (p * (p / q).log()).sum(dim=1)


def cross_entropy(p, y):
    return -p[range(len(y)), y].log().mean()


def test_loss_and_gradient_are_the_formula_s(net, batch, agree):
    b = batch()
    x_adv = (b.x + 0.07 * torch.randn_like(b.x).sign()).clamp(0, 1)

    def formula(model):
        p, q = model(b.x).softmax(1), model(x_adv).softmax(1)  # the clean pass comes first
        return cross_entropy(p, b.y) + 3 * divergence(p, q).sum() / len(b.x)

    agree(recipe(beta=3.0), net(), b, {"x_adv": x_adv}, formula)


def test_the_gradient_flows_through_the_clean_answer_too(net, batch):
    b, model = batch(), net(dropout=0.0)
    x_adv = b.x.flip(3)

    def gradient(stopped):
        p, q = model(b.x).softmax(1), model(x_adv).softmax(1)
        loss = cross_entropy(p, b.y) + 6 * divergence(p.detach() if stopped else p, q).mean()
        return torch.autograd.grad(loss, model.head.weight)[0]

    found = torch.autograd.grad(recipe().loss(model, b, {"x_adv": x_adv}), model.head.weight)[0]
    torch.testing.assert_close(found, gradient(stopped=False))
    assert (found - gradient(stopped=True)).abs().max() > 1e-3


def test_clean_and_moved_inputs_are_two_passes_in_train_mode_after_a_search_in_eval_mode(net, batch):
    b, model = batch(), net()
    before = copy.deepcopy(dict(model.named_buffers()))
    views = recipe().prepare(model, b)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    recipe().loss(model, b, views)
    assert model.norm.num_batches_tracked == before["norm.num_batches_tracked"] + 2


def test_the_search_is_that_of_the_paper(net, batch):
    b, model = batch(), net()
    other = copy.deepcopy(model).eval()
    noise = Keyed(b.seed, b.index, dtype=torch.float64).normal(1, 6, 6)
    x_adv = b.x + 0.001 * noise
    clean = other(b.x).softmax(1).detach()
    for _ in range(4):
        x_adv.requires_grad_()
        (grad,) = torch.autograd.grad(divergence(clean, other(x_adv).softmax(1)).sum(), x_adv)
        x_adv = x_adv.detach() + 0.025 * grad.sign()
        x_adv = torch.minimum(torch.maximum(x_adv, b.x - EPS), b.x + EPS).clamp(0, 1)
    found = recipe().prepare(model, b)["x_adv"]
    torch.testing.assert_close(found, x_adv, rtol=0, atol=1e-12)
    assert not found.requires_grad


@pytest.mark.parametrize("threat", [assay.Linf(0.1), assay.L2(0.8), assay.L1(6)])
def test_the_search_raises_the_divergence_above_that_of_random_moves(net, batch, threat):
    b, model = batch(), net()
    found = recipe(threat).prepare(model, b)["x_adv"]
    assert (threat.size(b.x, found - b.x) <= threat.limit(b.x)).all()
    rng = Keyed(0, b.index, dtype=torch.float64)
    model.eval()
    clean = model(b.x).softmax(1)
    random = [divergence(clean, model(b.x + threat.start(b.x, rng)).softmax(1)) for _ in range(20)]
    assert (divergence(clean, model(found).softmax(1)) > torch.stack(random).amax(0)).all()


def test_probabilities_of_zero_give_finite_gradients(net, batch):
    b, model = batch(), net(dropout=0.0).float()
    with torch.no_grad():
        model.head.weight.mul_(1e4)
    b = batch(x=b.x.float())
    loss = recipe().loss(model, b, {"x_adv": b.x.flip(3)})
    loss.backward()
    assert (model(b.x).softmax(1) == 0).any()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_smoothed_and_mixed_targets_enter_the_clean_term_alone(net, batch):
    targets = torch.rand(6, 5, dtype=torch.float64).softmax(1)
    model, b = net(dropout=0.0).eval(), batch(targets=targets, label_smoothing=0.1)
    found = recipe(beta=0.0).loss(model, b, {"x_adv": b.x})
    wanted = -((0.9 * targets + 0.1 / 5) * model(b.x).log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(found, wanted)


def test_settings_that_cannot_be_used():
    with pytest.raises(SettingError, match="beta of TRADES"):
        recipe(beta=-1.0)
    with pytest.raises(ThreatError, match="needs a budget"):
        recipe(assay.Linf())


def test_the_short_form_has_the_paper_s_settings():
    found = assay.grammar.recipe("trades", "linf:0.031", ["beta=1"])
    attack = PGD(threat=assay.Linf(0.031), steps=10, rel_step=7 / 31, start_noise=0.001)
    assert found == TRADES(attack=attack, beta=1.0)
