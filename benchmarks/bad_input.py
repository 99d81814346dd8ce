"""Commit every kind of misuse through the real command line, and write down what people see.

    python benchmarks/bad_input.py

Everything happens in a temporary folder. Written is results/bad-input.md: what was done, how it ended, the message, and
what was kept of work that was done before. Ends with 1 when a message lacks what it has to say, an exit code is wrong,
or something was lost. The full and the read-only disk are small mounts and need root; the ONNX rows need the packages
onnx and onnxruntime. Rows that cannot be had say why. Needs Linux or macOS.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import machine
from misuse import accidents, damaged, disks, one_command, runs, wrong
from misuse.shell import Row, escape

RUNS = {"Run directories": damaged.CASES, "Disks": disks.CASES, "Stopped and killed": accidents.CASES}
HEAD = """# Bad input

What people see when something is wrong, written by `benchmarks/bad_input.py`. Each line below was run; the messages are
verbatim, without the box around them, and `TMP` stands for the folder of the run. An outcome is an exit code (0 done, 1
below `--fail-under`, 2 usage, 3 the run failed, 130 Ctrl-C, -9 killed) or, in Python, the name of an exception.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--jobs", type=int, default=2, help="commands at a time")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="folder of the page")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children of a background job would ignore it
    with tempfile.TemporaryDirectory(prefix="misuse-") as folder:
        scratch = Path(folder).resolve()
        found = run(scratch, options.only, options.jobs)
    rows = [row for section in found.values() for row in section]
    if not options.only:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "bad-input.md").write_text(page(found), encoding="utf-8")
    bad = [row for row in rows if row.faults]
    for row in bad if not options.only else rows:
        print(f"{row.what}\n  {row.outcome}: {row.message}\n  {row.kept}\n  FAULTS: {'; '.join(row.faults)}\n")
    print(f"{len(rows)} cases, {len(bad)} that fall short")
    return 1 if bad else 0


def run(scratch: Path, only: str, jobs: int) -> dict[str, list[Row]]:
    shutil.copy(wrong.__file__, scratch / "wrong.py")
    wrong.write_files(scratch)
    wrong.write_images(scratch / "images")
    absent = ""
    try:
        wrong.write_onnx(scratch)
        import onnxruntime  # noqa: F401
    except ImportError as missing:
        absent = f"skipped: {missing}"
    place = runs.Place(scratch)
    chosen: dict[str, list[tuple[str, Callable[[], Row]]]] = {}
    for section, cases in one_command.SECTIONS.items():
        chosen[section] = [
            (
                case.what,
                (lambda what=case.what: Row(what, "", absent))
                if absent and "ONNX" in case.what
                else (lambda case=case: case(scratch)),
            )
            for case in cases
        ]
    for section, cases in RUNS.items():
        chosen[section] = [(case.__name__, lambda case=case: happened(case, place)) for case in cases]
    chosen = {name: [pair for pair in cases if only in pair[0]] for name, cases in chosen.items()}
    if any(chosen[name] for name in RUNS):
        runs.prepare(place)
    with ThreadPoolExecutor(jobs) as pool:
        started = {name: [pool.submit(case) for _, case in cases] for name, cases in chosen.items()}
        return {name: [case.result() for case in cases] for name, cases in started.items()}


def happened(case: Callable[[runs.Place], Row], place: runs.Place) -> Row:
    try:
        return case(place)
    except runs.SkippedError as reason:
        return Row(case.__name__.replace("_", " "), "", f"skipped: {reason}")


def page(found: dict[str, list[Row]]) -> str:
    rows = [row for section in found.values() for row in section]
    bad = sum(bool(row.faults) for row in rows)
    lines = [HEAD, f"{len(rows)} cases, {bad} that fall short. {machine.sentence(machine.describe(1))}"]
    for section, cases in found.items():
        kept = any(row.kept for row in cases)
        lines += ["", f"## {section}", "", "| what was done | outcome | what is seen |" + " what was kept |" * kept]
        lines += ["|---" * (4 if kept else 3) + "|"]
        for row in cases:
            seen = "<br>".join(code(line) for line in row.message.splitlines())
            short = f" **falls short: {escape('; '.join(row.faults))}**" if row.faults else ""
            cells = [row.what, f"{row.outcome}{short}", seen, *([row.kept] if kept else [])]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def code(line: str) -> str:
    """A line of a message inside a cell, as it is."""
    return f"`` {escape(line)} ``" if "`" in line else f"`{escape(line)}`"


if __name__ == "__main__":
    sys.exit(main())
