"""Threats in words, and a run whose budget counts features or pixels."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import assay
from assay.evaluation.report.threat import facts


@pytest.mark.parametrize(
    ("expression", "words", "measure"),
    [
        ("L0(20.0)", "L0 20 features", "L0, features"),
        ("L0(1.0, unit='pixel')", "L0 1 pixel", "L0, pixels"),
        ("L0(2.5, bounds=(-1.0, 1.0), unit='pixel')", "L0 2 pixels", "L0, pixels"),
        ("L0(eps=3000)", "L0 3,000 features", "L0, features"),
        ("L0(unit='pixel')", "L0, pixels", "L0, pixels"),
        ("Linf(8 / 255)", "Linf(8 / 255)", "Linf(8 / 255)"),
        ("Linf(0.03137254901960784)", "Linf 8/255 (0.03137)", "Linf"),
        ("L2(0.5)", "L2 0.5", "L2"),
        ("L2()", "L2", "L2"),
    ],
)
def test_threats_in_words(expression: str, words: str, measure: str) -> None:
    assert (facts(expression).words, facts(expression).measure) == (words, measure)


def test_a_size_in_a_sentence() -> None:
    assert facts("L0(unit='pixel')").sized("3.5") == "L0 3.5 pixels"
    assert facts("L2()").sized("3.5") == "L2 3.5"


@pytest.mark.parametrize("unit", ["feature", "pixel"])
def test_a_run_with_a_budget_of_few_features(tmp_path: Path, unit: str) -> None:
    threat = f"L0(3, unit={unit!r})"
    found = assay.evaluate(
        "digits-mlp", "digits", threat=threat, suite="quick", limit=30, out=tmp_path / "run", progress=False
    )
    assert found.robust_accuracy is not None
    assert found.robust_accuracy < found.clean_accuracy
    assert [flag.code for flag in found.flags] == ["stage-skipped"]  # Square has no L0
    curve = found.store.run["results"]["curve"]
    assert curve["eps"] == [0.0, 1.0, 2.0, 3.0]
    assert curve["robust_accuracy"][-1] == found.robust_accuracy
    page = re.sub(r"\s+", " ", (tmp_path / "run" / "report.html").read_text(encoding="utf-8"))
    assert f"within L0 3 {unit}s;" in page
    assert f"<dd>L0 3 {unit}s" in page
    assert f"up to eps (L0, {unit}s)" in page
