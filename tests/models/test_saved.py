"""Folders of trained networks: what comes back, and what a user sees when one cannot be used."""

from __future__ import annotations

import json
import os
import re
import sys

import pytest
import torch
from typer.testing import CliRunner

from assay import files
from assay.cli.main import app
from assay.errors import ModelError, StoreError
from assay.models import load_model, saved, zoo
from assay.models.networks import DigitsMLP

CALLABLE = "from assay.models.networks import DigitsMLP\ndef build(): return DigitsMLP(hidden=7)\n"


@pytest.fixture
def trained():
    return load_model("digits-mlp")


@pytest.fixture
def folder(tmp_path, trained):
    saved.save(tmp_path / "t", "DigitsMLP(hidden=20)", trained.state_dict(), {"data": "digits", "recipe": "Standard()"})
    return tmp_path / "t"


def change_card(folder, **changes):
    path = folder / saved.CARD
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_is_saved_comes_back(folder, trained):
    model, x = load_model(str(folder)), torch.rand(5, 1, 8, 8)
    assert torch.equal(model(x), trained(x))
    assert not torch.equal(model(x), DigitsMLP()(x))
    assert not any(module.training for module in model.modules())
    assert saved.load(folder).state_dict().keys() == trained.state_dict().keys()
    card = saved.card(folder)
    assert (card["data"], card["recipe"], card["network"]) == ("digits", "Standard()", "DigitsMLP(hidden=20)")


@pytest.mark.parametrize("spec", ["LabelsOnly('{}')", "Ensemble('{}', 'digits-mlp')"])
def test_views_and_ensembles_of_folders(folder, trained, spec):
    x = torch.rand(5, 1, 8, 8)
    found = load_model(spec.format(folder))(x)
    assert torch.equal(found if found.ndim == 1 else found.argmax(1), trained(x).argmax(1))


def test_later_weights_replace_earlier_ones_and_nothing_else_is_left(folder):
    other = DigitsMLP(hidden=3)
    saved.save(folder, "digitsmlp(hidden=3)", other.state_dict(), {"data": "other"})
    assert torch.equal(load_model(str(folder)).head.weight, other.head.weight)
    assert saved.card(folder)["data"] == "other"
    assert sorted(os.listdir(folder)) == [saved.CARD, saved.WEIGHTS]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_type_of_the_weights_is_kept(tmp_path, trained, dtype):
    model = trained.to(dtype)
    saved.save(tmp_path, "DigitsMLP()", model.state_dict(), {})
    assert torch.equal(load_model(str(tmp_path)).hidden.weight, model.hidden.weight)
    assert load_model(str(tmp_path)).hidden.weight.dtype == dtype


def test_shared_and_transposed_tensors_are_saved(tmp_path):
    weight = torch.rand(64, 20)
    state = {"hidden.weight": weight.T, "hidden.bias": weight[0, :20], **DigitsMLP().head.state_dict(prefix="head.")}
    saved.save(tmp_path, "DigitsMLP()", state, {})
    assert torch.equal(saved.weights(tmp_path)["hidden.weight"], weight.T)


def test_saving_leaves_the_network_alone(tmp_path, trained):
    state = trained.state_dict()
    saved.save(tmp_path, "DigitsMLP()", state, {})
    state["head.weight"].add_(1)
    assert torch.allclose(saved.weights(tmp_path)["head.weight"] + 1, state["head.weight"])


def test_a_callable_builds_the_network(tmp_path, monkeypatch):
    (tmp_path / "netsofmine.py").write_text(CALLABLE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    model = DigitsMLP(hidden=7)
    saved.save("t", "netsofmine:build", model.state_dict(), {})
    assert torch.equal(load_model("t").head.weight, model.head.weight)


def test_a_further_trained_zoo_model_is_built_by_its_name(tmp_path):
    model = DigitsMLP()
    saved.save(tmp_path, "digits-mlp", model.state_dict(), {})
    assert torch.equal(load_model(str(tmp_path)).head.weight, model.head.weight)


def test_weights_of_an_unknown_network_say_what_to_do(folder, trained):
    saved.save(folder, None, trained.state_dict(), {})
    with pytest.raises(ModelError, match=r'Set "network" in .*model\.json to "package.module:callable"'):
        load_model(str(folder))
    assert torch.equal(saved.weights(folder)["head.weight"], trained.head.weight)
    change_card(folder, network="DigitsMLP(hidden=20)")  # the advice
    assert torch.equal(load_model(str(folder)).head.weight, trained.head.weight)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("DigitsMLP(hidden=21)", r"other shapes have .*hidden.weight \(20x64 for 21x64\)"),
        ("FashionCNN()", r"the weights lack mean, std, conv1.weight and 3 more; other shapes have .*hidden"),
        ("DigitsMLP(widht=3)", "cannot be built: .*has no 'widht'"),
        ("PGD(threat=Linf(0.1))", "cannot be built: "),
        ("nosuchmodule:build", "cannot be built: no module named 'nosuchmodule'"),
        ("nosuchnet", "cannot be built: no model named 'nosuchnet'"),
    ],
)
def test_networks_that_do_not_fit(folder, network, words):
    change_card(folder, network=network)
    with pytest.raises(ModelError, match=words) as error:
        load_model(str(folder))
    assert str(folder) in str(error.value)


def test_keys_that_the_network_does_not_have(tmp_path, trained):
    saved.save(tmp_path, "DigitsMLP()", {**trained.state_dict(), "tail.weight": torch.zeros(2)}, {})
    with pytest.raises(ModelError, match=r"the network has no tail\.weight\.$"):
        load_model(str(tmp_path))


def test_a_folder_cannot_be_built_from_itself(folder):
    change_card(folder, network=str(folder))
    with pytest.raises(ModelError, match="is a folder"):
        load_model(str(folder))


def test_a_damaged_file_is_told(folder):
    path = folder / saved.WEIGHTS
    whole = path.read_bytes()
    for content in (whole[:-5], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        path.write_bytes(content)
        with pytest.raises(ModelError, match=r"model\.safetensors is damaged, or not the file"):
            load_model(str(folder))
    path.unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors cannot be read \(No such file"):
        load_model(str(folder))


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"format": 99}', "\ufffd"])
def test_a_damaged_card_is_told(folder, content):
    (folder / saved.CARD).write_text(content)
    with pytest.raises(ModelError, match=r"model\.json"):
        load_model(str(folder))


def test_a_folder_without_a_network(tmp_path):
    with pytest.raises(ModelError, match=r"holds no trained network: there is no model\.json"):
        load_model(str(tmp_path))
    with pytest.raises(ModelError, match="no model named"):
        load_model(str(tmp_path / "absent"))


def test_a_full_disk_leaves_the_earlier_network(folder, trained, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "_write", full)
        with pytest.raises(StoreError, match="the disk is full"):
            saved.save(folder, "DigitsMLP(hidden=3)", DigitsMLP(hidden=3).state_dict(), {})
    assert torch.equal(load_model(str(folder)).head.weight, trained.head.weight)


@pytest.mark.parametrize("spec", ["DigitsMLP", "DigitsMLP(hidden=5)", "fashioncnn(32)"])
def test_an_untrained_network_is_no_model(spec):
    with pytest.raises(ModelError, match=rf"{re.escape(repr(spec))} is a network that nobody has trained"):
        load_model(spec)


def test_cards_of_the_zoo_still_work():
    assert zoo.card("digits-mlp")["architecture"]["network"] == "DigitsMLP"
    assert isinstance(load_model("digits-mlp"), DigitsMLP)


def test_evaluate_takes_the_folder(folder):
    options = ["--data", "digits", "--limit", "20", "--threat", "linf:0.1", "--attack", "fgsm", "--json", "-q"]
    ours, theirs = (
        json.loads(CliRunner().invoke(app, ["evaluate", model, *options]).stdout)
        for model in (str(folder), "digits-mlp")
    )
    assert ours["robust_accuracy"] == theirs["robust_accuracy"]
    assert ours["clean_accuracy"]["value"] >= 0.9
