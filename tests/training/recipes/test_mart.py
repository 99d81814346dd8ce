"""MART against its formula."""

from __future__ import annotations

import copy

import pytest
import torch

import assay
from assay.attacks import PGD
from assay.errors import SettingError
from assay.training.recipes import MART
from assay.training.recipes.base import mode

ATTACK = PGD(threat=assay.Linf(0.1), steps=4, rel_step=0.25, start_noise=0.001)


def formula(model, b, x_adv, beta, stopped=False):
    p, q = model(b.x).softmax(1), model(x_adv).softmax(1)
    rows = range(len(b.y))
    others = torch.ones_like(q)
    others[rows, b.y] = 0
    boosted = -q[rows, b.y].log() - (1.0001 - (q * others).amax(1) + 1e-12).log()
    weight = 1.0000001 - p[rows, b.y]
    divergence = (p * (p / q).log()).sum(1)
    return (boosted + beta * divergence * (weight.detach() if stopped else weight)).sum() / len(b.y)


def test_loss_and_gradient_are_the_formula_s(net, batch, agree):
    b = batch()
    x_adv = b.x.flip(2)
    agree(MART(attack=ATTACK, beta=4.0), net(), b, {"x_adv": x_adv}, lambda model: formula(model, b, x_adv, 4.0))


def test_the_gradient_flows_through_the_weight(net, batch):
    b, model = batch(), net(dropout=0.0)
    x_adv = b.x.flip(2)

    def gradient(loss):
        return torch.autograd.grad(loss, model.head.weight)[0]

    found = gradient(MART(attack=ATTACK).loss(model, b, {"x_adv": x_adv}))
    torch.testing.assert_close(found, gradient(formula(model, b, x_adv, 5.0)))
    assert (found - gradient(formula(model, b, x_adv, 5.0, stopped=True))).abs().max() > 1e-3


def test_the_margin_leans_on_the_strongest_wrong_class(net, batch):
    b, model = batch(), net(dropout=0.0).eval()
    plain = torch.nn.functional.cross_entropy(model(b.x), b.y)
    boosted = MART(attack=ATTACK, beta=0.0).loss(model, b, {"x_adv": b.x})
    others = model(b.x).softmax(1).scatter(1, b.y[:, None], 0).amax(1)
    torch.testing.assert_close(boosted - plain, -torch.log(1.0001 - others).mean())


def test_the_search_maximises_cross_entropy_in_eval_mode_and_the_loss_is_two_passes_in_train_mode(net, batch):
    b, model = batch(), net()
    before = copy.deepcopy(dict(model.named_buffers()))
    views = MART(attack=ATTACK).prepare(model, b)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    with mode(model, train=False):
        wanted = ATTACK.perturb(model, b.x, b.y, seed=b.seed, index=b.index)
        losses = [torch.nn.functional.cross_entropy(model(x), b.y) for x in (b.x, views["x_adv"])]
    assert torch.equal(views["x_adv"], wanted)
    assert losses[1] > losses[0] + 0.1
    MART(attack=ATTACK).loss(model, b, views)
    assert model.norm.num_batches_tracked == before["norm.num_batches_tracked"] + 2


def test_certain_answers_give_finite_gradients(net, batch):
    model = net(dropout=0.0).float()
    with torch.no_grad():
        model.head.weight.mul_(1e4)
    b = batch(x=batch().x.float())
    loss = MART(attack=ATTACK).loss(model, b, {"x_adv": b.x.flip(3)})
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_settings_that_cannot_be_used():
    with pytest.raises(SettingError, match="beta of MART"):
        MART(attack=ATTACK, beta=-1.0)
