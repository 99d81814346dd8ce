"""``assay universal`` fits what the library fits, keeps it, and measures it on samples that it has not seen."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

import assay as package
from assay import universal as library
from assay.universal import Universal

BASE = ("universal", "digits-mlp", "--data", "digits", "--limit", "100")
SGD = (*BASE, "--threat", "linf:0.25", "--set", "epochs=3", "--set", "batch=20")
FILES = ("universal.safetensors", "universal.json", "universal.png")


def test_the_numbers_are_those_of_the_library(assay, tmp_path):
    found = assay(*SGD, "--fit", "60", "--seed", "3", "--out", tmp_path / "u", "--json")
    assert found.code == 0, found.err
    model, data = package.load_model("digits-mlp"), package.load_data("digits", limit=100)
    fit, test = library.split(data, 60, seed=3)
    own = package.fit_universal(model, fit, threat=package.Linf(0.25), epochs=3, batch=20, seed=3)
    rates = {"fit": own.rates["fit"], "test": own.measure(model, test)}
    document = found.json
    for name, known in rates.items():
        assert document["rates"][name] == known.as_dict()
    assert document["rates"]["test"]["samples"] == 40
    assert document["rates"]["random"]["fooling"]["high"] < document["rates"]["test"]["fooling"]["low"]
    assert document["settings"]["method"] == "StochasticAscent(epochs=3, batch=20, rel_step=0.5, clip=None)"
    assert document["settings"]["model"] == "digits-mlp"
    assert document["spent"]["passes"] == 3
    assert document["files"] == [str(tmp_path / "u" / name) for name in FILES]
    saved = Universal.load(tmp_path / "u" / FILES[0])
    assert torch.allclose(saved.perturbation, own.perturbation, atol=1e-6)
    assert saved.rates["test"] == rates["test"]
    record = json.loads((tmp_path / "u" / FILES[1]).read_text())
    assert record["state"] == "finished"
    assert record["rates"] == document["rates"]
    with Image.open(tmp_path / "u" / FILES[2]) as picture:
        assert picture.width > 500


def test_the_table_is_for_people(assay):
    found = assay(*SGD)
    assert (found.code, found.out) == (0, "")
    for row in ("fooling rate, test", "fooling rate, random", "accuracy, test", "passes 3 over 50 samples"):
        assert row in found.said


def test_deepfool_and_quiet(assay):
    found = assay(*BASE, "--threat", "l2:2", "--method", "deepfool", "--set", "passes=1", "--fit", "20", "-q", "--json")
    assert (found.code, found.err) == (0, "")
    assert found.json["settings"]["method"].startswith("DeepFoolPasses(passes=1")
    assert found.json["rates"]["fit"]["fooling"]["value"] > 0


def test_a_saved_perturbation_is_measured(assay, tmp_path):
    v = Universal.random(package.Linf(0.3), torch.zeros(1, 8, 8))
    v.save(tmp_path / "v")
    found = assay(*BASE, "--load", tmp_path / "v", "--json")
    assert found.code == 0, found.err
    data = package.load_data("digits", limit=100)
    assert found.json["measured"] == v.measure(package.load_model("digits-mlp"), data).as_dict()
    (tmp_path / "run").mkdir()
    v.save(tmp_path / "run" / FILES[0])
    assert assay(*BASE, "--load", tmp_path / "run", "-q", "--json").json["measured"] == found.json["measured"]
    assert "fooling rate" in found.said


def test_other_data_to_measure_on_and_a_start(assay, tmp_path):
    v = Universal.random(package.Linf(0.25), torch.zeros(1, 8, 8))
    v.save(tmp_path / "v")
    found = assay(*SGD, "--set", "rel_step=1e-9", "--start", tmp_path / "v", "--test-data", "digits", "-q", "--json")
    assert found.json["settings"]["samples"] == found.json["rates"]["test"]["samples"] == 100
    data, model = package.load_data("digits", limit=100), package.load_model("digits-mlp")
    assert found.json["rates"]["test"] == v.measure(model, data).as_dict()


def test_what_is_there_is_kept_unless_told_otherwise(assay, tmp_path):
    out = tmp_path / "u"
    assert assay(*SGD, "--out", out, "-q").code == 0
    before = (out / FILES[0]).read_bytes()
    found = assay(*SGD, "--seed", "1", "--out", out)
    assert found.code == 3
    assert "Replace it with --overwrite" in found.said
    assert assay(*SGD, "--target", "12", "--out", out, "--overwrite").code == 2
    assert (out / FILES[0]).read_bytes() == before
    assert assay(*SGD, "--seed", "1", "--out", out, "--overwrite", "-q").code == 0
    assert (out / FILES[0]).read_bytes() != before
    (out / "mine.txt").write_text("")
    found = assay(*SGD, "--out", out, "--overwrite")
    assert found.code == 3
    assert "holds other files" in found.said
    assert (out / "mine.txt").exists()


def test_ctrl_c_keeps_the_present_perturbation(assay, tmp_path, monkeypatch):
    whole = library.fitting

    def stopped(*arguments, **settings):
        for number, now in enumerate(whole(*arguments, **settings)):
            if number == 4:
                raise KeyboardInterrupt
            yield now

    monkeypatch.setattr(library, "fitting", stopped)
    found = assay(*SGD, "--out", tmp_path / "u", "--json")
    assert found.code == 130
    assert "go on from it with --start" in found.said
    assert found.json["interrupted"] is True
    record = json.loads((tmp_path / "u" / FILES[1]).read_text())
    assert (record["state"], record["spent"]["passes"], record["rates"]) == ("interrupted", 1, {})
    assert Universal.load(tmp_path / "u" / FILES[0]).perturbation.abs().max() > 0


def test_ctrl_c_before_the_first_step(assay, tmp_path, monkeypatch, stopped_at_once):
    monkeypatch.setattr(library, "fitting", stopped_at_once)
    found = assay(*SGD, "--out", tmp_path / "u", "--json")
    assert (found.code, found.out) == (130, "")
    assert "before the first step" in found.said


def test_a_kill_leaves_what_the_last_pass_gave(assay, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    monkeypatch.setattr("assay.cli.fits.measured", killed)
    with pytest.raises(Killed):
        assay(*SGD, "--out", tmp_path / "u")
    record = json.loads((tmp_path / "u" / FILES[1]).read_text())
    assert (record["state"], record["spent"]["passes"]) == ("running", 3)
    assert Universal.load(tmp_path / "u" / FILES[0]).spent["passes"] == 3


MISTAKES = [
    (BASE, 2, "needs a threat"),
    ((*BASE, "--threat", "linf"), 2, "needs a budget"),
    ((*BASE, "--threat", "l1:3"), 2, "in Linf and L2"),
    ((*SGD, "--set", "epoch=3"), 2, "Did you mean epochs"),
    ((*SGD, "--set", "epochs"), 2, "written name=value"),
    ((*SGD, "--set", "clip=a"), 2, "clip must be a positive number"),
    ((*SGD, "--method", "gd"), 2, "there are sgd, deepfool"),
    ((*SGD, "--target", "10"), 2, "knows 0 to 9"),
    ((*SGD, "--fit", "100"), 2, "both parts need some"),
    ((*SGD, "--overwrite"), 2, "needs --out"),
    ((*SGD, "--load", "v"), 2, "--load fits nothing"),
    ((*BASE, "--load", "absent"), 3, "there is no file absent"),
    ((*SGD, "--start", "absent"), 3, "there is no file absent"),
    (("universal", "fashion-cnn", *SGD[2:]), 2, "cannot take the data 'digits'"),
    ((*SGD, "--test-data", "fashion-mnist"), 2, "--test-data of (1, 28, 28)"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), MISTAKES, ids=[says for *_, says in MISTAKES])
def test_mistakes(refused, arguments, code, says):
    refused(arguments, code, says)


def test_a_folder_that_cannot_be_written_is_noticed_before_the_work(assay, tmp_path, monkeypatch, no_work):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(library, "fitting", no_work)
    found = assay(*SGD, "--out", tmp_path / "file" / "u")
    assert found.code == 3
    assert "cannot be written" in found.said


def test_a_full_disk_says_so(assay, tmp_path, monkeypatch, full_disk):
    monkeypatch.setattr(Universal, "save", full_disk)
    found = assay(*SGD, "--out", tmp_path / "u")
    assert found.code == 3
    assert "No space left on device" in found.said
    assert "--resume" not in found.said
