"""Misuse and accidents of run directories: what is said, what is kept, and whether --resume ends as if unbroken."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from misuse.shell import Row, assay, escape, finish, judge, split, start

from assay.data import load_data
from assay.errors import AssayError
from assay.evaluation import Store
from assay.evaluation.merge import COLUMNS

SETTINGS = "--data digits --threat linf:0.1 --suite quick --limit 40 --chunk 10"
LINE = f"evaluate wrong:Watched {SETTINGS}"
FAILED, STOPPED = 3, 130


class SkippedError(Exception):
    """This machine cannot bring the accident about."""


@dataclass(frozen=True)
class Place:
    """The folder of all cases, an unbroken run and one that was killed halfway."""

    scratch: Path

    @property
    def whole(self) -> Path:
        return self.scratch / "whole"

    def half(self, name: str) -> Path:
        """A copy of the killed run."""
        shutil.copytree(self.scratch / "half", self.scratch / name)
        return self.scratch / name


def prepare(place: Place) -> None:
    """The two runs that the cases start from."""
    code, message = assay(place.scratch, *split(f"{LINE} --out whole"))
    if code:
        raise SystemExit(f"the unbroken run failed:\n{message}")
    process = start(place.scratch, *split(f"{LINE} --out half"), MISUSE_CALLS=str(place.scratch / "calls-half"))
    wait_for(process, lambda: len(shards(place.scratch / "half")) >= 8)
    process.kill()
    process.communicate()


def shards(run: Path) -> dict[str, bytes]:
    """Content of each shard that is there."""
    paths = run.rglob("*.safetensors")
    return {str(path.relative_to(run)): path.read_bytes() for path in paths if not path.name.startswith(".")}


def wait_for(process: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while process.poll() is None and not ready() and time.monotonic() < deadline:
        time.sleep(0.01)
    if process.poll() is not None:
        raise SystemExit(f"it ended before it could be disturbed:\n{process.communicate()[1]}")


def calls(path: Path) -> list[int]:
    """Process number of each model call so far."""
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def same_table(place: Place, run: Path) -> bool:
    try:
        first, second = Store.open(place.whole).merge(), Store.open(run).merge()
    except AssayError:
        return False
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in COLUMNS)


def resumed(place: Place, run: Path, before: dict[str, bytes], line: str = LINE) -> tuple[str, str, tuple[str, ...]]:
    """Continue a run; returns what was kept as text, what resuming said, and faults.

    Args:
        place: Where all is.
        run: The run directory.
        before: Its shards before the accident, or those of them that the accident did not touch.
        line: The command, without --out and --resume.
    """
    after = shards(run)
    lost = [name for name, content in before.items() if after.get(name) != content]
    total = len(shards(place.whole))
    code, message = assay(place.scratch, *split(f"{line} --out {run.relative_to(place.scratch)} --resume"))
    equal = same_table(place, run)
    rewritten = [name for name, content in after.items() if name in before and shards(run).get(name) != content]
    kept = (
        f"{len(after)} of {total} shards before --resume, {len(lost)} lost; then exit code {code}, "
        f"{len(rewritten)} of them computed again, table {'equal to' if equal else 'NOT that of'} an unbroken run"
    )
    faults = [f"lost {', '.join(lost)}"] if lost else []
    faults += [f"computed again: {', '.join(rewritten)}"] if rewritten else []
    faults += [] if code == 0 and equal else [f"--resume ended with {code}, table {'equal' if equal else 'different'}"]
    return kept, message, tuple(faults)


def row(what: str, line: str, code: object, message: str, kept: str, faults: tuple[str, ...]) -> Row:
    return Row(f"{what}<br>`assay {escape(line)}`" if line else what, str(code), message, kept, faults)


# Accidents


def killed(place: Place) -> Row:
    run = place.half("killed")
    state = json.loads((run / "run.json").read_text())["state"]
    kept, message, faults = resumed(place, run, shards(run))
    return row(
        "kill -9 during evaluate", f"{LINE} --out killed", -9, message or "(nothing)", f"state {state}; {kept}", faults
    )


def interrupted(place: Place) -> Row:
    return _stopped(place, "interrupted", LINE, devices=1)


def interrupted_ranks(place: Place) -> Row:
    return _stopped(place, "interrupted2", f"{LINE} --devices 2", devices=2)


def _stopped(place: Place, name: str, line: str, devices: int) -> Row:
    run = place.scratch / name
    line = f"{line} --out {name}"
    process = start(place.scratch, *split(line), MISUSE_CALLS=str(place.scratch / f"calls-{name}"))
    wait_for(process, lambda: len(shards(run)) >= 6)
    process.send_signal(signal.SIGINT)
    code, message = finish(process, place.scratch)
    faults = judge(code, message, STOPPED, ("Interrupted", "--resume", "kept"))
    kept, _, more = resumed(place, run, shards(run))
    with_ranks = f", {devices} processes" if devices > 1 else ""
    return row(f"Ctrl-C during evaluate{with_ranks}", line, code, message, kept, faults + more)


def interrupted_attack(place: Place) -> Row:
    line = "attack wrong:Watched --data digits --attack pgd --threat linf:0.1 --limit 40 --batch 10 --save"
    assay(place.scratch, *split(f"{line} all.npz"))
    note = place.scratch / "calls-attack"
    process = start(place.scratch, *split(f"{line} part.npz"), MISUSE_CALLS=str(note))
    wait_for(process, lambda: len(calls(note)) >= 120)
    process.send_signal(signal.SIGINT)
    code, message = finish(process, place.scratch)
    faults = judge(code, message, STOPPED, ("Interrupted", "part.npz"))
    kept, equal = 0, False
    if (place.scratch / "part.npz").exists():
        with np.load(place.scratch / "all.npz") as whole, np.load(place.scratch / "part.npz") as part:
            kept = len(part["y"])
            equal = all(np.array_equal(part[name], whole[name][:kept]) for name in part.files)
    faults += () if equal and kept else ("nothing usable was saved",)
    told = f"{kept} of 40 samples saved, {'equal to' if equal else 'NOT'} those of an unbroken attack"
    return row("Ctrl-C during attack --save", f"{line} part.npz", code, message, told, faults)


def interrupted_attack_early(place: Place) -> Row:
    line = "attack wrong:Watched --data digits --attack pgd --threat linf:0.1 --limit 40 --save none.npz"
    note = place.scratch / "calls-early"
    process = start(place.scratch, *split(line), MISUSE_CALLS=str(note))
    wait_for(process, lambda: len(calls(note)) >= 5)
    process.send_signal(signal.SIGINT)
    code, message = finish(process, place.scratch)
    faults = judge(code, message, STOPPED, ("Interrupted", "--batch"))
    there = "a file was left" if (place.scratch / "none.npz").exists() else "no file was left"
    return row("Ctrl-C before the first chunk of an attack is done", line, code, message, there, faults)


def worker_killed(place: Place) -> Row:
    run, note = place.scratch / "ranks", place.scratch / "calls-ranks"
    line = f"{LINE} --out ranks --devices 2"
    process = start(place.scratch, *split(line), MISUSE_CALLS=str(note))
    wait_for(process, lambda: len(shards(run)) >= 6 and len(set(calls(note)) - {process.pid}) == 2)
    os.kill(max(set(calls(note)) - {process.pid}), signal.SIGKILL)
    code, message = finish(process, place.scratch)
    faults = judge(code, message, FAILED, ("killed by signal 9", "kept", "--resume"))
    kept, _, more = resumed(place, run, shards(run))
    return row("a worker process killed", line, code, message, kept, faults + more)


def model_fails(place: Place) -> Row:
    line = f"{LINE} --out fails"
    process = start(place.scratch, *split(line), MISUSE_FAILS_AFTER="80")
    code, message = finish(process, place.scratch)
    faults = judge(code, message, FAILED, ("fallen off the bus", "ASSAY_DEBUG", "--resume"))
    run = place.scratch / "fails"
    kept, _, more = resumed(place, run, shards(run))
    return row("the model raises an exception after 80 calls", line, code, message, kept, faults + more)


def model_fails_in_a_worker(place: Place) -> Row:
    line = f"{LINE} --out fails2 --devices 2"
    process = start(place.scratch, *split(line), MISUSE_FAILS_AFTER="60")
    code, message = finish(process, place.scratch)
    faults = judge(code, message, FAILED, ("fallen off the bus", "kept", "--resume"))
    run = place.scratch / "fails2"
    kept, _, more = resumed(place, run, shards(run))
    return row("the model raises an exception in a worker process", line, code, message, kept, faults + more)


def truncated_image(place: Place) -> Row:
    line = "evaluate wrong:Watched --data folder:images --threat linf:0.1 --suite quick --chunk 10"
    assay(place.scratch, *split(f"{line} --out images-whole"))
    image = load_data(f"folder:{place.scratch / 'images'}").x.paths[35]  # past those that are looked at beforehand
    content = image.read_bytes()
    image.write_bytes(content[:60])
    code, message = assay(place.scratch, *split(f"{line} --out images-run"))
    faults = judge(code, message, FAILED, ("cannot read the image", image.name, "Replace it", "--resume"))
    before = shards(place.scratch / "images-run")
    image.write_bytes(content)
    other = Place(place.scratch / "other")
    other.scratch.mkdir()
    (other.scratch / "whole").symlink_to(place.scratch / "images-whole")
    shutil.copytree(place.scratch / "images-run", other.scratch / "run")
    for name in ("images", "wrong.py"):
        (other.scratch / name).symlink_to(place.scratch / name)
    kept, _, more = resumed(other, other.scratch / "run", before, line)
    return row("an image of the folder is cut short; mended, resumed", line, code, message, kept, faults + more)


# Damaged runs


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
    changed = _rewritten(run / "run.json", lambda text: text.replace('"schema_version": 1', '"schema_version": 99'))
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


# Disks


@contextmanager
def _mounted(folder: Path, options: str) -> Iterator[None]:
    folder.mkdir()
    if os.name != "posix" or os.geteuid() != 0:
        raise SkippedError("needs root, to mount a small tmpfs")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise SkippedError(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def disk_full(place: Place) -> Row:
    disk = place.scratch / "disk"
    line = f"{LINE} --out disk/run"
    with _mounted(disk, "size=300k"):
        filler = disk / "filler"
        filler.write_bytes(bytes(256 << 10))
        code, message = assay(place.scratch, *split(line))
        faults = judge(code, message, FAILED, ("disk is full", "kept", "--resume"))
        run = disk / "run"
        before = shards(run)
        faults += () if before else ("no shard was kept",)
        filler.unlink()
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        kept, _, more = resumed(place, run, before)
    return row("the disk is full (300 KiB); resumed with more space", line, code, message, kept, faults + more)


def disk_full_attack(place: Place) -> Row:
    disk = place.scratch / "small"
    line = "attack digits-mlp --data digits --attack fgsm --threat linf:0.1 --limit 200 --save small/adv.npz"
    with _mounted(disk, "size=8k"):
        code, message = assay(place.scratch, *split(line))
        left = [path.name for path in disk.iterdir()]
    faults = judge(code, message, FAILED, ("No space left", "--save"))
    faults += ("the numbers are not shown",) if "success rate" not in message else ()
    faults += (f"left {left}",) if left else ()
    faults += ("speaks of --resume, which attack has not",) if "--resume" in message else ()
    return row("the disk is full at the end of attack --save", line, code, message, "no half file is left", faults)


def read_only(place: Place) -> Row:
    disk = place.scratch / "readonly"
    line = f"{LINE} --out readonly/run"
    with _mounted(disk, "size=300k,ro"):
        code, message = assay(place.scratch, *split(line))
    faults = judge(code, message, FAILED, ("readonly", "cannot be written", "--out"))
    return row("a folder that cannot be written", line, code, message, "nothing had been computed", faults)


def below_a_file(place: Place) -> Row:
    line = f"{LINE} --out notes.txt/run"
    code, message = assay(place.scratch, *split(line))
    faults = judge(code, message, FAILED, ("not a folder", "--out"))
    return row("--out below a file", line, code, message, "nothing had been computed", faults)


def read_only_save(place: Place) -> Row:
    line = "attack digits-mlp --data digits --attack fgsm --threat linf:0.1 --save notes.txt/adv.npz"
    code, message = assay(place.scratch, *split(line))
    faults = judge(code, message, FAILED, ("not a folder", "--save"))
    return row("--save below a file", line, code, message, "nothing had been computed", faults)


SECTIONS = {
    "Run directories": [
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
    ],
    "Disks": [disk_full, disk_full_attack, read_only, below_a_file, read_only_save],
    "Stopped and killed": [
        interrupted,
        interrupted_ranks,
        interrupted_attack,
        interrupted_attack_early,
        killed,
        worker_killed,
        model_fails,
        model_fails_in_a_worker,
        truncated_image,
    ],
}
