"""Adversarial vertex mixup against its formula, with the shares read off what the network gets to see."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import assay
from assay.attacks import PGD
from assay.errors import SettingError
from assay.training.recipes import AVMixup


def recipe(bounds=(0.0, 1.0), **settings):
    return AVMixup(attack=PGD(threat=assay.Linf(0.1, bounds=bounds), steps=3), **settings)


def shares(made, model, b, x_adv, vertex):
    """W of each sample: every pixel has to agree on it."""
    seen = []
    handle = model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    made.loss(model, b, {"x_adv": x_adv})
    handle.remove()
    assert len(seen) == 1
    apart = (b.x - vertex).abs() > 1e-3
    per_pixel = torch.where(apart, (seen[0] - vertex) / (b.x - vertex), torch.nan).flatten(1)
    share = per_pixel.nanmean(1)
    assert (per_pixel - share[:, None]).nan_to_num().abs().max() < 1e-9
    return share


def label_smoothing(onehot, share):
    return onehot * share + (onehot - 1) * ((share - 1) / (onehot.shape[1] - 1))


@pytest.mark.parametrize(("gamma", "near", "far"), [(2.0, 1.0, 0.1), (4.0, 0.9, 0.4)])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_loss_and_gradient_are_the_formula_s(net, batch, agree, gamma, near, far, smoothing):
    b = batch(label_smoothing=smoothing)
    x_adv = b.x + 0.1 * torch.randn_like(b.x).sign()
    vertex = (b.x + gamma * (x_adv - b.x)).clip(0, 1)
    made = recipe(gamma=gamma, clean_share=near, vertex_share=far)
    w = shares(made, net(), b, x_adv, vertex)
    assert 0 < w.min() < 0.5 < w.max() < 1
    onehot = F.one_hot(b.y, 5).double()

    def formula(model):
        wide = w[:, None, None, None]
        logs = model(b.x * wide + vertex * (1 - wide)).log_softmax(1)
        targets = label_smoothing(onehot, near) * w[:, None] + label_smoothing(onehot, far) * (1 - w[:, None])
        targets = (1 - smoothing) * targets + smoothing / 5
        torch.testing.assert_close(targets.sum(1), torch.ones(6).double())
        return -(targets * logs).sum(1).mean()

    agree(made, net(), b, {"x_adv": x_adv}, formula)


def test_the_vertex_is_clipped_to_the_bounds_of_the_threat(net, batch):
    b = batch(x=torch.full((4, 1, 6, 6), 0.45).double(), y=torch.zeros(4, dtype=torch.int64), index=torch.arange(4))
    w = shares(recipe(bounds=(0.4, 0.5)), net(), b, b.x + 0.05, torch.full_like(b.x, 0.5))
    assert ((w > 0) & (w < 1)).all()


def test_shares_are_a_sample_s_own_and_change_from_step_to_step(net, batch):
    b = batch()
    x_adv, rows = b.x + 0.05, torch.tensor([4, 0])
    whole = shares(recipe(), net(), b, x_adv, b.x + 0.1)
    part = batch(x=b.x[rows], y=b.y[rows], index=b.index[rows])
    torch.testing.assert_close(shares(recipe(), net(), part, x_adv[rows], part.x + 0.1), whole[rows])
    assert (shares(recipe(), net(), batch(seed=5), x_adv, b.x + 0.1) - whole).abs().max() > 0.1


def test_mixed_targets_are_smoothed_at_both_ends(net, batch):
    b = batch(targets=torch.rand(6, 5, dtype=torch.float64).softmax(1))
    model, x_adv = net().eval(), b.x + 0.05
    w = shares(recipe(), model, b, x_adv, b.x + 0.1)[:, None]
    targets = w * b.targets + (1 - w) * (0.1 * b.targets + 0.9 * (1 - b.targets) / 4)
    wide = w[:, :, None, None]
    logs = model(wide * b.x + (1 - wide) * (b.x + 0.1)).log_softmax(1)
    torch.testing.assert_close(recipe().loss(model, b, {"x_adv": x_adv}), -(targets * logs).sum(1).mean())


def test_the_attack_runs_in_train_mode(net, batch):
    b, model = batch(), net(dropout=0.0)
    tracked = int(model.norm.num_batches_tracked)
    wanted = recipe().attack.perturb(net(dropout=0.0), b.x, b.y, seed=b.seed, index=b.index)
    assert torch.equal(recipe().prepare(model, b)["x_adv"], wanted)
    assert model.norm.num_batches_tracked == tracked + 3


@pytest.mark.parametrize(("name", "wrong"), [("gamma", 0.0), ("clean_share", 1.1), ("vertex_share", -0.1), ("a", 0.0)])
def test_what_cannot_be_used_is_refused(name, wrong):
    with pytest.raises(SettingError, match=name):
        recipe(**{name: wrong})


def test_short_form():
    assert assay.grammar.recipe("avmixup", "linf:0.1", ["gamma=1.5"]).gamma == 1.5
    assert assay.grammar.recipe("avmixup", "linf:0.1").against == assay.Linf(0.1)
