"""GradAlign against its formula."""

from __future__ import annotations

from dataclasses import replace

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


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("threat", [assay.Linf(EPS), assay.L2(0.5), assay.Flow(0.5)])
def test_the_step_and_the_penalty_share_one_gradient(net, batch, passes, threat, stop):
    """Step and penalty, found together, are those of the attack and of the formula, found one by one."""
    b, model, other = batch(), net(dropout=0.0), net(dropout=0.0)
    own = GradAlign(attack=FGSM(threat=threat), stop=stop)
    with passes(model) as calls:
        views = own.prepare(model, b)
        loss = own.loss(model, b, views)
    assert len(calls) == 3  # at x, x' and x + u
    apart = own.prepare(other, replace(b, same_weights=False))
    assert set(views) - set(apart) == {"slope"}
    for name, view in apart.items():
        torch.testing.assert_close(views[name], view, rtol=0, atol=1e-9)
    with passes(other) as calls:
        wanted = own.loss(other, b, apart)
    assert len(calls) == 3  # and one more in `prepare`
    torch.testing.assert_close(loss, wanted, rtol=1e-8, atol=1e-10)
    grads = (torch.autograd.grad(each, list(net.parameters())) for each, net in ((loss, model), (wanted, other)))
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    ("attack", "settings", "smoothing"),
    [
        (FGSM(threat=assay.Linf(EPS), loss="margin"), {}, 0.0),
        (PGD(threat=assay.Linf(EPS), steps=1, look_ahead=False), {}, 0.0),  # elsewhere, from a random start
        (FGSM(threat=assay.Linf(EPS)), {"train_mode": False}, 0.0),
        (FGSM(threat=assay.Linf(EPS)), {}, 0.1),  # attacks work against the targets as they are
    ],
)
def test_another_gradient_is_not_shared(net, batch, attack, settings, smoothing):
    b = batch(label_smoothing=smoothing)
    views = GradAlign(attack=attack, **settings).prepare(net(dropout=0.0), b)
    assert set(views) == {"x_adv", "x_near"}
    expected = b.perturb(net(dropout=0.0), attack, train_mode=settings.get("train_mode", True))
    assert torch.equal(views["x_adv"], expected)


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
