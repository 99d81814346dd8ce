from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

import assay
from assay.attacks import APGD, PGD
from assay.errors import DataError, SettingError, StoreError
from assay.evaluation import Evaluation, Store, ranks
from assay.evaluation.merge import COLUMNS
from assay.evaluation.shards import Shard

LINF = assay.Linf(0.1)
SUITE = [("pgd", PGD(threat=LINF, steps=10)), ("apgd", APGD(threat=LINF, steps=20))]
OPTIONS: dict[str, Any] = {"threat": LINF, "suite": SUITE, "limit": 60, "chunk": 10, "progress": False}

CHILD = """
import os
os.environ.update(environment)
import assay
from assay.attacks import APGD, PGD
import torch
torch.set_num_threads(1)
linf = assay.Linf(0.1)
suite = [("pgd", PGD(threat=linf, steps=10)), ("apgd", APGD(threat=linf, steps=20))]
assay.evaluate("digits-mlp", "digits", threat=linf, suite=suite, limit=60, chunk=10, progress=False,
               out=out, resume=True)
"""

SUICIDAL = """
import os, signal
import assay

def make():
    if os.environ.get("RANK") == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    return assay.load_model("digits-mlp")
"""


@pytest.fixture(scope="module")
def whole() -> Evaluation:
    return assay.evaluate("digits-mlp", "digits", **OPTIONS)


def same(a: Evaluation, b: Evaluation) -> None:
    for name in COLUMNS:
        first, second = getattr(a.samples, name), getattr(b.samples, name)
        if first.is_floating_point():
            torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-7, msg=name)
        else:
            assert torch.equal(first, second), name


one_card = pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two cards")


@one_card
def test_the_standard_suite_gives_the_same_table_in_two_processes(tmp_path: Path) -> None:
    options = {**OPTIONS, "suite": "standard", "threat": assay.Linf(0.05), "limit": 16}
    alone = assay.evaluate("digits-mlp", "digits", **(options | {"chunk": 16}))
    same(alone, assay.evaluate("digits-mlp", "digits", out=tmp_path / "run", devices=2, **(options | {"chunk": 5})))
    assert 0.0 < alone.robust_accuracy < alone.clean_accuracy


@one_card
def test_two_processes_give_the_same_table(whole: Evaluation, tmp_path: Path) -> None:
    both = assay.evaluate("digits-mlp", "digits", out=tmp_path / "run", devices=2, **OPTIONS)
    same(whole, both)
    assert 0.0 < whole.robust_accuracy < whole.clean_accuracy


def test_kill_twice_and_resume(whole: Evaluation, tmp_path: Path, start: Callable[..., BaseProcess]) -> None:
    out = tmp_path / "run"
    for shards in (3, 9):
        process = start(CHILD, out=str(out), environment={})
        deadline = time.monotonic() + 120
        while len(list(out.rglob("*.safetensors"))) < shards and time.monotonic() < deadline:
            time.sleep(0.005)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        left = list(out.rglob("*.safetensors"))
        assert shards <= len(left)
    assert Store.open(out).run["state"] == "running"
    times = {path: path.stat().st_mtime_ns for path in left}
    resumed = assay.evaluate("digits-mlp", "digits", out=out, resume=True, **OPTIONS)
    same(whole, resumed)
    assert times == {path: path.stat().st_mtime_ns for path in times}
    assert len(times) < len(list(out.rglob("*.safetensors")))


@one_card
def test_a_killed_rank_is_named_and_the_run_goes_on_with_another_number_of_processes(
    whole: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "suicidal.py").write_text(SUICIDAL)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    out = tmp_path / "run"
    with pytest.raises(StoreError, match=r"killed by signal 9: .*memory.*of 18 shards are kept.*--resume"):
        assay.evaluate("suicidal:make", "digits", out=out, devices=2, **OPTIONS)
    assert Store.open(out).run["state"] == "interrupted"
    same(whole, assay.evaluate("suicidal:make", "digits", out=out, resume=True, **OPTIONS))


def test_the_error_of_a_rank_reaches_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = assay.evaluate("digits-mlp", "digits", out=tmp_path / "run", **OPTIONS)
    monkeypatch.setenv("ASSAY_FAILURES", str(tmp_path))
    monkeypatch.setenv("ASSAY_LAUNCHER", str(os.getpid()))
    with pytest.raises(SystemExit):
        ranks.main([str(found.path), "digits-mlp", "no-such-data"])
    error = ranks._failure(found.store, tmp_path, tmp_path / "log", 1)
    assert isinstance(error, DataError)
    assert "no-such-data" in str(error)


def test_any_other_exception_of_a_rank_is_told_with_what_is_kept(tmp_path: Path) -> None:
    found = assay.evaluate("digits-mlp", "digits", out=tmp_path / "run", **OPTIONS)
    (tmp_path / "1.json").write_text('{"error": "RuntimeError", "message": "no such kernel"}')
    error = ranks._failure(found.store, tmp_path, tmp_path / "log", 1)
    assert isinstance(error, StoreError)
    assert "RuntimeError: no such kernel. 18 of 18 shards are kept" in str(error)


def test_the_process_that_fell_first_is_the_one_that_is_named(tmp_path: Path) -> None:
    found = assay.evaluate("digits-mlp", "digits", out=tmp_path / "run", **OPTIONS)
    log = tmp_path / "log"
    log.write_text("exitcode  : -15 (pid: 1)\nRoot Cause\nexitcode  : 1 (pid: 2)\n")
    assert "ended with 1" in str(ranks._failure(found.store, tmp_path, log, 1))
    log.write_text("exitcode  : -15 (pid: 1)\nRoot Cause\nexitcode  : -11 (pid: 2)\n")
    assert "killed by signal 11." in str(ranks._failure(found.store, tmp_path, log, 1))


def test_a_rank_whose_launcher_is_gone_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = assay.evaluate("digits-mlp", "digits", out=tmp_path / "run", **OPTIONS)
    lost = found.store.shard_path("apgd", 50)
    lost.unlink()
    monkeypatch.setenv("ASSAY_FAILURES", str(tmp_path))
    monkeypatch.setenv("ASSAY_LAUNCHER", str(2**22 + 1))
    with pytest.raises(SystemExit):
        ranks.main([str(found.path), "digits-mlp", "digits"])
    assert not lost.exists()


def test_ranks_of_the_users_own_torchrun_share_the_chunks(
    whole: Evaluation, tmp_path: Path, start: Callable[..., BaseProcess]
) -> None:
    processes = [
        start(CHILD, out=str(tmp_path / "run"), environment={"WORLD_SIZE": "2", "RANK": str(rank)}) for rank in (0, 1)
    ]
    for process in processes:
        process.join(timeout=120)
        assert process.exitcode == 0
    store = Store.open(tmp_path / "run")
    assert store.run["state"] == "done"
    for name in COLUMNS[:7]:
        assert torch.equal(getattr(store.merge(), name), getattr(whole.samples, name))


def silent(shard: Shard) -> None:
    """Nobody looks."""


def test_a_damaged_shard_of_another_rank_is_waited_for(tmp_path: Path) -> None:
    store = assay.evaluate("digits-mlp", "digits", out=tmp_path / "run", **OPTIONS).store
    path = store.shard_path("apgd", 50)  # of the sixth chunk: rank 1 of 2 computes it
    content = path.read_bytes()
    path.write_bytes(content[:-5])
    waiting = threading.Thread(target=ranks.wait, args=(store, ranks.Group(rank=0, world=2), silent), daemon=True)
    waiting.start()
    waiting.join(timeout=1.0)
    assert waiting.is_alive()
    path.write_bytes(content)
    waiting.join(timeout=10.0)
    assert not waiting.is_alive()


def test_a_rank_that_is_alone_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(ranks, "_PATIENCE", 0.5)
    monkeypatch.setattr(ranks, "_SLOWER", 0)
    with pytest.raises(StoreError, match=r"nothing came.*RANK=0 and WORLD_SIZE=2.*if rank == 0.*out=None"):
        assay.evaluate("digits-mlp", "digits", out=tmp_path / "run", **OPTIONS)
    assert Store.open(tmp_path / "run").run["state"] == "interrupted"


def test_without_a_folder_each_rank_makes_a_run_of_its_own(whole: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    same(whole, assay.evaluate("digits-mlp", "digits", **OPTIONS))


def test_chunks_are_dealt_out_completely() -> None:
    chunks = [(i, i + 1) for i in range(7)]
    for world in (1, 2, 3, 10):
        dealt = [c for rank in range(world) for c in ranks.Group(rank=rank, world=world).share(chunks)]
        assert sorted(dealt) == chunks


def test_settings_of_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SettingError, match="overwrite is not safe"):
        assay.evaluate("digits-mlp", "digits", out=tmp_path / "run", overwrite=True, **OPTIONS)
    with pytest.raises(SettingError, match="torchrun already"):
        assay.evaluate("digits-mlp", "digits", out=tmp_path / "run", devices=2, **OPTIONS)
