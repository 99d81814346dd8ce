"""The evaluation at the end of a training: its numbers are those of `evaluate`, wherever they are written."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import assay
from assay.cli.main import main
from assay.errors import AssayError, GrammarError, InputError, ModelError, SettingError

X, Y = torch.rand(80, 4, generator=torch.Generator().manual_seed(0)), torch.arange(80) % 2


@pytest.fixture
def train(tmp_path):
    def run(**settings):
        torch.manual_seed(0)
        asked = {"recipe": "fgsmat", "threat": "linf:0.05", "epochs": 1, "batch": 20, "progress": False} | settings
        return assay.train(nn.Linear(4, 2), (X, Y), **asked)

    return run


def test_the_numbers_are_those_of_an_evaluation_of_the_same_network(train, tmp_path):
    found = train(out=tmp_path / "t", test=(X[:30], Y[:30]), suite="quick")
    again = assay.evaluate(found.model, (X[:30], Y[:30]), threat="linf:0.05", suite="quick", progress=False)
    assert found.evaluation.results["robust_accuracy"] == again.results["robust_accuracy"]
    record = json.loads((tmp_path / "t" / "train.json").read_text(encoding="utf-8"))
    card = json.loads((tmp_path / "t" / "model.json").read_text(encoding="utf-8"))
    assert record["results"]["evaluation"] == card["evaluation"]
    assert card["evaluation"]["clean_accuracy"] == again.results["clean_accuracy"]
    assert card["evaluation"]["samples"] == 30
    assert card["network"] is None
    assert card["held_out_accuracy"]
    assert record["results"]["best"] is not None
    assert (tmp_path / "t" / card["evaluation"]["report"]).exists()
    page = (tmp_path / "t" / "report.html").read_text(encoding="utf-8")
    assert "Final evaluation" in page
    assert "count only if they share no sample" in page
    assert f"{100 * again.clean_accuracy:.1f}\N{NO-BREAK SPACE}%" in page


def test_resuming_a_finished_run_keeps_its_evaluation(train, tmp_path):
    settings = {"out": tmp_path / "t", "test": (X, Y), "suite": "quick", "test_limit": 20}
    first = train(**settings).evaluation.results
    again = train(**settings, resume=True).evaluation.results
    assert again["clean_accuracy"]["samples"] == 20
    assert again["robust_accuracy"] == first["robust_accuracy"]
    replaced = train(**settings | {"test_limit": 10}, overwrite=True).evaluation
    assert replaced.results["samples"] == 10


def test_without_a_folder_it_is_returned_alone(train):
    found = train(test=(X, Y), suite="quick")
    assert found.path is None
    assert found.evaluation.robust_accuracy <= found.evaluation.clean_accuracy
    assert train().evaluation is None


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"suite": "quick"}, SettingError, "give test data"),
        ({"test_limit": 5}, SettingError, "give test data"),
        ({"test": (X, Y), "recipe": "standard", "threat": None}, SettingError, "needs a threat"),
        ({"test": (X, Y), "suite": "quik"}, GrammarError, "quick"),
        ({"test": "digit"}, AssayError, "digits"),
        ({"test": (X[:, :2], Y)}, ModelError, "cannot take the data"),
        ({"test": (X, Y + 99)}, InputError, "labels run"),
    ],
)
def test_what_cannot_be_evaluated_is_said_before_training(train, tmp_path, settings, error, words):
    with pytest.raises(error, match=words):
        train(out=tmp_path / "t", **settings)
    assert not (tmp_path / "t").exists()


def test_the_command_line_prints_it_as_json(tmp_path, capsys):
    code = main(
        ["train", "DigitsMLP()", "--data", "digits", "--recipe", "standard", "--threat", "linf:0.1", "--epochs", "1",
         "--limit", "200", "--test", "digits", "--test-limit", "20", "--suite", "quick", "--out", str(tmp_path / "t"),
         "--json", "--quiet"]
    )  # fmt: skip
    assert code == 0
    assert json.loads(capsys.readouterr().out)["evaluation"]["samples"] == 20
