"""GradAlign against its formula."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import assay
from assay.attacks import FGSM, PGD
from assay.errors import SettingError
from assay.training.recipes import GradAlign

EPS = 0.1


def recipe(**settings):
    return GradAlign(attack=FGSM(threat=assay.Linf(EPS)), **settings)


@pytest.mark.parametrize("stop", [True, False])
def test_loss_and_gradient_are_the_formula_s(net, batch, agree, stop):
    b = batch()
    draw = torch.Generator().manual_seed(0)
    x_adv, near = (b.x + 0.1 * (torch.rand(b.x.shape, generator=draw).double() - 0.5) for _ in range(2))

    def gradient(model, x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(model(x), b.y), x, create_graph=True)[0].flatten(1)

    def formula(model):
        adversarial = F.cross_entropy(model(x_adv), b.y)  # all three passes in train mode, in this order
        here, there = gradient(model, b.x), gradient(model, near)
        here = here.detach() if stop else here
        return adversarial + 0.3 * (1 - F.cosine_similarity(here, there, dim=1, eps=0.0).mean())

    views = {"x_adv": x_adv, "x_near": near}
    agree(recipe(weight=0.3, stop=stop), net(), b, views, formula)
    with pytest.raises(AssertionError):
        agree(recipe(weight=0.3, stop=not stop), net(), b, views, formula)


def test_the_step_is_that_of_fgsm_in_train_mode(net, batch):
    b, model = batch(), net(dropout=0.0)
    before = int(model.norm.num_batches_tracked)
    found = recipe().prepare(model, b)["x_adv"]
    assert model.norm.num_batches_tracked == before + 1
    x = b.x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model(x), b.y), x)
    torch.testing.assert_close(found, b.x + EPS * grad.sign())
    recipe(train_mode=False).prepare(model, b)
    assert model.norm.num_batches_tracked == before + 2  # by the pass above alone


def test_random_moves_change_from_step_to_step(net, batch):
    model = net()
    first, second = (recipe().prepare(model, batch(seed=seed))["x_near"] for seed in (1, 2))
    assert (first - second).abs().max() > EPS / 2


def test_it_goes_with_a_random_start_too():
    attack = PGD(threat=assay.Linf(EPS), steps=1, rel_step=1.25)
    assert assay.grammar.recipe("GradAlign(attack=PGD(steps=1, rel_step=1.25))", "linf:0.1").attack == attack


def test_what_cannot_be_used_is_refused():
    with pytest.raises(SettingError, match="weight"):
        recipe(weight=-0.1)


def test_short_form():
    assert assay.grammar.recipe("grad-align", "linf:0.1", ["weight=0.5"]) == recipe(weight=0.5)
