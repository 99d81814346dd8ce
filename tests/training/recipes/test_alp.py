"""Adversarial logit pairing against its formula, and the random targets of its attack."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

import assay
from assay.attacks import PGD, Attack
from assay.errors import SettingError
from assay.goals import Targeted, Untargeted
from assay.oracle import Access
from assay.threats import Threat
from assay.training.recipes import ALP
from assay.training.recipes.base import mode

ATTACK = PGD(threat=assay.Linf(0.1), steps=4, rel_step=0.25)


@dataclass(frozen=True, kw_only=True)
class Asked(Attack):
    """Moves nothing and keeps the goals that it is given."""

    threat: Threat = field(default_factory=lambda: assay.Linf(0.1))
    goals: list = field(default_factory=list)
    access: ClassVar[Access] = Access.GRADIENTS

    def run(self, oracle, x, goal, rng):
        self.goals.append(goal)
        return torch.zeros_like(x)


def targets(model, batch):
    asked = Asked()
    ALP(attack=asked).prepare(model, batch)
    (goal,) = asked.goals
    assert isinstance(goal, Targeted)
    return goal.classes


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_loss_and_gradient_are_the_formula_s(net, batch, agree, weight):
    b = batch()
    x_adv = b.x.flip(2)

    def formula(model):
        z = model(torch.cat([b.x, x_adv]))
        pairs = [((z[i] - z[i + 6]) ** 2).sum() for i in range(6)]
        likelihoods = [z[i].softmax(0)[b.y[i % 6]].log() for i in range(12)]
        return -sum(likelihoods) / 12 + weight * sum(pairs) / 6

    agree(ALP(attack=ATTACK, weight=weight), net(), b, {"x_adv": x_adv}, formula)


def test_both_halves_are_one_pass_in_train_mode_after_a_search_in_eval_mode(net, batch):
    b, model = batch(), net()
    before = copy.deepcopy(dict(model.named_buffers()))
    views = ALP(attack=ATTACK).prepare(model, b)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    ALP(attack=ATTACK).loss(model, b, views)
    assert model.norm.num_batches_tracked == before["norm.num_batches_tracked"] + 1


def test_targets_are_random_wrong_classes_of_each_sample_and_step(net, batch):
    model = net()
    size = 400
    b = batch(size)
    found = targets(model, b)
    assert (found != b.y).all()
    for label in range(5):
        shares = torch.bincount(found[b.y == label], minlength=5) / (b.y == label).sum()
        wrong = [c for c in range(5) if c != label]
        assert shares[wrong].min() > 0.1  # a quarter each
        assert shares[wrong].max() < 0.4
    assert (targets(model, batch(size, seed=12)) != found).double().mean() > 0.5
    part = torch.tensor([3, 0])
    assert torch.equal(targets(model, batch(x=b.x[part], y=b.y[part], index=b.index[part])), found[part])


def test_the_attack_goes_towards_the_targets(net, batch):
    b, model = batch(), net()
    wanted = targets(model, b)
    x_adv = ALP(attack=ATTACK).prepare(model, b)["x_adv"]
    with mode(model, train=False):
        direct = ATTACK.perturb(model, b.x, Targeted(wanted), seed=b.seed, index=b.index)
        gain = [-F.cross_entropy(model(x), wanted, reduction="none") for x in (b.x, x_adv)]
    assert torch.equal(x_adv, direct)
    assert (gain[1] > gain[0]).all()


def test_untargeted_goes_away_from_the_label(net, batch):
    b, model, asked = batch(), net(), Asked()
    ALP(attack=asked, targeted=False).prepare(model, b)
    assert isinstance(asked.goals[0], Untargeted)
    assert torch.equal(asked.goals[0].classes, b.y)


def test_settings_that_cannot_be_used():
    with pytest.raises(SettingError, match="weight of ALP"):
        ALP(attack=ATTACK, weight=-0.5)
