"""Interpolated adversarial training against its formula, with the mixing read off what the network gets to see."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import assay
from assay.attacks import PGD
from assay.errors import SettingError
from assay.training.recipes import InterpolatedAT


def recipe(**settings):
    return InterpolatedAT(attack=PGD(threat=assay.Linf(0.1), steps=3), **settings)


class Seen(nn.Module):
    """Keeps what it is asked about."""

    def __init__(self, model):
        super().__init__()
        self.model, self.inputs = model, []

    def forward(self, x):
        self.inputs.append(x)
        return self.model(x)


def shares(mixed, x):
    """`(b, b)`: how much of each x there is in each mixed input."""
    return torch.linalg.lstsq(x.flatten(1).T, mixed.flatten(1).T).solution.T


def seen(b, x_adv, **settings):
    model = Seen(nn.Sequential(nn.Flatten(), nn.Linear(36, 5).double()))
    loss = recipe(**settings).loss(model, b, {"x_adv": x_adv})
    return model, loss, shares(model.inputs[0], b.x), shares(model.inputs[1], x_adv)


def test_each_half_is_mixed_in_pairs_of_its_own(batch):
    b = batch(20)
    model, _, clean, adversarial = seen(b, b.x.flip(3) ** 2)
    assert len(model.inputs) == 2
    for part in (clean, adversarial):
        torch.testing.assert_close(part.sum(1), torch.ones(20).double())
        torch.testing.assert_close(part.sum(0) - part.diagonal(), 1 - part.diagonal()[order(part)], atol=1e-8, rtol=0)
        assert part.min() > -1e-8
        assert ((part > 1e-8).sum(1) <= 2).all()
        assert (part.diagonal() < 1 - 1e-8).sum() > 10  # few are their own partner
    assert (clean - adversarial).abs().max() > 0.1
    assert (order(clean) != order(adversarial)).sum() > 10


def order(part):
    """The row that has each sample as its partner."""
    others = part - part.diagonal().diag()
    alone = others.sum(1) < 1e-8
    return torch.where(alone, torch.arange(len(part)), others.argmax(0))


def test_shares_follow_beta(batch):
    b = batch(30)
    narrow, wide = (seen(b, b.x, a=a)[2].diagonal() for a in (50.0, 0.05))
    assert ((narrow < 0.8) & (narrow > 0.2) | (narrow > 1 - 1e-8)).all()
    assert ((wide < 0.05) | (wide > 0.95)).sum() > 20


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_loss_and_gradient_are_the_formula_s(net, batch, agree, smoothing):
    b = batch(label_smoothing=smoothing)
    x_adv = (b.x + 0.07 * torch.randn_like(b.x).sign()).clamp(0, 1)
    _, _, clean, adversarial = seen(b, x_adv)

    def mixup(model, x, part):
        logits, total = model(torch.einsum("ij,j...->i...", part, x)), 0.0
        for i in range(len(x)):
            for j in range(len(x)):
                entropy = F.cross_entropy(logits[i], b.y[j], label_smoothing=smoothing)
                total = total + part[i, j] * entropy / len(x)
        return total

    agree(
        recipe(),
        net(),
        b,
        {"x_adv": x_adv},
        lambda model: mixup(model, b.x, clean) / 2 + mixup(model, x_adv, adversarial) / 2,
    )


def test_mixed_targets_are_mixed_again(batch):
    b = batch(targets=torch.rand(6, 5, dtype=torch.float64).softmax(1))
    model, loss, clean, adversarial = seen(b, b.x**2)
    parts = zip(model.inputs, (clean, adversarial), strict=True)
    wanted = sum(-((part @ b.targets) * model.model(x).log_softmax(1)).sum(1).mean() / 2 for x, part in parts)
    torch.testing.assert_close(loss, wanted)


def test_the_attack_sees_the_batch_as_it_is(net, batch):
    b, model = batch(), net()
    tracked = int(model.norm.num_batches_tracked)
    wanted = recipe().attack.perturb(net().eval(), b.x, b.y, seed=b.seed, index=b.index)
    assert torch.equal(recipe().prepare(model, b)["x_adv"], wanted)
    assert model.norm.num_batches_tracked == tracked


def test_mixing_changes_from_step_to_step(batch):
    first, second = (seen(batch(seed=seed), batch().x)[2] for seed in (1, 2))
    assert (first - second).abs().max() > 0.1


def test_what_cannot_be_used_is_refused():
    with pytest.raises(SettingError, match="a of InterpolatedAT"):
        recipe(a=0.0)


def test_short_form():
    made = assay.grammar.recipe("iat", "linf:0.031", ["attack.steps=3"])
    assert made.against == assay.Linf(0.031)
    assert made.attack.rel_step * 0.031 == pytest.approx(0.007)
