"""Run directories that are damaged, of other settings, or in the way."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from misuse.runs import (
    FAILED,
    LINE,
    SETTINGS,
    Place,
    resumed,
    row,
    same_table,
    shards,
)
from misuse.shell import Row, assay, judge, split


def shard_cut(place: Place) -> Row:
    return _damaged_shard(place, "cut", "shard cut short", lambda content: content[: len(content) // 2])


def shard_random(place: Place) -> Row:
    noise = np.random.default_rng(0)
    return _damaged_shard(place, "noise", "shard of random bytes", lambda content: noise.bytes(len(content)))


def shard_altered(place: Place) -> Row:
    return _damaged_shard(place, "altered", "shard with one altered byte", lambda content: content[:-1] + b"\x07")


def _damaged_shard(place: Place, name: str, what: str, change: Callable[[bytes], bytes]) -> Row:
    run = place.half(name)
    before = shards(run)
    victim = run / sorted(before)[1]
    victim.write_bytes(change(victim.read_bytes()))
    before.pop(str(victim.relative_to(run)))
    kept, message, faults = resumed(place, run, before)
    faults += judge(0, message, 0, ("damaged", victim.name, "computed"))
    aside = "set aside" if list(run.rglob("*.corrupt")) else "NOT set aside"
    return row(what, f"{LINE} --out {name} --resume", 0, message, f"the damaged one {aside}; {kept}", faults)


def report_damaged(place: Place) -> Row:
    run = place.scratch / "damaged"
    shutil.copytree(place.whole, run)
    victim = sorted(run.rglob("*.safetensors"))[2]
    victim.write_bytes(b"")
    line = "export damaged --out rows.csv"
    code, message = assay(place.scratch, *split(line))
    faults = judge(code, message, FAILED, (victim.name, "damaged", "--resume"))
    before = shards(run)
    before.pop(str(victim.relative_to(run)))
    kept, _, more = resumed(place, run, before)
    return row("a finished run with an empty shard, exported", line, code, message, kept, faults + more)


def report_unfinished(place: Place) -> Row:
    run = place.half("unfinished")
    code, message = assay(place.scratch, "export", "unfinished", "--out", "rows.csv")
    faults = judge(code, message, FAILED, ("--resume",))
    kept, _, more = resumed(place, run, shards(run))
    return row("an unfinished run, exported", "export unfinished --out rows.csv", code, message, kept, faults + more)


def without_run_json(place: Place) -> Row:
    run = place.half("headless")
    return _refused(place, run, "run.json is missing", _removed(run / "run.json"), "--resume", ("run.json", "--out"))


def broken_run_json(place: Place) -> Row:
    run = place.half("nojson")
    changed = _rewritten(run / "run.json", lambda text: text[: len(text) // 2])
    return _refused(place, run, "run.json is cut short", changed, "--resume", ("run.json", "JSON", "another folder"))


def newer(place: Place) -> Row:
    run = place.half("newer")
    changed = _rewritten(run / "run.json", lambda text: re.sub(r'"schema_version": \d+', '"schema_version": 99', text))
    return _refused(place, run, "written by a newer assay", changed, "--resume", ("newer", "99", "Update"))


def exists(place: Place) -> Row:
    run = place.half("exists")
    return _refused(place, run, "the folder holds a run", _nothing(), "", ("holds a run", "--resume", "--overwrite"))


def other_settings(place: Place) -> Row:
    run = place.half("settings")
    more = "--resume --seed 7 --limit 30"
    return _refused(
        place, run, "--resume with other settings", _nothing(), more, ("seed", "0", "7", "limit", "40", "30")
    )


def other_weights(place: Place) -> Row:
    run = place.half("weights")
    line = f"evaluate digits-mlp {SETTINGS} --out weights --resume"
    before = shards(run)
    code, message = assay(place.scratch, *split(line))
    faults = judge(code, message, FAILED, ("model", "wrong:Watched", "digits-mlp"))
    kept, _, more = resumed(place, run, before)
    return row("--resume with another model", line, code, message, kept, faults + more)


def _refused(place: Place, run: Path, what: str, change: Iterator[None], more: str, says: tuple[str, ...]) -> Row:
    """Change something, be refused, change it back, resume."""
    line = f"{LINE} --out {run.name} {more}".strip()
    before = shards(run)
    with change:
        code, message = assay(place.scratch, *split(line))
    faults = judge(code, message, FAILED, says)
    kept, _, others = resumed(place, run, before)
    return row(what, line, code, message, kept, faults + others)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _removed(path: Path) -> Iterator[None]:
    content = path.read_text()
    path.unlink()
    yield
    path.write_text(content)


@contextmanager
def _rewritten(path: Path, change: Callable[[str], str]) -> Iterator[None]:
    content = path.read_text()
    path.write_text(change(content))
    yield
    path.write_text(content)


def overwrite_foreign(place: Place) -> Row:
    folder = place.scratch / "foreign"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    line = f"{LINE} --out foreign --overwrite"
    code, message = assay(place.scratch, *split(line))
    faults = judge(code, message, FAILED, ("other files", "--out"))
    alone = [path.name for path in folder.iterdir()] == ["thesis.tex"]
    faults += () if alone else ("the folder was changed",)
    return row(
        "--overwrite of a folder of other files", line, code, message, "thesis.tex untouched, nothing added", faults
    )


def overwrite_among(place: Place) -> Row:
    run = place.half("among")
    foreign = [run / "thesis.tex", run / "shards" / "notes.txt", run / "shards" / "00-clean" / "notes.txt"]
    for path in foreign:
        path.write_text("years of work")
    line = f"{LINE} --out among --overwrite"
    code, message = assay(place.scratch, *split(line))
    faults = judge(code, message, 0, ())
    survived = sum(path.exists() and path.read_text() == "years of work" for path in foreign)
    equal = same_table(place, run)
    faults += () if survived == len(foreign) and equal else ("foreign files or the table suffered",)
    kept = (
        f"{survived} of {len(foreign)} foreign files survived; table {'equal to' if equal else 'NOT'} an unbroken run"
    )
    return row("--overwrite of a run with foreign files in it", line, code, message or "(the table)", kept, faults)


CASES = [
    exists,
    other_settings,
    other_weights,
    shard_cut,
    shard_random,
    shard_altered,
    report_damaged,
    report_unfinished,
    without_run_json,
    broken_run_json,
    newer,
    overwrite_foreign,
    overwrite_among,
]
