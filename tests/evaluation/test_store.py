from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from assay import files
from assay.errors import StoreError
from assay.evaluation.schema import Environment, Settings
from assay.evaluation.store import Store

Fill = Callable[[Store], None]


def shard_file(store: Store, stage: str, start: int) -> Path:
    return store.shard_path(stage, start)


# ---------------------------------------------------------------- round trip


def test_a_shard_comes_back_as_it_was_written(store: Store, fill: Fill) -> None:
    fill(store)
    shard = Store.open(store.path).read_shard("first", 0)
    assert (shard.stage, shard.start, shard.stop) == ("first", 0, 3)
    assert shard.columns["index"].tolist() == [1, 2]
    assert shard.columns["success"].tolist() == [1, 0]
    assert shard.columns["distance"].dtype == torch.float64
    assert shard.columns["distance"].tolist() == [pytest.approx(0.06), torch.inf]
    assert Store.open(store.path).read_shard("clean", 3).seconds == 0.5


def test_merge_is_the_worst_case_of_each_sample(store: Store, fill: Fill) -> None:
    fill(store)
    table = store.merge()
    assert table.index.tolist() == [0, 1, 2, 3, 4]
    assert table.robust.tolist() == [False, False, True, False, True]
    assert table.stage.tolist() == [0, 1, -1, 2, -1]
    assert table.distance.tolist() == [0.0, pytest.approx(0.06), torch.inf, pytest.approx(0.08), torch.inf]
    assert table.adv_prediction.tolist() == [1, 9, 2, 9, 1]
    assert table.forwards.tolist() == [1, 11, 21, 21, 21]
    assert table.backwards.tolist() == [0, 4, 8, 8, 8]
    assert table.stages == ("clean", "first", "second")


def test_done_lists_the_chunks_of_a_stage(store: Store, fill: Fill) -> None:
    assert store.chunks == [(0, 3), (3, 5)]
    assert store.done("clean") == []
    fill(store)
    assert store.done("second") == [0, 3]
    shard_file(store, "second", 0).unlink()
    assert store.done("second") == [3]


def test_state_and_seconds_survive_reopening(tmp_path: Path, settings: Settings, environment: Environment) -> None:
    store = Store.begin(tmp_path / "run", settings, environment)
    store.update(state="interrupted", seconds=1.5)
    again = Store.begin(tmp_path / "run", settings, environment, resume=True)
    assert again.run["state"] == "running"
    again.update(state="done", seconds=2.0)
    assert Store.open(store.path).run["seconds"] == 3.5
    assert Store.open(store.path).run["finished"] is not None


# ---------------------------------------------------------------- damage


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [damage_cut, damage_empty, damage_flip])
def test_a_damaged_shard_is_named_by_readers_and_set_aside_by_a_resumed_run(
    store: Store, fill: Fill, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    fill(store)
    path = shard_file(store, "first", 3)
    damage(path)
    with pytest.raises(StoreError, match=rf"{path}.*damaged.*--resume"):
        store.merge()
    assert path.exists()
    assert store.find_shard("first", 3) is None
    assert not path.exists()
    assert store.corrupt() == [Path("shards/01-first/00000003.safetensors.corrupt")]
    assert "damaged" in caplog.text
    assert store.find_shard("first", 0) is not None


def test_a_shard_of_another_run_or_place_is_damage(store: Store, fill: Fill) -> None:
    fill(store)
    shard_file(store, "first", 3).write_bytes(shard_file(store, "first", 0).read_bytes())
    with pytest.raises(StoreError, match="start is '0' where '3' belongs"):
        store.read_shard("first", 3)
    store.run["settings_hash"] = "another"
    with pytest.raises(StoreError, match="settings_hash"):
        store.read_shard("first", 0)


def test_a_missing_shard_says_that_the_run_is_not_finished(store: Store, fill: Fill) -> None:
    fill(store)
    shard_file(store, "second", 3).unlink()
    with pytest.raises(StoreError, match=r"00000003.*missing.*--resume"):
        store.merge()


def test_a_stage_that_does_not_fit_the_one_before_it_is_noticed(store: Store, fill: Fill) -> None:
    fill(store)
    shard = store.read_shard("first", 0)
    shard.columns["success"].zero_()
    store.write_shard(shard)
    with pytest.raises(StoreError, match=r"02-second.*other samples"):
        store.merge()


# ---------------------------------------------------------------- a disk that fails


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_what_is_there(store: Store, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store)
    before = store.read_shard("first", 0)
    size = len(list(store.path.rglob("*")))
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StoreError, match=r"disk is full.*is kept.*--resume"):
        store.write_shard(before)
    assert len(list(store.path.rglob("*"))) == size  # no temporary file is left
    assert torch.equal(store.read_shard("first", 0).columns["index"], before.columns["index"])


def test_a_full_disk_at_the_rename_leaves_the_old_file(
    store: Store, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store)
    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(StoreError, match="disk is full"):
        store.update(state="done")
    monkeypatch.undo()
    assert Store.open(store.path).run["state"] == "running"


def test_a_folder_that_cannot_be_written_is_noticed_at_once(
    tmp_path: Path, settings: Settings, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files, "_write", denied)
    with pytest.raises(StoreError, match=r"cannot be written.*another --out"):
        Store.begin(tmp_path / "run", settings, environment)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_a_read_only_folder(tmp_path: Path, settings: Settings, environment: Environment) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o500)
    with pytest.raises(StoreError, match="cannot be written"):
        Store.begin(folder, settings, environment)


def test_a_file_in_the_way(tmp_path: Path, settings: Settings, environment: Environment) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(StoreError, match="not a folder"):
        Store.begin(tmp_path / "run", settings, environment)
    with pytest.raises(StoreError, match="not a folder"):
        Store.begin(tmp_path / "run" / "below", settings, environment)
    assert (tmp_path / "run").read_text() == "mine"


# ---------------------------------------------------------------- whose folder it is


def test_an_existing_run_is_not_touched_without_being_asked(
    store: Store, fill: Fill, settings: Settings, environment: Environment
) -> None:
    fill(store)
    with pytest.raises(StoreError, match=r"--resume.*--overwrite.*--out"):
        Store.begin(store.path, settings, environment)
    assert store.done("clean") == [0, 3]


def test_resume_with_other_settings_lists_what_differs(
    store: Store, fill: Fill, settings: Settings, environment: Environment
) -> None:
    fill(store)
    other = deepcopy(settings)
    other["seed"] = 7
    other["suite"]["stages"][1]["attack"] = "PGD(threat=Linf(0.1))"
    with pytest.raises(StoreError) as caught:
        Store.begin(store.path, other, environment, resume=True)
    assert "seed: 0 -> 7" in str(caught.value)
    assert 'suite.stages[1].attack: "FGSM(threat=Linf(0.1))" -> "PGD(threat=Linf(0.1))"' in str(caught.value)
    assert "model" not in str(caught.value)
    assert store.done("first") == [0, 3]


def test_another_threat_is_one_difference(store: Store, settings: Settings, environment: Environment) -> None:
    other = deepcopy(settings)
    other["threat"] = "L2(1.0)"
    for stage in other["suite"]["stages"]:
        stage["attack"] = stage["attack"].replace("Linf(0.1)", "L2(1.0)")
    with pytest.raises(StoreError, match=r'threat: "Linf\(0.1\)" -> "L2\(1.0\)"') as caught:
        Store.begin(store.path, other, environment, resume=True)
    assert "stages" not in str(caught.value)


def test_resume_removes_the_report_of_the_unfinished_run(
    store: Store, settings: Settings, environment: Environment
) -> None:
    (store.path / "report.html").write_text("half")
    Store.begin(store.path, settings, environment, resume=True)
    assert not (store.path / "report.html").exists()


def test_resume_leaves_a_finished_run_as_it_is_until_something_has_to_be_computed(
    store: Store, fill: Fill, settings: Settings, environment: Environment
) -> None:
    fill(store)
    store.update(state="done")
    (store.path / "report.html").write_text("whole")
    assert Store.begin(store.path, settings, environment, resume=True).run["state"] == "done"
    assert (store.path / "report.html").exists()
    damage_cut(shard_file(store, "second", 3))
    assert Store.begin(store.path, settings, environment, resume=True).run["state"] == "running"
    assert not (store.path / "report.html").exists()


def test_resume_starts_a_run_in_a_new_or_empty_folder(
    tmp_path: Path, settings: Settings, environment: Environment
) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        assert Store.begin(tmp_path / name, settings, environment, resume=True).run["state"] == "running"


def test_overwrite_removes_the_run_and_nothing_else(
    store: Store, fill: Fill, settings: Settings, environment: Environment
) -> None:
    fill(store)
    (store.path / "notes.txt").write_text("mine")
    (store.path / "shards" / "notes.txt").write_text("mine too")
    (store.path / "report.html").write_text("ours")
    new = Store.begin(store.path, settings, environment, overwrite=True)
    assert new.done("clean") == []
    assert (store.path / "notes.txt").read_text() == "mine"
    assert (store.path / "shards" / "notes.txt").read_text() == "mine too"
    assert not (store.path / "report.html").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_of_something_else_is_refused(
    tmp_path: Path, settings: Settings, environment: Environment, overwrite: bool, resume: bool
) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(StoreError):
        Store.begin(tmp_path, settings, environment, resume=resume, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_foreign_run_json_is_not_overwritten(tmp_path: Path, settings: Settings, environment: Environment) -> None:
    (tmp_path / "run.json").write_text('{"experiment": 1}')
    with pytest.raises(StoreError, match="not a run of assay"):
        Store.begin(tmp_path, settings, environment, overwrite=True)
    assert (tmp_path / "run.json").read_text() == '{"experiment": 1}'


def test_shards_without_run_json_cannot_be_continued(
    store: Store, fill: Fill, settings: Settings, environment: Environment
) -> None:
    fill(store)
    (store.path / "run.json").unlink()
    with pytest.raises(StoreError, match=r"no run\.json"):
        Store.begin(store.path, settings, environment, resume=True)
    assert shard_file(store, "clean", 0).exists()


# ---------------------------------------------------------------- run.json


def test_missing_cut_and_incomplete_run_json(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no run\.json"):
        Store.open(tmp_path)
    file = store.path / "run.json"
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"cannot be read, it is not whole JSON.*another folder"):
        Store.open(store.path)
    run = json.loads(whole)
    del run["settings"]
    file.write_text(json.dumps(run))
    with pytest.raises(StoreError, match="lacks settings"):
        Store.open(store.path)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("settings",), {}, r"lacks settings\.model, "),
        (("settings", "suite", "stages", 1), {"name": "pgd"}, r"lacks settings\.suite\.stages\[1\]\.attack"),
        (("settings", "suite", "stages", 0, "name"), "../../elsewhere", "stage cannot be called"),
        (("settings", "chunk"), 0, "chunks of 0"),
        (("settings", "chunk"), "3", r"its settings\.chunk is '3'"),
        (("settings", "samples"), True, r"its settings\.samples is 'True'"),
        (("state",), "asleep", "its state is 'asleep'"),
        (("results",), {"samples": 5}, r"lacks results\.clean_accuracy"),
        (("environment",), None, "its environment is 'None'"),
    ],
)
def test_a_damaged_run_json_says_where(store: Store, place: tuple[Any, ...], value: Any, words: str) -> None:
    run: Any = json.loads((store.path / "run.json").read_text())
    inner = run
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    (store.path / "run.json").write_text(json.dumps(run))
    with pytest.raises(StoreError, match=words):
        Store.open(store.path)


def test_overwrite_replaces_a_run_whose_run_json_was_cut(
    store: Store, fill: Fill, settings: Settings, environment: Environment
) -> None:
    fill(store)
    (store.path / "run.json").write_text('{"schema_version": 1, ')
    with pytest.raises(StoreError, match="--overwrite"):
        Store.begin(store.path, settings, environment, resume=True)
    assert Store.begin(store.path, settings, environment, overwrite=True).done("clean") == []


def test_a_newer_schema_is_named(store: Store) -> None:
    run = json.loads((store.path / "run.json").read_text())
    run["schema_version"] = 3
    (store.path / "run.json").write_text(json.dumps(run))
    with pytest.raises(StoreError, match=r"newer assay.*schema_version 3.*Update"):
        Store.open(store.path)


# ---------------------------------------------------------------- temporary files


def test_stale_temporary_files_are_ignored_and_removed(
    store: Store, fill: Fill, settings: Settings, environment: Environment
) -> None:
    fill(store)
    host = socket.gethostname().split(".")[0] or "localhost"
    folder = shard_file(store, "first", 0).parent
    dead, living, foreign = (
        folder / f".00000000.safetensors.{host}-{2**22 + 1}-00ff00ff.tmp",
        folder / f".00000000.safetensors.{host}-{os.getpid()}-00ff00ff.tmp",
        folder / ".00000000.safetensors.elsewhere-1-00ff00ff.tmp",
    )
    for path in (dead, living, foreign):
        path.write_bytes(b"half")
    assert store.merge().robust.sum() == 2
    Store.begin(store.path, settings, environment, resume=True)
    assert not dead.exists()
    assert living.exists()
    assert foreign.exists()


def test_the_scratch_folder_of_a_killed_process_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))
    with files.scratch_folder("assay-ranks") as living:
        dead = tmp_path / living.name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")
        dead.mkdir()
        (dead / "log").write_text("killed")
        with files.scratch_folder("assay-ranks") as second:
            assert sorted(tmp_path.iterdir()) == sorted([living, second])
    assert list(tmp_path.iterdir()) == []


def test_a_crash_before_run_json_does_not_lock_the_folder(
    tmp_path: Path, settings: Settings, environment: Environment
) -> None:
    (tmp_path / f".run.json.here-{2**22 + 1}-00ff00ff.tmp").write_bytes(b"{")
    (tmp_path / ".writable").write_bytes(b"")
    (tmp_path / ".DS_Store").write_bytes(b"a folder that somebody looked into")
    assert Store.begin(tmp_path, settings, environment).run["state"] == "running"
