"""What scripts of one network folder share: their options, where they compute, and how they end."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from machine import describe

RESULTS = Path(__file__).resolve().parent / "results"


def parser(documentation: str, *, threads: int = 2) -> argparse.ArgumentParser:
    """The options that all of them take."""
    found = argparse.ArgumentParser(description=documentation, formatter_class=argparse.RawTextHelpFormatter)
    found.add_argument("--data", required=True, help="folder with load.py, its networks and its images")
    found.add_argument("--device", default="cpu")
    found.add_argument("--threads", type=int, default=threads)
    found.add_argument("--out", type=Path, default=RESULTS)
    return found


def where(options: argparse.Namespace) -> dict[str, object]:
    """The machine and the device that a report begins with."""
    device = torch.device(options.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "on the processor"
    return {"machine": describe(options.threads), "device": name}


def end(name: str, report: dict, page: str, options: argparse.Namespace, *, holds: bool) -> None:
    """Write the numbers and the page, and exit with 1 when the claim does not hold."""
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / f"{name}.md").write_text(page)
    print(page, file=sys.stderr)
    raise SystemExit(not holds)
