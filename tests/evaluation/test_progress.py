from __future__ import annotations

import pytest
import torch

from assay.evaluation import bar
from assay.evaluation.progress import Display
from assay.evaluation.shards import Shard

CHUNKS = [(0, 10), (10, 20), (20, 25)]


def shard(stage: str, start: int, left: int, seconds: float) -> Shard:
    """One that leaves so many samples."""
    size = dict(CHUNKS)[start] - start
    kept = torch.arange(size) < left
    if stage == "clean":
        columns = {"label": torch.zeros(size), "prediction": 1 - kept.float()}
    else:
        columns = {"success": (~kept).to(torch.uint8)}
    return Shard(stage=stage, start=start, stop=start + size, columns=columns, seconds=seconds)


def near(stage: str, start: int, *distance: float) -> Shard:
    """One that comes so near to the samples that it was asked about."""
    columns = {"distance": torch.tensor(distance, dtype=torch.float64)}
    return Shard(stage=stage, start=start, stop=start + 10, columns=columns, seconds=1.0)


def test_robust_so_far_counts_what_was_seen() -> None:
    with Display(("clean", "pgd"), CHUNKS, show=False) as display:
        display.update(shard("clean", 0, 9, 1.0))
        assert display.robust == 0.9
        display.update(shard("clean", 20, 1, 1.0))
        assert display.robust == 10 / 15
        display.update(shard("pgd", 0, 2, 1.0))
        assert display.robust == 3 / 15


def test_without_a_budget_the_median_of_the_smallest_distances_is_shown() -> None:
    with Display(("clean", "fmn", "fab"), CHUNKS, show=False, minimal=True) as display:
        display.update(shard("clean", 0, 9, 1.0))
        assert display.result == ""
        display.update(near("fmn", 0, 0.1, 0.2, torch.inf))
        assert display.result == "median distance so far 0.2"
        display.update(near("fmn", 10, 0.4, torch.inf))
        assert display.median == 0.4
        display.update(near("fab", 0, 0.3, 0.1, 0.2))
        assert display.median == 0.2  # of 0.1, 0.1, 0.2, 0.4 and none
        display.update(near("fab", 10, torch.inf, 0.15))
        assert display.median == 0.15


def test_time_left_is_known_once_every_stage_was_seen() -> None:
    for workers in (1, 2):
        with Display(("clean", "pgd"), CHUNKS, show=False, workers=workers) as display:
            for start, _ in CHUNKS:
                display.update(shard("clean", start, 5, 1.0))
            assert display.time_left is None
            display.update(shard("pgd", 0, 5, 30.0))
            assert display.time_left == 60.0 / workers


def test_lines_now_and_then_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(bar.time, "monotonic", lambda: now[0])
    with Display(("clean", "pgd"), CHUNKS, show=True) as display:
        for start, _ in CHUNKS:
            now[0] += 4.0
            display.update(shard("clean", start, 5, 1.0))
        now[0] += 10.0
        display.update(shard("pgd", 0, 4, 61.0))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "clean: 3 of 6 parts, robust so far 60.0%",
        "pgd: 4 of 6 parts, robust so far 56.0%, 2:02 left",
    ]


def test_paths_are_not_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(("clean",), CHUNKS, show=True) as display:
        display.say("kept in runs/x[/b]; [red]continue")
    assert capsys.readouterr().err == "kept in runs/x[/b]; [red]continue\n"


def test_silence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bar, "_EVERY", 0.0)
    with Display(("clean", "pgd"), CHUNKS, show=False) as display:
        display.update(shard("clean", 0, 5, 1.0))
        display.say("hello")
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with Display(("clean", "pgd"), CHUNKS, show=True) as display:
        display.update(shard("clean", 0, 9, 1.0))
        display._bar._progress.refresh()
    assert "robust so far 90.0%" in capsys.readouterr().err
