"""Disks that are full or cannot be written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from misuse.runs import (
    FAILED,
    LINE,
    Place,
    SkippedError,
    resumed,
    row,
    shards,
)
from misuse.shell import Row, assay, judge, split


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


CASES = [
    disk_full,
    disk_full_attack,
    read_only,
    below_a_file,
    read_only_save,
]
