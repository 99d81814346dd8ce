"""The shipped networks are as good as their cards say."""

import pytest
import torch
from safetensors.torch import load_file

import assay
from assay import registry
from assay.data import load_data
from assay.models import load_model, zoo


def clean_accuracy(model, data):
    with torch.inference_mode():
        return float((model(data.x).argmax(1) == data.y).float().mean())


@pytest.mark.parametrize(
    ("name", "data", "least"),
    [
        ("fashion-cnn", "fashion-mnist", 0.90),
        ("fashion-cnn-pgd", "fashion-mnist", 0.80),
        ("digits-mlp", "digits", 0.95),
    ],
)
def test_clean_accuracy(name, data, least):
    measured = clean_accuracy(load_model(name), load_data(data))
    assert measured >= least
    assert measured == pytest.approx(zoo.card(name)["measured"]["clean_accuracy"]["shipped"]["value"], abs=2e-3)


def test_the_robust_network_withstands_what_breaks_the_standard_one():
    data = load_data("fashion-mnist", limit=100)
    attack = assay.attacks.PGD(threat=assay.Linf(0.1), steps=20)
    left = {
        name: 1 - float(attack(load_model(name), data.x, data.y).success.float().mean())
        for name in ("fashion-cnn", "fashion-cnn-pgd")
    }
    assert left["fashion-cnn"] <= 0.1
    assert left["fashion-cnn-pgd"] >= 0.6


def test_the_card_of_the_robust_network_promises_65_percent():
    card = zoo.card("fashion-cnn-pgd")
    assert card["threat"] == "Linf(0.1)"
    assert card["measured"]["robust_accuracy"]["value"] >= 0.65
    assert card["measured"]["robust_accuracy"]["samples"] == 2000


def test_weights_of_what_is_no_classifier_are_small_and_come_back_to_the_last_bit():
    names = [name for name in zoo.names() if "kind" in zoo.card(name)]
    assert len(names) == 5
    assert sum((zoo.WEIGHTS / f"{name}.safetensors").stat().st_size for name in names) <= 900_000
    for name in names:
        stored, state = load_file(zoo.WEIGHTS / f"{name}.safetensors"), load_model(name).state_dict()
        assert stored.keys() == state.keys()
        for key, value in state.items():
            assert stored[key].dtype == (torch.float16 if value.is_floating_point() else value.dtype)
            assert torch.equal(stored[key].to(value.dtype), value)


@pytest.mark.parametrize("name", zoo.names())
def test_cards_are_complete_and_true(name):
    card = zoo.card(name)
    assert card["name"] == name
    assert {"summary", "data", "architecture", "threat", "training", "measured", "versions", "date"} <= card.keys()
    model = load_model(name)
    assert sum(p.numel() for p in model.parameters()) == card["architecture"]["parameters"] < 500_000
    x, kind = torch.rand(3, *card["architecture"]["input"]), card.get("kind", "classifier")
    given = torch.randn(3, model.latent) if kind == "generator" else x
    assert model(given).shape == {"classifier": (3, 10), "density": (3,)}.get(kind, x.shape)
    assert not any(module.training for module in model.modules())


def test_every_shipped_model_is_registered():
    assert sorted(entry.name for entry in registry.entries("model")) == zoo.names()
    classifiers = {name for name in zoo.names() if "kind" not in zoo.card(name)}
    assert classifiers == {"digits-mlp", "fashion-cnn", "fashion-cnn-pgd"}
    assert sum(path.stat().st_size for path in zoo.WEIGHTS.iterdir() if path.stem not in classifiers) < 1_400_000
