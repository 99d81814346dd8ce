"""Free adversarial training against the loop written out."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

import assay
from assay.errors import ModelError, SettingError, ThreatError
from assay.training.recipes import FreeAT

EPS = 0.1


def trained(recipe, model, batches):
    """The recipe's own steps by SGD; what it remembers after each."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    memory, seen = {}, []
    for b in batches:
        b.memory.clear()
        b.memory.update(memory)
        for _ in range(recipe.replays):
            views = recipe.prepare(model, b)
            optimizer.zero_grad()
            recipe.loss(model, b, views).backward()
            recipe.after(model, b, views)
            optimizer.step()
            seen.append(b.memory["delta"])
        memory = dict(b.memory)
    return seen


def test_weights_and_perturbation_are_those_of_the_loop_written_out(net, batch):
    batches = [batch(), batch(x=batch().x.flip(3), y=batch().y.flip(0))]
    model = net(dropout=0.0)
    other = copy.deepcopy(model)
    seen = trained(FreeAT(threat=assay.Linf(EPS), replays=3), model, batches)
    delta, expected = torch.zeros_like(batches[0].x), []
    for b in batches:
        for _ in range(3):
            delta.requires_grad_()
            grads = torch.autograd.grad(F.cross_entropy(other(b.x + delta), b.y), [delta, *other.parameters()])
            delta = (delta.detach() + EPS * grads[0].sign()).clamp(-EPS, EPS)
            expected.append(delta)
            with torch.no_grad():
                for p, grad in zip(other.parameters(), grads[1:], strict=True):
                    p -= 0.05 * grad
    for found, wanted in zip(seen, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    for found, wanted in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)
    for found, wanted in zip(model.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(found, wanted)
    assert any(not torch.equal(a, b) for a, b in zip(seen[1:], seen, strict=False))


def test_each_replay_is_one_pass_in_train_mode(net, batch):
    model = net()
    before = int(model.norm.num_batches_tracked)
    trained(FreeAT(threat=assay.Linf(EPS), replays=4), model, [batch()])
    assert model.norm.num_batches_tracked == before + 4


@pytest.mark.parametrize(("threat", "norm"), [(assay.Linf(0.1), float("inf")), (assay.L2(0.5), 2), (assay.L1(3.0), 1)])
def test_the_perturbation_stays_in_the_ball_and_is_carried_on(net, batch, threat, norm):
    recipe, model = FreeAT(threat=threat, replays=3, rel_step=0.75), net()
    dark = batch(x=torch.zeros_like(batch().x))  # the bounds forbid half of the moves
    for delta in trained(recipe, model, [batch(), dark, batch()]):
        sizes = delta.flatten(1).norm(p=norm, dim=1)
        assert (sizes <= threat.eps * (1 + 1e-12)).all()
        assert (sizes > 0.1 * threat.eps).all()
    b = batch(memory={"delta": delta})
    views = recipe.prepare(model, b)
    assert torch.equal(views["delta"], delta)
    assert torch.equal(views["x_adv"], (b.x + delta).clamp(0, 1))
    below = recipe.prepare(model, batch(x=dark.x, memory={"delta": delta}))
    assert below["x_adv"].min() == 0
    assert below["delta"].min() < 0


def test_what_the_bounds_of_one_image_forbid_is_kept_for_the_next(net, batch):
    (delta,) = trained(FreeAT(threat=assay.Linf(EPS), replays=1), net(), [batch(x=torch.zeros_like(batch().x))])
    assert 0.2 < (delta == -EPS).double().mean() < 0.8


def test_a_smaller_batch_moves_its_own_rows_alone_and_a_larger_one_begins_new_rows_at_zero(net, batch):
    recipe, model = FreeAT(threat=assay.Linf(EPS), replays=1), net()
    whole, part = trained(recipe, model, [batch(), batch(x=batch().x[:2], y=batch().y[:2])])
    assert torch.equal(part[2:], whole[2:])
    assert len(part) == 6
    assert not torch.equal(part[:2], whole[:2])
    more = recipe.prepare(model, batch(8, memory={"delta": whole}))["delta"]
    assert torch.equal(more[:6], whole)
    assert not more[6:].any()


def test_weights_get_the_gradient_of_cross_entropy_at_the_carried_perturbation(net, batch, agree):
    delta = torch.empty(6, 1, 6, 6, dtype=torch.float64).uniform_(-EPS, EPS)
    b = batch(memory={"delta": delta})
    model, recipe = net(), FreeAT(threat=assay.Linf(EPS))
    agree(recipe, model, b, recipe.prepare(model, b), lambda other: F.cross_entropy(other(b.x + delta), b.y))


def test_the_budget_warms_up(net, batch):
    (delta,) = trained(FreeAT(threat=assay.Linf(EPS), replays=1), net(), [batch(eps_share=0.25)])
    torch.testing.assert_close(delta.abs(), torch.full_like(delta, 0.025))


def test_a_network_that_does_not_depend_on_its_inputs_is_an_error(net, batch):
    recipe, model, b = FreeAT(threat=assay.Linf(EPS)), net(), batch()
    with pytest.raises(ModelError, match="no gradient"):
        recipe.after(model, b, recipe.prepare(model, b))


def test_settings_that_cannot_be_used():
    with pytest.raises(SettingError, match="replays"):
        FreeAT(threat=assay.Linf(EPS), replays=0)
    with pytest.raises(SettingError, match="rel_step of FreeAT"):
        FreeAT(threat=assay.Linf(EPS), rel_step=0.0)
    for threat, says in ((assay.Linf(), "needs a budget"), (assay.L0(3), "Linf, L2 or L1"), (None, "needs a threat")):
        with pytest.raises(ThreatError, match=says):
            FreeAT(threat=threat)
    with pytest.raises(TypeError, match="threat"):
        FreeAT()
