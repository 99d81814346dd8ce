"""``assay attribute`` measures what the library measures."""

from __future__ import annotations

import numpy as np
import pytest

import assay as package

BASE = ("attribute", "digits-mlp", "--data", "digits", "--limit", "24", "--threat", "linf:0.1", "--set", "steps=4")


def test_the_numbers_are_those_of_the_library(assay):
    found = assay(*BASE, "--attribution", "IntegratedGradients(steps=5)", "--change", "topk:k=6", "--json", "--quiet")
    assert (found.code, found.err) == (0, "")
    attack = package.attacks.PGD(threat=package.Linf(0.1), steps=4)
    wanted = package.attribute(
        "digits-mlp",
        "digits",
        attack=attack,
        attribution=package.attribution.IntegratedGradients(steps=5),
        change=package.attribution.TopK(k=6),
        limit=24,
    )
    assert {name: found.json[name] for name in wanted.results} == wanted.results


def test_a_run_is_kept_continued_and_reported(assay, tmp_path):
    out = tmp_path / "a"
    found = assay(*BASE, "--out", out, "--batch", "10")
    assert (found.code, found.out) == (0, "")
    for words in ("top-k intersection", "centre shift", "random", "Decisions kept: 100.0%", "report.html"):
        assert words in found.said
    assert assay(*BASE, "--out", out, "--batch", "10").code == 3
    assert assay(*BASE, "--out", out, "--batch", "10", "--resume").code == 0
    (out / "report.html").unlink()
    assert assay("report", out).code == 0
    assert "Attributional robustness" in (out / "report.html").read_text()


def test_fail_under_is_the_top_k_intersection(assay):
    assert assay(*BASE, "--fail-under", "0.05", "--quiet").code == 0
    found = assay(*BASE, "--fail-under", "0.999", "--quiet")
    assert found.code == 1
    assert "0.999 is required" in found.said


def test_an_attack_that_does_less_than_chance_is_no_evidence(assay, tmp_path):
    """Without a random start and a surrogate, the centre's squared shift has no gradient at the clean map."""
    stuck = (*BASE[:-2], "--attack", "bim:steps=3", "--change", "masscentre", "--beta", "0", "--out", tmp_path / "s")
    found = assay(*stuck)
    assert found.code == 0
    assert "Weak attack" in found.said
    assert "Weak attack" in (tmp_path / "s" / "report.html").read_text()
    assert "Weak attack" not in assay(*BASE).said


@pytest.mark.parametrize("command", [BASE, ("certify", "digits-mlp", "--data", "digits", "--limit", "8")])
def test_ctrl_c_tells_how_it_goes_on(assay, tmp_path, monkeypatch, command):
    def stopped(*arguments, **settings):
        raise KeyboardInterrupt

    monkeypatch.setattr("assay.evaluation.parts.Asked.in_parts", stopped)
    found = assay(*command, "--out", tmp_path / "a")
    assert found.code == 130
    assert "--resume" in found.said


def test_masks_are_read_from_a_file(assay, tmp_path):
    file = tmp_path / "masks.npy"
    np.save(file, np.ones((24, 8, 8), dtype=np.uint8))
    row = assay(*BASE, "--masks", file, "--json", "--quiet").json["metrics"]["inside"]
    assert row["before"]["value"] == row["attack"]["value"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--attribution", "IntegratedGradient()"), "Did you mean IntegratedGradients"),
        (("--attribution", "TopK()"), "expected an attribution"),
        (("--change", "Linf(0.1)"), "expected a change"),
        (("--resume",), "give --out"),
    ],
)
def test_mistakes_are_named(refused, more, says):
    refused((*BASE, *more), 2, says)


def test_a_threat_is_needed(refused):
    refused(("attribute", "digits-mlp", "--data", "digits"), 2, "give --threat")
    refused(("attribute", "digits-mlp", "--data", "digits", "--threat", "linf"), 2, "budget")


def test_attributions_and_changes_are_listed_and_shown(assay):
    assert "SmoothGrad" in assay("list", "attributions").said
    assert "MassCentre" in assay("list", "changes").said
    shown = assay("show", "IntegratedGradients", "--json").json
    assert {each["name"] for each in shown["parameters"]} == {"steps", "baseline", "rule"}
