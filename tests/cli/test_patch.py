"""``assay patch`` fits what the library fits, keeps and prints it, and measures it on images that it has not seen."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image

import assay as package
from assay import universal as library
from assay.universal import Pasting, UniversalPatch

BASE = ("patch", "digits-mlp", "--data", "digits", "--limit", "100")
HOW = ("--area", "0.35", "--shape", "square", "--rotation", "10", "--scale", "0.9", "1.0")
FIT = (*BASE, *HOW, "--set", "steps=60", "--set", "batch=20", "--target", "3")
FILES = ("patch.safetensors", "patch.json", "patch.png", "patch-print.png")


def test_the_numbers_are_those_of_the_library(assay, tmp_path):
    found = assay(*FIT, "--fit", "60", "--seed", "3", "--out", tmp_path / "p", "--json")
    assert found.code == 0, found.err
    model, data = package.load_model("digits-mlp"), package.load_data("digits", limit=100)
    fit, test = library.split(data, 60, seed=3)
    how = {"area": 0.35, "shape": "square", "rotation": 10.0, "scale": (0.9, 1.0)}
    own = package.fit_patch(model, fit, target=3, seed=3, steps=60, batch=20, **how)
    document = found.json
    assert document["kind"] == "patch"
    assert document["rates"]["fit"] == own.rates["fit"].as_dict()
    assert document["rates"]["test"] == own.measure(model, test).as_dict()
    assert document["rates"]["random"]["target"]["high"] < document["rates"]["test"]["target"]["low"]
    assert document["files"] == [str(tmp_path / "p" / name) for name in FILES]
    saved = UniversalPatch.load(tmp_path / "p" / FILES[0])
    assert torch.allclose(saved.patch, own.patch, atol=1e-6)
    assert saved.pasting == Pasting(**how)
    assert json.loads((tmp_path / "p" / FILES[1]).read_text())["state"] == "finished"
    with Image.open(tmp_path / "p" / FILES[3]) as picture:
        assert picture.width == round(10 / 2.54 * 300)
    for row in (
        "fooling rate, test",
        "target reached, random",
        "places turned by up to 10 degrees, scaled by 0.9 to 1",
    ):
        assert row in found.said


def test_a_saved_patch_is_measured_and_gone_on_from(assay, tmp_path):
    patch = UniversalPatch.random(Pasting(area=0.2), torch.zeros(1, 8, 8))
    patch.save(tmp_path / "p")
    found = assay(*BASE, "--load", tmp_path / "p", "--json")
    assert found.code == 0, found.err
    data = package.load_data("digits", limit=100)
    assert found.json["measured"] == patch.measure(package.load_model("digits-mlp"), data).as_dict()
    more = assay(*BASE, "--start", tmp_path / "p", "--set", "steps=2", "--set", "scouts=0", "--json", "-q")
    assert more.code == 0, more.err
    assert more.json["pasting"]["area"] == 0.2
    assert more.json["settings"]["warm_start"] is True


def test_the_folder_of_a_run_stands_for_the_patch_in_it(assay, refused, tmp_path):
    patch = UniversalPatch.random(Pasting(area=0.2), torch.zeros(1, 8, 8))
    (tmp_path / "run").mkdir()
    patch.save(tmp_path / "run" / FILES[0])
    by_file, by_folder = (
        assay(*BASE, "--load", path, "--json").json["measured"]
        for path in (tmp_path / "run" / FILES[0], tmp_path / "run")
    )
    assert by_folder == by_file
    more = assay(*BASE, "--start", tmp_path / "run", "--set", "steps=2", "--set", "scouts=0", "--json", "-q")
    assert more.json["settings"]["warm_start"] is True
    (tmp_path / "empty").mkdir()
    refused((*BASE, "--load", tmp_path / "empty"), 3, "there is no file")


def test_ctrl_c_keeps_the_present_patch(assay, tmp_path, monkeypatch):
    whole = library.patch_fitting

    def stopped(*arguments, **settings):
        for number, now in enumerate(whole(*arguments, **settings)):
            if number == 4:
                raise KeyboardInterrupt
            yield now

    monkeypatch.setattr(library, "patch_fitting", stopped)
    found = assay(*FIT, "--out", tmp_path / "p")
    assert found.code == 130
    assert "go on from it with --start" in found.said
    assert UniversalPatch.load(tmp_path / "p" / FILES[0]).patch.std() > 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((*BASE, "--area", "2"), 2, "area must be above 0"),
        ((*BASE, "--area", "0.9"), 2, "choose a smaller area"),
        ((*BASE, "--shape", "star"), 2, "'circle' or 'square'"),
        ((*BASE, "--set", "step=3"), 2, "Did you mean steps"),
        ((*BASE, "--target", "12"), 2, "knows 0 to 9"),
        ((*BASE, "--load", "absent", "--area", "0.1"), 2, "--load fits nothing"),
        ((*BASE, "--load", "absent"), 3, "there is no file absent"),
    ],
)
def test_mistakes(refused, arguments, code, says):
    refused(arguments, code, says)
