"""``assay certify``, and ``assay evaluate --defense``."""

from __future__ import annotations

import json

import pytest

BASE = ("certify", "digits-mlp", "--data", "digits", "--limit", "20", "--sigma", "0.1", "--draws", "200")
SHOWN = (
    "evaluate",
    "digits-mlp",
    "--data",
    "digits",
    "--limit",
    "20",
    "--threat",
    "linf:0.1",
    "--attack",
    "pgd:steps=5",
)


def test_the_table_and_the_run(assay, tmp_path):
    found = assay(*BASE, "--out", tmp_path / "c")
    assert (found.code, found.out) == (0, "")
    assert "certified accuracy" in found.said
    assert "20 samples" in found.said
    run = json.loads((tmp_path / "c" / "run.json").read_text())
    assert (run["kind"], run["state"], run["settings"]["model"]) == ("certification", "done", "digits-mlp")
    again = assay(*BASE, "--out", tmp_path / "c", "--resume", "--json", "--quiet")
    assert again.json["certified"] == run["results"]["certified"]
    assert again.err == ""
    shown = assay("report", tmp_path / "c")
    assert (shown.code, "certified" in (tmp_path / "c" / "report.html").read_text()) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((*BASE, "--resume"), 2, "--out"),
        ((*BASE[:-3], "--sigma", "0"), 2, "sigma"),
        ((*BASE, "--alpha", "2"), 2, "alpha"),
    ],
)
def test_mistakes(assay, arguments, code, says):
    found = assay(*arguments)
    assert (found.code, says in found.said) == (code, True)


def test_a_defense_is_shown_twice(assay, tmp_path):
    found = assay(
        *SHOWN, "--defense", "BitDepth(bits=2)", "--defense", "InputNoise(0.05)", "--json", "--out", tmp_path / "d"
    )
    assert found.code == 0
    told = found.json
    assert told["settings"]["model"] == "Defended('digits-mlp', BitDepth(bits=2), InputNoise(0.05))"
    assert told["defense"]["stands"]["correct"] <= told["defense"]["claimed"]["correct"]
    assert "claimed" in found.said
    listed = assay("list", "defenses")
    assert "RandomResizePad" in listed.said
    assert "quality" in assay("show", "JPEGDefense").said


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--defense", "BitDept(2)"), "BitDepth"),
        (("--surrogate", "fashion-cnn"), "give the defense"),
        (("--defense", "bit-depth", "--surrogate", "fashion-cnn"), "--surrogate"),
        (("--defense", "bit-depth", "--total-queries", "50"), "total_queries"),
    ],
)
def test_mistakes_about_defenses(assay, more, says):
    found = assay(*SHOWN, *more)
    assert found.code in (2, 3)
    assert says in found.said
