"""Say in general terms where a number was measured."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import torch


def describe(threads: int) -> dict[str, object]:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].split(":", 1)[1].strip() if lines else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gib": round(memory),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": datetime.date.today().isoformat(),
    }


def sentence(machine: dict[str, object]) -> str:
    return (
        f"{machine['cpu']} ({machine['cores']} cores, {machine['memory_gib']} GiB), "
        f"threads used: {machine['threads']}, "
        f"{machine['system']}, Python {machine['python']}, torch {machine['torch']}, {machine['date']}."
    )
