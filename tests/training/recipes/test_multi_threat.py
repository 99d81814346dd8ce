"""Training against several threats: which inputs count, and what the loss is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

import assay
from assay.attacks import PGD
from assay.errors import SettingError
from assay.training.recipes import AWP, MultiThreat
from assay.training.recipes.base import mode

THREATS = (assay.Linf(0.05), assay.L2(0.24), assay.L1(0.5))  # about as strong as each other
ATTACKS = tuple(PGD(threat=threat, steps=3) for threat in THREATS)


def searched(model, b):
    """What each attack finds, and its losses, in eval mode."""
    with mode(model, train=False):
        moved = [attack.perturb(model, b.x, b.y, seed=b.seed, index=b.index) for attack in ATTACKS]
        losses = torch.stack([F.cross_entropy(model(x), b.y, reduction="none") for x in moved])
    return moved, losses.detach()


def test_max_takes_the_hardest_input_of_each_sample(net, batch):
    b, model = batch(24), net()
    moved, losses = searched(model, b)
    winners = losses.argmax(0)
    assert len(winners.unique()) > 1  # else one attack alone would pass this test
    x_adv = MultiThreat(attacks=ATTACKS).prepare(model, b)["x_adv"]
    with mode(model, train=False):
        found = F.cross_entropy(model(x_adv), b.y, reduction="none")
    assert (found >= losses - 1e-12).all()
    for row, winner in enumerate(winners):
        assert torch.equal(x_adv[row], moved[winner][row])


def test_max_is_cross_entropy_at_these_inputs_in_one_pass(net, batch, agree):
    b, model = batch(), net()
    before = copy.deepcopy(dict(model.named_buffers()))
    recipe = MultiThreat(attacks=ATTACKS)
    views = recipe.prepare(model, b)
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    agree(recipe, model, b, views, lambda other: F.cross_entropy(other(views["x_adv"]), b.y))
    assert model.norm.num_batches_tracked == before["norm.num_batches_tracked"] + 1


def test_average_is_the_mean_over_all_attacks_as_one_batch(net, batch, agree):
    b, model = batch(), net()
    moved, _ = searched(model, b)
    recipe = MultiThreat(attacks=ATTACKS, mode="average")
    views = recipe.prepare(model, b)
    for number, x_adv in enumerate(moved):
        assert torch.equal(views[f"x_adv_{number}"], x_adv)
    before = int(model.norm.num_batches_tracked)

    def formula(other):
        z = other(torch.cat(moved))
        return sum(F.cross_entropy(z[6 * i : 6 * i + 6], b.y) for i in range(3)) / 3

    agree(recipe, model, b, views, formula)
    assert model.norm.num_batches_tracked == before + 1


def test_random_draws_one_attack_for_each_batch(net, batch):
    model, recipe = net(), MultiThreat(attacks=ATTACKS, mode="random")
    chosen = []
    for seed in range(20):
        b = batch(seed=seed)
        views = recipe.prepare(model, b)
        moved, _ = searched(model, b)
        same = [torch.equal(views["x_adv"], x_adv) for x_adv in moved]
        assert sum(same) == 1
        chosen.append(same.index(True))
        assert torch.equal(recipe.prepare(model, b)["x_adv"], views["x_adv"])
    assert min(chosen.count(number) for number in range(3)) >= 2


def test_random_is_cross_entropy_at_these_inputs(net, batch, agree):
    b, model = batch(), net()
    recipe = MultiThreat(attacks=ATTACKS, mode="random")
    views = recipe.prepare(model, b)
    agree(recipe, model, b, views, lambda other: F.cross_entropy(other(views["x_adv"]), b.y))


def test_every_threat_warms_up(net, batch):
    b = batch(eps_share=0.5)
    views = MultiThreat(attacks=ATTACKS, mode="average").prepare(net(), b)
    for number, threat in enumerate(THREATS):
        sizes = threat.size(b.x, views[f"x_adv_{number}"] - b.x)
        assert (sizes <= 0.5 * threat.eps + 1e-9).all()
        assert sizes.max() > 0.3 * threat.eps


def test_the_threat_is_the_one_that_all_share():
    assert MultiThreat(attacks=ATTACKS).against is None
    assert MultiThreat(attacks=ATTACKS[:1]).against == THREATS[0]
    assert MultiThreat(attacks=(*ATTACKS, ATTACKS[0])).threats == THREATS
    assert AWP(recipe=MultiThreat(attacks=ATTACKS)).threats == THREATS
    assert AWP(recipe=MultiThreat(attacks=ATTACKS)).defends


def test_the_grammar_hands_a_threat_to_each_attack_that_names_none():
    found = assay.grammar.recipe("multi-threat", "linf:0.1", ["attacks=[PGD(), FGSM()]", "mode=average"])
    assert [attack.threat for attack in found.attacks] == [assay.Linf(0.1)] * 2
    assert assay.grammar.parse(repr(found)) == found
    text = "MultiThreat(attacks=[PGD(threat=Linf(0.05), steps=3), PGD(threat=L2(0.24), steps=3)])"
    assert assay.grammar.recipe(text) == MultiThreat(attacks=ATTACKS[:2])


def test_settings_that_cannot_be_used():
    for settings, says in (
        ({"attacks": ()}, "several attacks"),
        ({"attacks": ATTACKS[0]}, "several attacks"),
        ({"attacks": (ATTACKS[0], THREATS[0])}, "several attacks"),
        ({"attacks": ATTACKS, "mode": "mean"}, "max, average, random"),
    ):
        with pytest.raises(SettingError, match=says):
            MultiThreat(**settings)
