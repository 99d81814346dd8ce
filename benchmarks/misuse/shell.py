"""Start `assay` as people do, and keep what they see."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

BOX = dict.fromkeys(map(ord, "╭╮╰╯│─"), None)
DROPPED = re.compile(
    r"^(stage  |clean  |clean accuracy|robust accuracy|apgd-|square  |run\.json  |report\.html  |\S+: \d+ of \d+ parts)"
)


@dataclass(frozen=True)
class Row:
    """One line of the table; `faults` says in what way the product fell short, and is empty where it did not."""

    what: str
    outcome: str
    message: str
    kept: str = ""
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """A command line; `code` is the exit code and `says` what the message has to hold."""

    what: str
    arguments: str
    code: int
    says: tuple[str, ...]
    absent: str = ""  # a file that must not come to be

    def __call__(self, scratch: Path) -> Row:
        code, message = assay(scratch, *split(self.arguments))
        faults = judge(code, message, self.code, self.says)
        if self.absent and (scratch / self.absent).exists():
            faults += (f"{self.absent} was written",)
        return Row(f"{self.what}<br>`assay {escape(self.arguments)}`", str(code), message, "", faults)


@dataclass(frozen=True)
class Script:
    """A few lines of Python; `error` names the exception, "none" where the run goes through with a flag."""

    what: str
    source: str
    error: str
    says: tuple[str, ...]

    def __call__(self, scratch: Path) -> Row:
        source = f"import torch, assay, wrong\nx, y, _ = assay.load_data('digits').batch(0, 40)\n{self.source}\n"
        done = subprocess.run(
            [sys.executable, "-c", source], cwd=scratch, env=environment(), capture_output=True, text=True, timeout=600
        )
        found = re.search(r"^assay\.errors\.(\w+): (.*)", done.stderr, re.MULTILINE | re.DOTALL)
        name, message = found.groups() if found else ("none", told(done.stdout + done.stderr, scratch))
        faults = judge(name, message, self.error, self.says)
        return Row(f"{self.what}<br>`{escape(self.source)}`", name, message.replace(str(scratch), "TMP"), "", faults)


def environment(**more: str) -> dict[str, str]:
    """One thread, and a window so wide that no message is broken into lines."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "4000", "TERMINAL_WIDTH": "4000", **more}


def start(scratch: Path, *arguments: str, **more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "assay", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=scratch, env=environment(**more), stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str], scratch: Path) -> tuple[int, str]:
    """Exit code, and the message without the table of a run that went through."""
    out, err = process.communicate(timeout=600)
    return process.returncode, told(out + err, scratch)


def assay(scratch: Path, *arguments: str, **more: str) -> tuple[int, str]:
    return finish(start(scratch, *arguments, **more), scratch)


def told(text: str, scratch: Path) -> str:
    """What was said, without boxes, tables and progress."""
    lines = (line.translate(BOX).rstrip() for line in text.replace(str(scratch), "TMP").splitlines())
    lines = (line[1:] if line.startswith(" ") else line for line in lines)
    return "\n".join(line for line in lines if line.strip() and not DROPPED.match(line))


def judge(found: object, message: str, expected: object, says: tuple[str, ...]) -> tuple[str, ...]:
    faults = [] if found == expected else [f"ended with {found}, not {expected}"]
    faults += [f"does not say {text!r}" for text in says if text.lower() not in message.lower()]
    if "Traceback" in message:
        faults.append("shows a traceback")
    return tuple(faults)


def split(line: str) -> list[str]:
    """Words of a command line; double quotes hold words together, and nothing else is special."""
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|(\S+)', line)]


def escape(text: str) -> str:
    """Text inside a cell of a table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", "; ")
