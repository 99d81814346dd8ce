"""``assay substitute`` trains what the library trains, keeps it, and the folder is a surrogate."""

from __future__ import annotations

import json

import pytest

import assay as package

BASE = ("substitute", "LabelsOnly('digits-mlp')", "--data", "digits", "--limit", "300")
QUICK = (*BASE, "--max-queries", "260", "--rounds", "2", "--set", "epochs=4", "--held-out", "60")


def test_the_numbers_are_those_of_the_library(assay, tmp_path):
    found = assay(*QUICK, "--seed", "3", "--out", tmp_path / "s", "--json", "-q")
    assert (found.code, found.err) == (0, "")
    target, data = package.load_model("digits-mlp"), package.load_data("digits", limit=300)
    own = package.fit_substitute(target, data, max_queries=260, rounds=2, epochs=4, held_out=60, seed=3)
    assert found.json["queries"] == own.queries == 260
    assert found.json["agreement"] == own.agreement
    assert found.json["network"] == "DigitsMLP()"
    card = json.loads((tmp_path / "s" / "model.json").read_text())
    assert card["settings"]["target"] == "LabelsOnly('digits-mlp')"
    assert card["queries"] == 260


def test_the_folder_is_a_surrogate(assay, tmp_path):
    assert "queries 260 of 260" in assay(*QUICK, "--out", tmp_path / "s").said
    line = ("attack", "LabelsOnly('digits-mlp')", "--data", "digits", "--limit", "40", "--threat", "linf:0.3")
    won = assay(*line, "--attack", "transfer", "--set", f"surrogate='{tmp_path / 's'}'", "--json").json
    assert won["succeeded"] > 15


@pytest.mark.parametrize(
    ("more", "code", "says"),
    [
        (("--max-queries", "0"), 2, "max-queries"),
        (("--max-queries", "9", "--held-out", "9"), 2, "held_out (9) is a part of max_queries"),
        (("--max-queries", "9", "--set", "lamb=1"), 2, "there is no 'lamb'"),
        (("--max-queries", "9", "--network", "DigitsMLQ()"), 2, "Did you mean 'DigitsMLP'"),
        (("--max-queries", "9", "--network", "FashionCNN()"), 2, "takes no inputs of shape"),
    ],
)
def test_mistakes_are_named(refused, tmp_path, more, code, says):
    refused((*BASE, *more, "--out", str(tmp_path / "s")), code, says)


def test_what_is_there_is_kept(assay, refused, tmp_path):
    quick = (*BASE, "--max-queries", "30", "--rounds", "0", "--set", "epochs=1", "--out", str(tmp_path / "s"))
    assert assay(*quick, "-q").code == 0
    refused(quick, 3, "Replace it with --overwrite")
    assert assay(*quick, "-q", "--overwrite").code == 0
    (tmp_path / "s" / "notes.txt").write_text("mine")
    refused((*quick, "--overwrite"), 3, "holds other files")
