"""What all accidents of runs need: an unbroken run, half of one, and whether --resume ends as if unbroken."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from misuse.shell import Row, assay, escape, split, start

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
