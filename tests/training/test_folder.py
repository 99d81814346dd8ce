"""The folder of a run: begun, taken up, replaced, and whole at every moment."""

from __future__ import annotations

import json

import pytest
import torch

from assay import files
from assay.errors import SettingError, StoreError
from assay.training.folder import COLUMNS, Folder, read_checkpoint, read_metrics

SETTINGS = {"seed": 0, "augment": ["Flip()"]}


def begin(path, settings=SETTINGS, *, resume=False, overwrite=False):
    return Folder.begin(path, settings, {"python": "3"}, resume=resume, overwrite=overwrite)


def test_a_run_is_begun_and_taken_up(tmp_path):
    begin(tmp_path / "a" / "b").save(state="interrupted", error="x")
    found = begin(tmp_path / "a" / "b", resume=True)
    assert found.run["settings"] == SETTINGS
    assert (found.run["state"], found.run["error"]) == ("interrupted", "x")
    assert json.loads((tmp_path / "a" / "b" / "train.json").read_text()) == found.run


def test_resuming_nothing_starts_it(tmp_path):
    assert begin(tmp_path, resume=True).run["state"] == "running"


def test_a_run_is_not_replaced_unasked(tmp_path):
    folder = begin(tmp_path)
    folder.write_checkpoint({"step": 3})
    with pytest.raises(StoreError, match=r"holds a training run.*--resume.*--overwrite"):
        begin(tmp_path)
    assert read_checkpoint(tmp_path) == {"step": 3}


def test_what_is_replaced_leaves_nothing_behind(tmp_path):
    begin(tmp_path).write_checkpoint({"step": 3})
    for name in ("metrics.csv", "model.json", "model.safetensors"):
        (tmp_path / name).write_text("old")
    begin(tmp_path, {"seed": 1}, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["train.json"]
    assert read_checkpoint(tmp_path) is None


def test_other_settings_are_named_each(tmp_path):
    begin(tmp_path)
    with pytest.raises(SettingError, match=r'seed: 0 -> 1; augment\[0\]: "Flip\(\)" -> "Crop\(\)".*Repeat them'):
        begin(tmp_path, {"seed": 1, "augment": ["Crop()"]}, resume=True)


@pytest.mark.parametrize("asked", [{}, {"resume": True}, {"overwrite": True}])
def test_foreign_folders_are_left_alone(asked, tmp_path):
    (tmp_path / "checkpoint.pt").write_text("somebody's")
    with pytest.raises(StoreError, match="something else than a training run"):
        begin(tmp_path, **asked)
    assert (tmp_path / "checkpoint.pt").read_text() == "somebody's"
    with pytest.raises(StoreError, match="not a folder"):
        begin(tmp_path / "checkpoint.pt", **asked)


def test_what_a_killed_writer_left_is_no_obstacle(tmp_path):
    from socket import gethostname

    left = tmp_path / f".train.json.{gethostname().split('.')[0]}-999999999-ab12.tmp"
    left.write_text("half")
    assert begin(tmp_path).run["state"] == "running"
    assert not left.exists()


@pytest.mark.parametrize(("content", "says"), [("{", "damaged"), ("[]", "another format"), ('{"schema": 9}', "format")])
def test_a_damaged_record_is_told(content, says, tmp_path):
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(StoreError, match=says):
        begin(tmp_path, resume=True)
    assert begin(tmp_path, overwrite=True).run["state"] == "running"


def test_no_run(tmp_path):
    with pytest.raises(StoreError, match="holds no training run"):
        Folder.open(tmp_path)


def test_metrics_come_back(tmp_path):
    row = dict.fromkeys(COLUMNS, 0.1 + 0.2) | {"epoch": 1, "step": 7, "robust": None}
    begin(tmp_path).write_metrics([row, row | {"epoch": 2}])
    assert read_metrics(tmp_path) == [row, row | {"epoch": 2}]
    assert (tmp_path / "metrics.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


@pytest.mark.parametrize("at", [100, 600, 900])
def test_a_flipped_bit_is_noticed(at, tmp_path):
    folder = begin(tmp_path)
    folder.write_checkpoint({"weights": torch.ones(500), "step": 3})
    file = tmp_path / "checkpoint.pt"
    assert torch.equal(read_checkpoint(tmp_path)["weights"], torch.ones(500))
    content = bytearray(file.read_bytes())
    place = content.index(torch.ones(3).numpy().tobytes()) + at
    content[place] ^= 4
    file.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        read_checkpoint(tmp_path)
    assert read_checkpoint(tmp_path) is None


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    folder = begin(tmp_path)
    folder.write_checkpoint({"step": 3})

    def full(path, content):
        path.write_bytes(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "_write", full)
    with pytest.raises(StoreError, match=r"the disk is full.*kept.*--resume"):
        folder.write_checkpoint({"step": 4})
    assert read_checkpoint(tmp_path) == {"step": 3}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "train.json"]
