"""The script that trains the shipped generative networks: its plans are those of their cards, and it runs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from assay import grammar
from assay.models import zoo
from assay.training.recipes import GenerativeRecipe


@pytest.fixture(scope="module")
def script(script_of):
    with script_of("train_generative") as module:
        yield module


def idx(path, array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(head + array.tobytes())


def test_every_shipped_network_has_the_plan_of_its_card(script):
    assert sorted(script.PLANS) == [name for name in zoo.names() if "kind" in zoo.card(name)]
    for name, plan in script.PLANS.items():
        card = zoo.card(name)
        settings = {key: list(value) if isinstance(value, tuple) else value for key, value in plan.arguments.items()}
        assert (plan.network.__name__, settings) == tuple(card["architecture"][key] for key in ("network", "settings"))
        assert (plan.summary, plan.kind) == (card["summary"], card["kind"])
        assert isinstance(grammar.named(plan.expression, nn.Module), plan.network)
        assert isinstance(grammar.recipe(plan.recipe), GenerativeRecipe)


@pytest.mark.parametrize("name", ["fashion-ae-2", "fashion-pixelcnn"])
def test_it_trains_measures_and_writes_a_card_like_the_shipped_one(script, name, tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 10)):
        idx(tmp_path / f"{part}-images-idx3-ubyte", draw.integers(0, 256, (count, 8, 8), dtype=np.uint8))
        idx(tmp_path / f"{part}-labels-idx1-ubyte", draw.integers(0, 10, count, dtype=np.uint8))
    threads = torch.get_num_threads()
    plan = script.PLANS[name]
    monkeypatch.setitem(script.PLANS, name, replace(plan, settings=plan.settings | {"batch": 8}))
    arguments = ["--data", str(tmp_path), "--only", name, "--epochs", "1", "--threads", str(threads)]
    folders = ["--runs", str(tmp_path / "runs"), "--into", str(tmp_path / "weights")]
    monkeypatch.setattr(sys, "argv", ["train_generative.py", *arguments, *folders])
    script.main()
    card = json.loads((tmp_path / "weights" / f"{name}.json").read_text(encoding="utf-8"))
    shipped = zoo.card(name)
    assert card.keys() == shipped.keys()
    assert card["measured"].keys() == shipped["measured"].keys()
    assert card["architecture"] == shipped["architecture"] | {"input": [1, 8, 8]}
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path / "weights")
    assert isinstance(zoo.load(name), plan.network)
