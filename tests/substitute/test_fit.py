"""A substitute learns a target's decisions, asks no more than it may, and can be attacked in the target's place."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

import assay
from assay.attacks import MIFGSM, Transfer
from assay.errors import InputError, ModelError, SettingError
from assay.models import Function, LabelsOnly, Metered
from assay.substitute.augmentation import along_slopes, chosen, step_of


class Asked:
    """A target that tells labels and notes what it is asked about."""

    access = assay.Access.LABELS

    def __init__(self):
        self.model, self.rows = assay.load_model("digits-mlp"), []

    def __call__(self, x):
        self.rows.append(x.clone())
        with torch.no_grad():
            return self.model(x).argmax(1)

    @property
    def count(self):
        return sum(map(len, self.rows))


@functools.cache
def data():
    return assay.load_data("digits", limit=500)


@functools.cache
def substitute():
    target = Asked()
    found = assay.fit_substitute(target, data(), max_queries=900, rounds=4, held_out=100)
    assert target.count == found.queries == 900
    return found, target


def test_it_agrees_with_the_target_where_it_was_not_asked():
    found, target = substitute()
    x, _, _ = assay.load_data("digits").batch(600, 1600)
    agreement = (found.model(x).argmax(1) == target.model(x).argmax(1)).double().mean()
    assert agreement > 0.75
    assert abs(found.agreement - float(agreement)) < 0.15
    assert found.rounds[-1]["agreement"] > 0.9
    assert not found.model.training


def test_its_weak_points_are_the_targets():
    found, target = substitute()
    x, y, _ = assay.load_data("digits").batch(600, 800)
    threat = assay.Linf(0.2)
    clean = (target.model(x).argmax(1) != y).double().mean()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
    by_noise = (target.model((x + 0.2 * noise).clamp(0, 1)).argmax(1) != y).double().mean()
    won = Transfer(surrogate=found.model, attack=MIFGSM(threat=threat))(target, x, y).success.double().mean()
    assert won > max(clean, by_noise) + 0.4


def test_queries_are_those_of_the_paper_and_never_more():
    target = Asked()
    settings = {"initial": 20, "doublings": 2, "reservoir": 30, "rounds": 4, "epochs": 1}
    found = assay.fit_substitute(target, data(), max_queries=1000, **settings)
    assert target.count == found.queries == 20 * 2**2 + 30 * (4 - 2)
    assert [each["samples"] for each in found.rounds] == [20, 40, 80, 110, 140]


@pytest.mark.parametrize(("budget", "held_out"), [(1, 0), (7, 3), (33, 0), (100, 20)])
def test_a_budget_is_kept(budget, held_out):
    target = Asked()
    found = assay.fit_substitute(target, data(), max_queries=budget, held_out=held_out, initial=20, epochs=1)
    assert target.count == found.queries == budget
    assert found.rounds[-1]["samples"] == budget - held_out
    assert (found.agreement is None) == (held_out == 0)


def test_a_target_is_never_asked_about_nothing():
    """The budget ends exactly with an augmentation: 40, 80, 160. Servers refuse a request without inputs."""
    asked = []

    def answer(x):
        asked.append(len(x))
        return x.reshape(len(x), -1).argmax(axis=1) % 10

    target = Function(answer, access="labels")
    found = assay.fit_substitute(target, data(), max_queries=160, initial=40, rounds=6, doublings=6, epochs=1)
    assert found.queries == sum(asked) == 160
    assert min(asked) > 0


def test_a_total_of_the_target_ends_it():
    target = Metered(LabelsOnly(assay.load_model("digits-mlp")), total=70)
    found = assay.fit_substitute(target, data(), max_queries=1000, initial=20, epochs=1, held_out=10)
    assert target.spent == found.queries <= 70
    assert found.rounds[-1]["samples"] == found.queries
    assert found.agreement is None
    with pytest.raises(SettingError, match="leaves none"):
        assay.fit_substitute(Metered(target.model, total=5), data(), max_queries=1000, initial=20)


def test_inputs_lie_on_slopes_inside_the_bounds():
    target = Asked()
    assay.fit_substitute(target, data(), max_queries=60, initial=30, epochs=1, rounds=1)
    first, second = torch.cat(target.rows).split(30)
    assert ((second >= 0) & (second <= 1)).all()
    step = (second - first).abs()
    assert ((step - 0.1).abs() < 1e-6).any()
    assert (step <= 0.1 + 1e-6).all()


def test_augmentation_by_hand():
    weight = torch.tensor([[1.0, -2.0, 0.0], [0.5, 1.0, 0.0]], dtype=torch.float64)
    model = nn.Linear(3, 2, bias=False).double()
    model.weight.data.copy_(weight)
    x = torch.tensor([[0.5, 0.95, 0.2], [0.5, 0.5, 0.5]], dtype=torch.float64)
    found = along_slopes(model, x, torch.tensor([1, 0]), 0.1, (0.0, 1.0))
    assert torch.allclose(found, torch.tensor([[0.4, 1.0, 0.2], [0.6, 0.4, 0.5]], dtype=torch.float64))
    assert [step_of(i, 0.1, 2) for i in range(5)] == [0.1, 0.1, -0.1, -0.1, 0.1]
    assert step_of(7, 0.1, 0) == 0.1


def test_a_reservoir_holds_each_with_the_same_chance():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([torch.bincount(chosen(10, 3, generator), minlength=10) for _ in range(3000)]).sum(0)
    assert (drawn - 900).abs().max() < 120
    assert chosen(10, None, generator).tolist() == chosen(10, 10, generator).tolist() == list(range(10))


def test_the_same_seed_gives_the_same_substitute():
    settings = {"max_queries": 60, "rounds": 2, "initial": 20, "epochs": 2}
    one, two, other = (assay.fit_substitute(Asked(), data(), seed=seed, **settings) for seed in (1, 1, 2))
    for (name, first), second in zip(one.model.state_dict().items(), two.model.state_dict().values(), strict=True):
        assert torch.equal(first, second), name
    assert not torch.equal(one.model.hidden.weight, other.model.hidden.weight)


def test_a_saved_one_is_a_model_and_a_surrogate(tmp_path):
    found, target = substitute()
    found.save(tmp_path / "s")
    model = assay.load_model(str(tmp_path / "s"))
    x, y, _ = data().batch(0, 60)
    assert torch.equal(model(x), found.model(x))
    attack = MIFGSM(threat=assay.Linf(0.3))
    by_name = Transfer(surrogate=str(tmp_path / "s"), attack=attack)(target, x, y)
    assert torch.equal(by_name.x_adv, Transfer(surrogate=found.model, attack=attack)(target, x, y).x_adv)
    assert by_name.success.any()


def test_other_targets_networks_and_bounds():
    x, y = torch.rand(60, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1, torch.zeros(60, dtype=torch.int64)
    target = Function(lambda v: (v.sum(axis=1) > 0).astype(np.int64), access="labels")
    net = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))
    seen = []
    found = assay.fit_substitute(
        target, (x, y), network=net, max_queries=300, initial=33, bounds=(-1, 1), lr=0.01, progress=seen.append
    )
    assert found.model is net
    assert len(seen) == len(found.rounds)
    assert (net(x).argmax(1) == (x.sum(1) > 0)).double().mean() > 0.9


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"max_queries": 0}, SettingError, "max_queries must be a whole number, at least 1"),
        ({"lam": 0.0}, SettingError, "lam must be a positive number"),
        ({"lr": True}, SettingError, "lr must be a number"),
        ({"rounds": 1.5}, SettingError, "rounds must be a whole number"),
        ({"held_out": 100}, SettingError, "is a part of max_queries"),
        ({"network": "DigitsMLQ()"}, ModelError, "DigitsMLQ"),
        ({"network": "FashionCNN()"}, ModelError, "takes no inputs of shape"),
        ({"network": nn.Sequential(nn.Flatten(), nn.Linear(64, 2))}, ModelError, "knows 2 classes"),
        ({"bounds": (0.4, 0.6)}, InputError, "outside the bounds"),
    ],
)
def test_mistakes_are_named(settings, error, message):
    target = Asked()
    with pytest.raises(error, match=message):
        assay.fit_substitute(target, data(), **({"max_queries": 100, "epochs": 1} | settings))
    assert target.count == 0 or "classes" in message


def test_a_network_has_to_be_named_for_other_sizes():
    with pytest.raises(SettingError, match="name a network for inputs of shape"):
        assay.fit_substitute(Asked(), (torch.rand(5, 3, 4, 4), torch.zeros(5).long()), max_queries=5)


def test_answers_that_cannot_be_used_are_named():
    with pytest.raises(ModelError, match="learns from labels"):
        assay.fit_substitute(lambda x: x, data(), max_queries=5)
