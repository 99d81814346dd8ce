"""``assay evaluate``: options, output, exit codes."""

from __future__ import annotations

import json
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
    assay(*RUN, *options)
    (call,) = calls
    wanted = {"seed": 3, "chunk": 8, "save_adv": True, "resume": True, "overwrite": False, "out": tmp_path / "run"}
    wanted |= {"limit": 40, "suite": "standard", "devices": 1, "progress": False}
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
    ((*RUN, "--attack", "pdg"), 2, "Did you mean PGD"),
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
