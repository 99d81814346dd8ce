"""The script that trains the shipped models: its plans are those of their cards, and it runs."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

from assay import grammar
from assay.models import zoo
from assay.training.recipes import AdversarialTraining


@pytest.fixture(scope="module")
def script(script_of):
    with script_of("train_models") as module:
        yield module


def test_every_shipped_model_has_the_plan_of_its_card(script):
    assert sorted(script.PLANS) == [name for name in zoo.names() if "kind" not in zoo.card(name)]
    for name, plan in script.PLANS.items():
        card = zoo.card(name)
        assert (plan.network, plan.arguments) == tuple(card["architecture"][key] for key in ("network", "settings"))
        assert (plan.summary, plan.data, plan.threat) == (card["summary"], card["data"], card["threat"])
        built = grammar.named(plan.expression, nn.Module)
        assert sum(p.numel() for p in built.parameters()) == card["architecture"]["parameters"]
        recipe = grammar.recipe(plan.recipe, None if plan.threat is None else grammar.threat(plan.threat))
        assert isinstance(recipe, AdversarialTraining) is (plan.threat is not None)


def test_it_trains_measures_and_writes_a_card_like_the_shipped_one(script, tmp_path, monkeypatch):
    threads = torch.get_num_threads()
    arguments = ["--data", str(tmp_path), "--only", "digits-mlp", "--epochs", "3", "--threads", str(threads)]
    folders = ["--runs", str(tmp_path / "runs"), "--into", str(tmp_path / "weights")]
    monkeypatch.setattr(sys, "argv", ["train_models.py", *arguments, *folders])
    script.main()
    card = json.loads((tmp_path / "weights" / "digits-mlp.json").read_text(encoding="utf-8"))
    shipped = zoo.card("digits-mlp")
    assert card.keys() == shipped.keys()
    assert card["architecture"] == shipped["architecture"]
    assert card["measured"]["clean_accuracy"]["test"]["samples"] == 360
    assert card["measured"]["clean_accuracy"]["test"]["value"] > 0.8
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path / "weights")
    assert isinstance(zoo.load("digits-mlp"), nn.Module)
