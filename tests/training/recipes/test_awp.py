"""Adversarial weight perturbation: where the weights are while the step is taken, and after it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

import assay
from assay.attacks import PGD
from assay.errors import SettingError
from assay.training.recipes import AWP, TRADES, AdversarialTraining, FreeAT, Standard

ATTACK = PGD(threat=assay.Linf(0.1), steps=2, rel_step=0.5)
INNER = AdversarialTraining(attack=ATTACK)
MOVED = ("conv.weight", "head.weight")  # batch norm's weight has one dimension


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_one_step_is_that_of_the_paper(net, batch):
    """The gradient at w + v, the decay of w + v, and the same v taken back."""
    b, model = batch(), net(dropout=0.0)
    other, recipe = copy.deepcopy(model), AWP(recipe=INNER, gamma=0.02)
    start = weights(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.3)
    views = recipe.prepare(model, b)
    with recipe.around(model, b, views):
        recipe.loss(model, b, views).backward()
        recipe.after(model, b, views)
        optimizer.step()

    def gradients():
        loss = F.cross_entropy(other(views["x_adv"]), b.y)
        return dict(zip(start, torch.autograd.grad(loss, list(other.parameters())), strict=True))

    buffers = copy.deepcopy(dict(other.named_buffers()))
    first = gradients()
    other.load_state_dict({**other.state_dict(), **buffers})
    v = {name: torch.zeros_like(p) for name, p in start.items()}
    for name in MOVED:
        v[name] = 0.02 * start[name].norm() * first[name] / first[name].norm()
    with torch.no_grad():
        for name, p in other.named_parameters():
            p += v[name]
    second = gradients()
    for name, p in model.named_parameters():
        wanted = start[name] - 0.1 * (second[name] + 0.3 * (start[name] + v[name]))
        torch.testing.assert_close(p, wanted, rtol=1e-10, atol=1e-13)
    for found, wanted in zip(model.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(found, wanted)  # one pass, that of the loss


def test_inside_each_layer_has_moved_by_gamma_of_its_length_and_the_loss_is_higher(net, batch):
    b, model = batch(), net(dropout=0.0)
    recipe = AWP(recipe=INNER, gamma=0.01)
    start, views = weights(model), recipe.prepare(model, b)
    flat = float(recipe.loss(model, b, views).detach())
    with recipe.around(model, b, views):
        for name, p in model.named_parameters():
            length = 0.01 * start[name].norm() if name in MOVED else torch.zeros(())
            torch.testing.assert_close((p - start[name]).norm(), length.double())
        assert float(recipe.loss(model, b, views).detach()) > flat + 1e-3
        assert all(p.grad is None for p in model.parameters())
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), start[name], rtol=0, atol=1e-15)


def test_the_search_for_v_leaves_gradients_flags_and_statistics_alone(net, batch):
    b, model = batch(), net()
    model.norm.eval()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    before, flags = copy.deepcopy(dict(model.named_buffers())), [m.training for m in model.modules()]
    with AWP(recipe=INNER).around(model, b, {"x_adv": b.x}):
        assert all(torch.equal(p.grad, torch.ones_like(p)) for p in model.parameters())
        assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
        assert [m.training for m in model.modules()] == flags


def test_v_is_taken_in_train_mode(net, batch):
    b, model = batch(), net(dropout=0.0)
    other, start = copy.deepcopy(model), weights(model)
    (grad,) = torch.autograd.grad(F.cross_entropy(other(b.x), b.y), other.head.weight)
    with AWP(recipe=INNER, gamma=0.05).around(model, b, {"x_adv": b.x}):
        v = model.head.weight.detach() - start["head.weight"]
    torch.testing.assert_close(v / v.norm(), grad / grad.norm(), rtol=1e-9, atol=1e-12)


def test_it_goes_around_any_loss(net, batch):
    """Around TRADES the move is along the gradient of the whole loss."""
    b, model = batch(), net(dropout=0.0)
    inner = TRADES(attack=ATTACK)
    views, start = inner.prepare(model, b), weights(model)
    grad = torch.autograd.grad(inner.loss(copy_of := copy.deepcopy(model), b, views), copy_of.conv.weight)[0]
    with AWP(recipe=inner).around(model, b, views):
        v = model.conv.weight.detach() - start["conv.weight"]
    torch.testing.assert_close(v, 0.01 * start["conv.weight"].norm() * grad / grad.norm(), rtol=1e-9, atol=1e-12)


def test_nothing_moves_before_the_warm_up_is_over(net, batch):
    model, recipe = net(), AWP(recipe=INNER, warmup=2.0)
    start = weights(model)
    for epoch, moves in ((0.0, False), (1.99, False), (2.0, True), (7.5, True)):
        b = batch(epoch=epoch)
        with recipe.around(model, b, {"x_adv": b.x}):
            assert torch.equal(model.head.weight, start["head.weight"]) is not moves
            assert torch.allclose(model.head.weight, start["head.weight"], atol=0.5)


def test_weights_come_back_when_the_step_fails(net, batch):
    b, model = batch(), net()
    start = weights(model)
    with pytest.raises(KeyError), AWP(recipe=INNER, gamma=0.5).around(model, b, {"x_adv": b.x}):
        raise KeyError
    torch.testing.assert_close(weights(model), start, rtol=0, atol=1e-14)


@pytest.mark.parametrize("factor", [0.0, float("nan"), float("inf")])
def test_a_gradient_that_is_zero_or_not_finite_moves_nothing(net, batch, factor):
    model, start = net(), None

    def broken(grads):
        for grad in grads:
            grad.mul_(factor)

    b = batch(average=broken)
    start = weights(model)
    with AWP(recipe=INNER).around(model, b, {"x_adv": b.x}):
        assert all(torch.equal(p, start[name]) for name, p in model.named_parameters())


def test_the_gradient_is_averaged_over_the_processes(net, batch):
    """Two processes that hold half of the data each move to the same place."""
    model = net(dropout=0.0).eval()
    start, places = weights(model), []
    halves = [batch(x=batch().x[part], y=batch().y[part]) for part in (slice(0, 3), slice(3, 6))]
    losses = [F.cross_entropy(model(b.x), b.y) for b in halves]
    both = [torch.autograd.grad(loss, [model.conv.weight, model.head.weight]) for loss in losses]

    def mean(grads):
        for grad, *pair in zip(grads, *both, strict=True):
            grad.copy_((pair[0] + pair[1]) / 2)

    for b in halves:
        b = batch(x=b.x, y=b.y, average=mean)
        with AWP(recipe=INNER).around(model, b, {"x_adv": b.x}):
            places.append(weights(model))
    assert torch.equal(places[0]["conv.weight"], places[1]["conv.weight"])
    whole = (both[0][1] + both[1][1]) / 2
    v = 0.01 * start["head.weight"].norm() * whole / whole.norm()
    torch.testing.assert_close(places[0]["head.weight"], start["head.weight"] + v)


def test_the_moved_weights_count_under_autocast(net, batch):
    """Autocast keeps copies of the weights, which have to follow."""
    model = net(dropout=0.0).float()
    b = batch(x=batch().x.float())
    recipe = AWP(recipe=Standard(), gamma=0.3)
    with torch.autocast("cpu", torch.bfloat16):
        flat = float(recipe.loss(model, b, {}).detach())
        with recipe.around(model, b, {}):
            moved = float(recipe.loss(model, b, {}).detach())
        again = float(recipe.loss(model, b, {}).detach())
    assert moved > flat + 0.1
    assert again == pytest.approx(flat, abs=0.02)


def test_around_free_training_the_perturbation_follows_the_gradient_at_the_moved_weights(net, batch):
    b, model = batch(), net(dropout=0.0)
    recipe = AWP(recipe=FreeAT(threat=assay.Linf(0.1), replays=3), gamma=0.2)
    assert recipe.replays == 3
    views = recipe.prepare(model, b)
    with recipe.around(model, b, views):
        other = copy.deepcopy(model)
        recipe.loss(model, b, views).backward()
        recipe.after(model, b, views)
    x = b.x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(other(x), b.y), x)
    torch.testing.assert_close(views["delta"].grad, grad)
    assert torch.equal(b.memory["delta"], 0.1 * grad.sign())


def test_parameters_of_other_names_and_frozen_ones_are_left_out(net, batch):
    b, model = batch(), net()
    model.conv.weight.requires_grad_(False)
    start = weights(model)
    with AWP(recipe=INNER).around(model, b, {"x_adv": b.x}):
        assert torch.equal(model.conv.weight, start["conv.weight"])
        assert not torch.equal(model.head.weight, start["head.weight"])
    model.head.register_parameter("table", torch.nn.Parameter(model.head.weight.detach().clone()))
    model.head.forward = lambda x: x @ model.head.table.T
    start = weights(model)
    with AWP(recipe=INNER).around(model, b, {"x_adv": b.x}):
        assert all(torch.equal(p, start[name]) for name, p in model.named_parameters())


def test_it_is_what_the_recipe_inside_is():
    recipe = assay.grammar.recipe("AWP(recipe=TRADES(), gamma=0.005, warmup=10)", "l2:0.5")
    assert recipe.against == assay.L2(0.5)
    assert recipe.recipe == assay.grammar.recipe("trades", "l2:0.5")
    assert (recipe.replays, recipe.teacher, recipe.first()) == (1, None, None)
    assert recipe.with_teacher(torch.nn.Identity()) == recipe
    assert AWP(recipe=Standard()).against is None


def test_the_grammar_hands_threat_and_settings_to_the_recipe_inside():
    plain = assay.grammar.recipe("awp", "linf:0.1")
    assert plain == AWP(recipe=assay.grammar.recipe("pgdat", "linf:0.1"))
    assert assay.grammar.recipe("awp", "linf:0.1", ["recipe.steps=3"]).recipe.attack.steps == 3
    found = assay.grammar.recipe("awp", "linf:0.1", ["recipe=trades", "gamma=0.005"])
    assert found == AWP(recipe=assay.grammar.recipe("trades", "linf:0.1"), gamma=0.005)
    assert assay.grammar.parse(repr(found)) == found
    with pytest.raises(assay.errors.GrammarError, match="the inner recipe is written out"):
        assay.grammar.recipe("AWP(recipe=TRADES())", "linf:0.1", ["recipe.beta=3"])
    with pytest.raises(assay.errors.GrammarError, match="PGDAT needs threat"):
        assay.grammar.recipe("awp")


def test_settings_that_cannot_be_used():
    for settings, says in (({"gamma": -1.0}, "gamma of AWP"), ({"warmup": -1.0}, "warmup of AWP")):
        with pytest.raises(SettingError, match=says):
            AWP(recipe=INNER, **settings)
    with pytest.raises(SettingError, match="what AWP goes around"):
        AWP(recipe=ATTACK)
