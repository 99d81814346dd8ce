"""``assay corrupt`` measures what the library measures, goes on, writes copies, and refuses what makes no sense."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

import assay as package
from assay.files import write_atomically

BASE = ("corrupt", "digits-mlp", "--data", "digits", "--limit", "40")
QUICK = (*BASE, "--corruptions", "noise,fog", "--severities", "1,5")


def test_the_numbers_are_those_of_the_library(assay):
    found = assay(*QUICK, "--seed", "3", "--chunk", "15", "--json", "--quiet")
    assert (found.code, found.err) == (0, "")
    model, data = package.load_model("digits-mlp"), package.load_data("digits", limit=40)
    expected = package.corrupt(model, data, corruptions=["noise", "fog"], severities=[1, 5], seed=3, progress=False)
    assert {name: found.json[name] for name in expected.results} == expected.results
    assert found.json["model"] == "digits-mlp"


def test_a_run_is_kept_continued_measured_against_and_shown_again(assay, tmp_path):
    out = tmp_path / "run"
    first = assay(*QUICK, "--out", out)
    assert (first.code, first.out) == (0, "")
    for said in ("gaussian_noise", "clean accuracy", "mean accuracy", "report.html"):
        assert said in first.said
    assert assay(*QUICK, "--out", out).code == 3
    again = assay(*QUICK, "--out", out, "--resume", "--baseline", out, "--json")
    assert again.code == 0
    assert again.json["against"]["errors"]["corruptions"]["fog"] == pytest.approx(1.0)
    (out / "report.html").unlink()
    assert assay("report", out).code == 0
    assert "Accuracy by corruption and severity" in (out / "report.html").read_text()
    assert json.loads((out / "run.json").read_text())["settings"]["corruptions"][-1] == "fog"


def test_copies_are_written_and_read(assay, tmp_path):
    written = assay("corrupt", "--data", "digits", "--limit", "20", "--save", tmp_path / "c", "--corruptions", "fog")
    assert (written.code, written.out) == (0, "")
    assert np.load(tmp_path / "c" / "fog.npy").shape == (100, 8, 8)
    found = assay("corrupt", "digits-mlp", "--copies", tmp_path / "c", "--json", "-q")
    expected = assay(*BASE[:-1], "20", "--corruptions", "fog", "--json", "-q")
    assert found.json["corruptions"] == expected.json["corruptions"]
    assert found.json["clean"] is None


@pytest.mark.parametrize("layout", ["npy", "folders"])
def test_writing_that_was_stopped_goes_on(assay, tmp_path, monkeypatch, layout):
    command = ("corrupt", "--data", "digits", "--limit", "8", "--corruptions", "fog,contrast", "--layout", layout)
    saved = write_atomically if layout == "folders" else os.replace

    def stop(path, *more):
        if "contrast" in str(path):
            raise KeyboardInterrupt
        return saved(path, *more)

    with monkeypatch.context() as patch:
        patch.setattr("assay.data.copying.write_atomically" if layout == "folders" else "os.replace", stop)
        found = assay(*command, "--save", tmp_path / "c")
    assert found.code == 130
    assert "The same command again goes on" in found.said
    assert assay(*command, "--save", tmp_path / "c").code == 0
    assert assay(*command, "--save", tmp_path / "whole").code == 0
    written = {path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*") if path.is_file()}
    assert len(written) > 3
    for path in written:
        assert (tmp_path / "c" / path).read_bytes() == (tmp_path / "whole" / path).read_bytes()
    assert not list((tmp_path / "c").rglob("*.part"))


def test_a_share_can_be_required(assay):
    assert assay(*QUICK, "--fail-under", "0.01", "-q").code == 0
    below = assay(*QUICK, "--fail-under", "1", "-q")
    assert below.code == 1
    assert "is below 1" in below.said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("corrupt",), "give a MODEL to measure"),
        (("corrupt", "digits-mlp"), "needs clean images"),
        ((*BASE, "--corruptions", "fogg"), "Did you mean"),
        ((*BASE, "--severities", "1,x"), "no whole number"),
        ((*BASE, "--severities", "7"), "from 1 to 5"),
        ((*BASE, "--resume"), "needs --out"),
        (("corrupt", "digits-mlp", "--copies", "/nowhere"), "holds no corrupted images"),
        (("corrupt", "digits-mlp", "--copies", "/nowhere", "--table", "cifar"), "cannot be chosen"),
        (("corrupt", "--data", "digits", "--save", "/nowhere/c", "--out", "run"), "what is measured of a MODEL"),
        (("corrupt", "--data", "digits", "--save", "/nowhere/c", "--severities", "1"), "all five"),
        ((*BASE, "--baseline", "alexnet"), "ImageNet-C"),
    ],
)
def test_what_makes_no_sense_is_refused(refused, arguments, says):
    refused(arguments, 2, says)


def test_corruptions_are_listed_and_shown(assay):
    assert "JPEGCompression" in assay("list", "corruptions").said
    shown = assay("show", "gaussian-blur")
    assert "Gaussian blur of s pixels" in shown.said
    assert "severity" in shown.said
