"""``assay evaluate``: options, output, exit codes."""

from __future__ import annotations

import csv
import json
import statistics
import subprocess
import sys

import pytest

from assay import evaluation as package

RUN = ("evaluate", "digits-mlp", "--data", "digits", "--threat", "linf:0.1", "--limit", "40")
QUICK = (*RUN, "--attack", "fgsm")


def test_table_files_and_exit_code(assay, finished):
    run = json.loads((finished / "run.json").read_text())
    assert run["state"] == "done"
    assert run["settings"]["model"] == "digits-mlp"
    assert run["settings"]["data"] == "digits"
    assert [stage["name"] for stage in run["settings"]["suite"]["stages"]] == ["pgd", "pgd-2", "square"]
    assert (finished / "report.html").exists()


def test_people_read_stderr(assay, tmp_path):
    found = assay(*QUICK, "--out", tmp_path / "run")
    assert (found.code, found.out) == (0, "")
    for text in ("clean accuracy", "robust accuracy", str(tmp_path / "run" / "run.json"), "report.html"):
        assert text in found.err


def test_programs_read_one_document_on_stdout():
    command = [sys.executable, "-m", "assay", *QUICK, "--json"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert found.returncode == 0
    results = json.loads(found.stdout)
    assert results["samples"] == 40
    assert results["robust_accuracy"]["value"] < results["clean_accuracy"]["value"]
    assert results["path"] is None
    assert "robust accuracy" in found.stderr


def test_quiet(assay):
    found = assay(*QUICK, "--quiet")
    assert (found.code, found.out, found.err) == (0, "", "")


@pytest.mark.parametrize(("share", "code"), [("0.99", 1), ("0.0", 0)])
def test_fail_under(assay, share, code):
    found = assay(*QUICK, "--fail-under", share, "--json")
    assert found.code == code
    assert ("Below --fail-under" in found.err) == bool(code)
    assert found.json["samples"] == 40


def test_a_suite_by_name(assay):
    found = assay(*RUN, "--suite", "quick", "--limit", "10", "--json", "-q")
    assert [stage["name"] for stage in found.json["stages"]] == ["apgd-ce", "apgd-t", "square"]
    assert found.json["settings"]["suite"]["name"] == "quick"
    assert found.json["settings"]["limit"] == 10


def test_a_budget_lengthens_what_the_suite_names_and_is_kept(assay, tmp_path):
    spent = {}
    for budget in ("0.25", "1"):
        found = assay(*RUN, "--budget", budget, "--out", tmp_path / budget, "--json", "-q")
        stages = {stage["name"]: stage for stage in found.json["stages"]}
        spent[budget] = stages["relay"]["backwards"] / stages["relay"]["asked"]
        suite = found.json["settings"]["suite"]
        steps = {stage["name"]: stage["attack"] for stage in suite["stages"]}
        assert suite.get("budget", 1.0) == float(budget)
        assert "steps=20" in steps["apgd-margin"]
        assert f"steps={20 * float(budget):g}" in steps["apgd-ce"]
    assert 0 < spent["0.25"] < spent["1"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--budget", "0"), "positive number"),
        (("--budget", "nan"), "positive number"),
        (("--budget", "2", "--suite", "quick"), "fixed cost"),
        (("--budget", "2", "--attack", "fgsm"), "fixed cost"),
    ],
)
def test_budgets_that_cannot_be(assay, options, says):
    found = assay(*RUN, *options)
    assert found.code == 2
    assert says in found.said


@pytest.fixture
def calls(monkeypatch):
    """What the library was asked for; the run itself is left out."""
    seen = []

    def fake(model, data, **settings):
        seen.append({"model": model, "data": data, **settings})
        raise KeyboardInterrupt

    monkeypatch.setattr(package, "evaluate", fake)
    return seen


def test_every_option_arrives(assay, calls, tmp_path):
    options = ("--seed", "3", "--chunk", "8", "--save-adv", "--resume", "--out", tmp_path / "run", "-q")
    options += ("--targeted", "next")
    assay(*RUN, *options)
    (call,) = calls
    wanted = {"seed": 3, "chunk": 8, "save_adv": True, "resume": True, "overwrite": False, "out": tmp_path / "run"}
    wanted |= {"limit": 40, "suite": "standard", "devices": 1, "progress": False, "targeted": "next"}
    wanted |= {"model_name": "digits-mlp", "data_name": "digits"}
    assert {name: call[name] for name in wanted} == wanted
    assert repr(call["threat"]) == "Linf(0.1)"
    assert len(call["data"]) == 40


def test_the_device_arrives(assay, calls):
    assay(*RUN)
    assay(*RUN, "--device", "cpu")
    assay(*RUN, "--devices", "2")
    assert [call["device"] for call in calls] == [None, "cpu", None]


def test_several_processes_get_names(assay, calls):
    assay(*RUN, "--devices", "2")
    assert (calls[0]["model"], calls[0]["data"], calls[0]["devices"]) == ("digits-mlp", "digits", 2)


def test_ctrl_c_says_how_to_go_on(assay, calls, tmp_path, monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["assay", *QUICK, "--attack", "PGD(steps=3)", "--overwrite", "--out", str(tmp_path)]
    )
    found = assay(*QUICK, "--overwrite", "--out", tmp_path)
    assert found.code == 130
    line = found.said.split("Continue with: ")[1]
    assert line.startswith("assay evaluate digits-mlp")
    assert line.endswith("--resume")
    assert "'PGD(steps=3)'" in line
    assert "--overwrite" not in line


def test_ctrl_c_without_a_run_directory(assay, calls):
    found = assay(*QUICK)
    assert found.code == 130
    assert "--out DIR" in found.said


MISTAKES = [
    ((*RUN[:4], "--suite", "quick"), 2, "Missing option '--threat'"),
    ((*RUN, "--suite", "quick", "--attack", "pgd"), 2, "not both"),
    ((*QUICK, "--resume"), 2, "needs --out"),
    ((*QUICK, "--overwrite"), 2, "needs --out"),
    ((*QUICK, "--save-adv"), 2, "needs --out"),
    ((*QUICK, "--resume", "--overwrite", "--out", "x"), 2, "give one of them"),
    ((*QUICK, "--fail-under", "45"), 2, "fail-under"),
    ((*QUICK, "--devices", "0"), 2, "devices"),
    ((*RUN, "--suite", "quik"), 2, "Did you mean quick"),
    ((*RUN, "--attack", "fgms"), 2, "Did you mean FGSM"),
    ((*RUN, "--attack", "PGD(threat=L2(1))"), 2, "is given too"),
    (("evaluate", "digits-mlp", "--data", "digits", "--threat", "lnf:0.1"), 2, "Did you mean Linf"),
    (("evaluate", "nonsense:x", *QUICK[2:]), 2, "no module named 'nonsense'"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), MISTAKES, ids=[" ".join(a[-3:]) for a, *_ in MISTAKES])
def test_mistakes(assay, arguments, code, says):
    found = assay(*arguments)
    assert (found.code, found.out) == (code, "")
    assert says in found.said


def test_integer_images_are_named_before_the_model_meets_them(assay, tmp_path, monkeypatch):
    (tmp_path / "integers.py").write_text(
        "import torch\ndef make(): return torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(4).long()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = assay("evaluate", "digits-mlp", "--data", "integers:make", "--threat", "linf:0.1")
    assert found.code == 2
    assert "got torch.uint8. For 8-bit images use x.float() / 255" in found.said


def test_a_folder_that_holds_a_run_already(assay, finished):
    found = assay(*QUICK, "--out", finished)
    assert found.code == 3
    assert "--resume" in found.said
    assert "--overwrite" in found.said


def test_resuming_a_finished_run_computes_nothing_and_says_the_same(assay, finished):
    stages = ("--attack", "fgsm", "--attack", "PGD(steps=3)", "--attack", "square:queries=5")
    before = json.loads((finished / "run.json").read_text())["results"]
    found = assay(*RUN, *stages, "--out", finished, "--resume", "--json")
    assert found.code == 0, found.err
    assert found.json["robust_accuracy"] == before["robust_accuracy"]
    assert found.json["stages"] == before["stages"]


# ---------------------------------------------------------------- without a budget

FREE = ("evaluate", "digits-mlp", "--data", "digits", "--threat", "linf", "--limit", "30")
SMALLEST = (*FREE, "--attack", "deepfool", "--attack", "fab:steps=3")


@pytest.fixture(scope="module")
def measured(assay, tmp_path_factory):
    """A finished run without a budget, and what it said."""
    out = tmp_path_factory.mktemp("runs") / "free"
    found = assay(*SMALLEST, "--out", out, "--json")
    assert found.code == 0, found.err
    return out, found


def test_without_a_number_distances_are_told(measured):
    out, found = measured
    assert found.json["robust_accuracy"] is None
    assert found.json["settings"]["minimal"] is True
    assert found.json["distances"]["median"] > 0
    assert [stage["asked"] for stage in found.json["stages"]] == [found.json["clean_accuracy"]["correct"]] * 2
    assert f"median distance {found.json['distances']['median']:.4g}" in found.said
    page = (out / "report.html").read_text()
    assert "Smallest distances" in page
    assert "Median distance" in page


def test_report_and_export_of_distances(assay, measured, tmp_path):
    out, found = measured
    (out / "report.html").unlink()
    assert assay("report", out).code == 0
    assert (out / "report.html").exists()
    assert assay("export", out, "--out", tmp_path / "rows.csv").code == 0
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    correct = found.json["clean_accuracy"]["correct"]
    assert len(rows) == 30 + 2 * correct
    least = {}
    for row in rows:
        if row["stage"] != "clean":
            least[row["index"]] = min(float(row["distance"]), least.get(row["index"], float("inf")))
    assert len(least) == correct
    assert statistics.median(least.values()) == pytest.approx(found.json["distances"]["median"])


@pytest.mark.parametrize(("share", "code"), [("0.5@0", 0), ("0.9@2/10", 1), ("0@1", 0)])
def test_fail_under_at_an_eps(assay, measured, share, code):
    out, _ = measured
    found = assay(*SMALLEST, "--out", out, "--resume", "--fail-under", share)
    assert found.code == code
    assert ("at eps 0.2 is 0." in found.said) == bool(code)


def test_the_suite_for_a_threat_without_a_number(assay, calls):
    assay(*FREE)
    assert calls[0]["suite"] == "minimal"


FREE_MISTAKES = [
    ((*FREE, "--suite", "standard"), "needs a budget"),
    ((*FREE, "--suite", "quick"), "use the suite minimal"),
    ((*SMALLEST, "--fail-under", "0.5"), "say at which eps, as in 0.5@0.1"),
    ((*SMALLEST, "--fail-under", "0.5@x"), "neither a share"),
    ((*SMALLEST, "--fail-under", "0.5@-1"), "eps cannot be -1"),
    ((*QUICK, "--fail-under", "0.5@0.1"), "give the share alone"),
    ((*QUICK, "--fail-under", "half"), "neither a share"),
]


@pytest.mark.parametrize(("arguments", "says"), FREE_MISTAKES, ids=[" ".join(a[-2:]) for a, _ in FREE_MISTAKES])
def test_mistakes_about_budgets(assay, arguments, says):
    found = assay(*arguments)
    assert (found.code, found.out) == (2, "")
    assert says in found.said
