"""What the commands make of model and data before a run: names in any spelling, types, and what does not fit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

NETS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.last = torch.nn.Linear(12, 3)

    def forward(self, x):
        assert x.dtype == self.last.weight.dtype, x.dtype
        return self.last(x.flatten(1))

def double():
    torch.manual_seed(0)
    return Net().double()

class Scores(Net):
    access = 2

def scores():
    return Scores()

def half():
    torch.manual_seed(0)
    return Net().bfloat16()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "typednets.py").write_text(NETS)
    x = torch.rand(12, 3, 2, 2, generator=torch.Generator().manual_seed(1)).numpy()
    np.savez(tmp_path / "data.npz", x=x, y=np.arange(12) % 3)
    np.savez(tmp_path / "from1.npz", x=x, y=np.arange(12) % 3 + 1)
    np.savez(tmp_path / "range.npz", x=x * 255, y=np.arange(12) % 3)
    return tmp_path


@pytest.mark.parametrize(("build", "stored"), [("double", "float64"), ("half", "float32")])
def test_models_of_other_types_are_attacked_in_their_type(assay, here, build, stored):
    given = (f"typednets:{build}", "--data", "npz:data.npz", "--threat", "linf:0.3")
    found = assay("attack", *given, "--attack", "pgd", "--set", "steps=5", "--save", "adv.npz", "--json", "-q")
    assert found.code == 0, found.err
    assert found.json["success_rate"] is None or found.json["success_rate"] > 0
    assert np.load(here / "adv.npz")["x_adv"].dtype == stored
    found = assay("attack", *given, "--attack", "pgd", "--set", "steps=5", "--targeted", "random", "-q")
    assert found.code == 0, found.err
    found = assay("evaluate", *given, "--attack", "fgsm", "-q")
    assert found.code == 0, found.err


@pytest.mark.parametrize(("data", "says"), [("from1", "labels run from 1 to 3"), ("range", "divide by 255")])
@pytest.mark.parametrize("command", ["evaluate", "attack"])
def test_data_that_do_not_fit_are_found_before_the_run(assay, here, command, data, says):
    found = assay(command, "typednets:double", "--data", f"npz:{data}.npz", "--threat", "linf:0.1", "--attack", "fgsm")
    assert found.code == 2
    assert says in found.said


def test_names_in_any_spelling(assay, tmp_path):
    given = (
        "Digits_MLP",
        "--data",
        "DIGITS",
        "--threat",
        "linf:0.1",
        "--limit",
        "5",
        "--attack",
        "fgsm",
        "--json",
        "-q",
    )
    found = assay("attack", *given)
    assert found.code == 0, found.err
    assert (found.json["model"], found.json["data"]) == ("digits-mlp", "digits")
    assert assay("evaluate", *given).code == 0


def test_the_folder_is_tried_before_model_and_data(assay, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    found = assay("evaluate", "no-model", "--data", "no-data", "--threat", "linf:0.1", "--out", tmp_path)
    assert found.code == 3
    assert "holds other files" in found.said


@pytest.mark.parametrize("command", ["evaluate", "attack"])
def test_a_model_that_grants_too_little_is_found_before_the_run(assay, here, command):
    found = assay(command, "typednets:scores", "--data", "npz:data.npz", "--threat", "linf:0.1", "--attack", "pgd")
    assert found.code == 2
    assert "gradients" in found.said
    assert "scores" in found.said
