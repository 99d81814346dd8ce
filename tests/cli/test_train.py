"""``assay train``: options, output, exit codes; how processes are started and started again."""

from __future__ import annotations

import json

import pytest
import torch

from assay import files
from assay.cli import processes
from assay.cli.main import main
from assay.errors import DataError, DivergedError, LostProcessError, StoreError, TrainingError

RUN = ("train", "DigitsMLP()", "--data", "digits", "--limit", "100", "--batch", "16", "--epochs", "2")
PGD = (*RUN, "--recipe", "pgdat", "--threat", "linf:0.1", "--set", "steps=2")
QUICK = ("--data", "digits", "--threat", "linf:0.1", "--limit", "9", "--attack", "fgsm", "--quiet")


def test_a_run(assay, tmp_path):
    out = tmp_path / "run"
    found = assay(*PGD, "--out", out, "--average", "ema", "--augment", "flip", "--augment", "Crop(padding=1)")
    assert (found.code, found.out) == (0, "")
    assert f"evaluate {out} --data DATA --threat linf:0.1" in found.said
    assert "--out" not in found.said
    for text in ("epoch loss clean robust", "1/2", "2/2", "kept epoch", "under PGD-10", "evaluate it: assay evaluate"):
        assert text in found.said
    settings = json.loads((out / "train.json").read_text())["settings"]
    assert "steps=2" in settings["recipe"]
    assert settings["augment"] == ["Flip(probability=0.5)", "Crop(padding=1)"]
    assert assay("evaluate", out, *QUICK).code == 0


def test_programs_read_one_document(assay, tmp_path):
    found = assay(*PGD, "--json", "--quiet", "--out", tmp_path / "run")
    assert (found.code, found.err) == (0, "")
    assert found.json["epochs"] == 2
    assert found.json["out"] == str(tmp_path / "run")
    assert 0 <= found.json["robust_accuracy"] <= found.json["clean_accuracy"] <= 1
    alone = assay(*RUN, "--recipe", "standard", "--validation", "0", "--json")
    assert "no --out: the network is measured and then forgotten" in alone.said
    assert (alone.json["clean_accuracy"], alone.json["kept_epoch"], alone.json["out"]) == (None, None, None)


def test_resume_and_overwrite(assay, refused, tmp_path):
    line = (*RUN, "--recipe", "standard", "--out", tmp_path / "run")
    assert assay(*line, "--resume").code == 0
    refused(line, 3, "holds a training run. Continue it with --resume")
    refused((*line, "--resume", "--seed", "1"), 2, "seed: 0 -> 1")
    refused((*line, "--resume", "--overwrite"), 2, "give one of them")
    assert assay(*line, "--resume").code == 0
    assert assay(*line, "--overwrite", "--seed", "1").code == 0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--resume",), "needs --out"),
        (("--overwrite",), "needs --out"),
        (("--batch", "99"), "batch must lie between 1 and the 90 samples"),
        (("--precision", "8-true"), "precision must be one of"),
        (("--optimizer", "SGD(lr=0)"), "lr of SGD"),
        (("--keep", "first"), "'best' or 'last'"),
        (("--extra-share", "0.5"), "given together"),
        (("--data", "nothing"), "nothing"),
        (("--augment", "flop"), "Flip"),
    ],
)
def test_usage_errors(more, says, refused):
    refused((*RUN, "--recipe", "standard", *more), 2, says)


def test_a_loss_without_bounds(refused, tmp_path):
    line = (*PGD, "--optimizer", "SGD(lr=1e30)", "--out", tmp_path / "run")
    refused(line, 3, "Try a lower learning rate")
    assert json.loads((tmp_path / "run" / "train.json").read_text())["state"] == "failed"
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert all(value.isfinite().all() for value in state["model"].values())


def test_a_full_disk(assay, refused, tmp_path, monkeypatch):
    line, whole = (*PGD, "--out", tmp_path / "run"), files._write

    def full(path, content):
        if "checkpoint" in path.name and full.left == 0:
            raise OSError(28, "No space left on device")
        full.left -= "checkpoint" in path.name
        whole(path, content)

    full.left = 2  # the one before the first step, and that of the first epoch
    monkeypatch.setattr(files, "_write", full)
    refused(line, 3, "the disk is full")
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["progress"]["step"] == 5
    assert assay("evaluate", tmp_path / "run", *QUICK).code == 0
    monkeypatch.setattr(files, "_write", whole)
    assert assay(*line, "--resume").code == 0


@pytest.fixture
def launched(monkeypatch, capsys):
    """Runs a command line whose processes give these exit codes: its own code, what it says, what it started."""

    def run(codes, *arguments):
        lines, left = [], list(codes)

        def start(devices, line):
            lines.append((devices, line))
            return left.pop(0)

        monkeypatch.setattr(processes, "_exit_codes", start)
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which it would set
        code = main([str(each) for each in arguments])
        assert not left
        return code, " ".join(capsys.readouterr().err.translate(dict.fromkeys(map(ord, "│"), " ")).split()), lines

    return run


@pytest.mark.parametrize(
    ("codes", "code", "says"),
    [
        ([[]], 0, ""),
        ([[2]], 2, ""),
        ([[3]], 3, "the processes ended with [3]; the run so far is kept in"),
        ([[130]], 130, ""),
        ([[-9], []], 0, "a process was killed (signal 9): on from the checkpoint"),
        ([[-9, 3], [-11], []], 0, "a process was killed (signal 11)"),
        ([[-9], [3]], 3, "the processes ended with [3]"),
        ([[-9]] * 4, 3, "the processes ended with [-9]"),
    ],
)
def test_processes_are_started_again_when_one_is_killed(codes, code, says, launched, tmp_path):
    found, said, lines = launched(codes, *PGD, "--devices", "2", "--out", tmp_path / "run", "--overwrite")
    assert found == code
    assert says in said
    for turn, (devices, arguments) in enumerate(lines):
        assert devices == 2
        assert arguments[:4] == list(PGD[:4])
        assert not any("devices" in each for each in arguments)
        assert ("--overwrite" in arguments, "--resume" in arguments) == (turn == 0, turn > 0)


def test_nothing_to_go_on_from(launched):
    code, said, lines = launched([[-9]], *PGD, "--devices=2")
    assert (code, len(lines)) == (3, 1)
    assert "nothing was kept: give --out" in said


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("error", "code", "alone"),
    [
        (DataError("no such data"), 2, False),
        (DivergedError("the loss became nan"), 3, False),
        (KeyboardInterrupt(), 130, False),
        (StoreError("no such folder"), 3, True),
        (TrainingError("too little memory"), 3, True),
        (LostProcessError("another process is gone"), 3, True),
    ],
)
def test_what_is_wrong_everywhere_is_said_once(rank, error, code, alone, assay, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setattr("assay.training.train", fail)
    found = assay(*PGD)
    assert found.code == code
    assert bool(found.err) == (rank == 0 or alone)
