"""Defended models are MODELs: read from their text, saved and loaded, wrapped, listed."""

from __future__ import annotations

import pytest
import torch

import assay
from assay.defenses import BitDepth, InputNoise, NoiseLayers, RandomResizePad
from assay.errors import AssayError, GrammarError, SettingError
from assay.models import Defended, LabelsOnly, saved
from assay.models.networks import SmallCNN


def digits(n=6):
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_a_text_is_a_model():
    model = assay.load_model("Defended('digits-mlp', BitDepth(bits=2), InputNoise(0.1))")
    plain = Defended(assay.load_model("digits-mlp"), BitDepth(bits=2), InputNoise(0.1))
    assert torch.equal(model(digits(), seed=3), plain(digits(), seed=3))
    assert model.file_digest == "Defended(BitDepth(bits=2), InputNoise(0.1))"
    assert assay.load_model(f"{model.file_digest.replace('Defended(', 'Defended(' + repr('digits-mlp') + ', ')}")
    both = assay.load_model("LabelsOnly(Defended(Ensemble('digits-mlp', 'digits-mlp'), BitDepth(bits=2)))")
    assert isinstance(both, LabelsOnly)
    assert both(digits()).tolist() == assay.defend("digits-mlp", BitDepth(2))(digits()).argmax(dim=1).tolist()
    twice = assay.load_model("Ensemble(Defended('digits-mlp', BitDepth(bits=2)), 'digits-mlp')")
    assert twice(digits()).shape == (6, 10)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Defended('digits-mlp')", "the calls of its defenses"),
        ("Defended('digits-mlp', 'BitDepth(2)')", "the calls of its defenses"),
        ("Defended(BitDepth(2), 'digits-mlp')", "the calls of its defenses"),
        ("Defended('digits-mlp', BitDept(2))", "BitDepth"),
        ("Defended('digits-mlp', PGD(threat=Linf(0.1)))", "expected a defense"),
        ("Defended('digits-mlp', BitDepth(bits=0))", "whole number from 1"),
    ],
)
def test_mistakes_are_shown(text, said):
    with pytest.raises(GrammarError, match=said):
        assay.load_model(text)


def test_what_is_no_defense_is_refused():
    with pytest.raises(SettingError, match="needs a defense"):
        assay.defend("digits-mlp")
    with pytest.raises(SettingError, match="assay list defenses"):
        Defended(torch.nn.Identity(), torch.nn.Identity())
    with pytest.raises(AssayError):
        assay.defend("digits-mlp", "nonsense")


@pytest.mark.parametrize("defense", [BitDepth(2), RandomResizePad(lowest=7, final=8), NoiseLayers()], ids=repr)
def test_saved_and_loaded_it_gives_the_same_predictions(tmp_path, defense):
    text = f"Defended('SmallCNN(channels=1, size=8)', {defense!r})"
    torch.manual_seed(1)
    model = Defended(SmallCNN(channels=1, size=8).eval(), defense)
    saved.save(tmp_path / "net", text, model.state_dict(), {"data": "digits"})
    again = assay.load_model(str(tmp_path / "net"))
    index = torch.tensor([4, 2, 9, 0, 1, 7])
    assert torch.equal(again(digits(), seed=7, index=index), model(digits(), seed=7, index=index))
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    other = Defended(SmallCNN(channels=1, size=8).eval(), defense)
    other.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    assert torch.equal(other(digits(), seed=7), model(digits(), seed=7))


def test_every_command_takes_it():
    model = assay.load_model("Defended('digits-mlp', RandomResizePad(lowest=7, final=8))")
    attack = [("fgsm", assay.attacks.FGSM(threat=assay.Linf(0.05)))]
    found = assay.evaluate(model, "digits", threat="linf:0.05", suite=attack, limit=5, progress=False)
    assert found.robust_accuracy is not None
    assert {"random-output", "train-mode", "batch-dependent"}.isdisjoint(flag.code for flag in found.flags)
    fitted = assay.fit_universal(model, assay.load_data("digits", limit=20), threat=assay.Linf(0.1))
    assert fitted is not None


def test_a_network_is_trained_behind_its_defense_and_its_folder_is_a_model(tmp_path):
    text = "Defended('SmallCNN(channels=1, size=8, width=4)', NoiseLayers(first=0.1, inner=0.1))"
    data = assay.load_data("digits", limit=64)
    done = assay.train(text, data, recipe="standard", epochs=1, batch=32, out=tmp_path / "t", progress=False)
    assert saved.card(tmp_path / "t")["network"] == text
    again = assay.load_model(str(tmp_path / "t"))
    assert isinstance(again, Defended)
    assert torch.equal(again(digits(), seed=2), done.model(digits(), seed=2))
