"""What the scripts that train shipped networks share: their options, and where a card says what it was made with."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

import assay
from assay.models import zoo


def options(description: str, plans: Iterable[str]) -> argparse.Namespace:
    """The command line, with threads and the folder for weights made ready."""
    names = list(plans)
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the four Fashion-MNIST idx files")
    parser.add_argument("--only", nargs="+", choices=sorted(names), default=names)
    parser.add_argument("--runs", type=Path, default=Path("runs/models"), help="where the runs of training are kept")
    parser.add_argument("--into", type=Path, default=zoo.WEIGHTS, help="where weights and cards go")
    parser.add_argument("--epochs", type=int, help="instead of the plan's")
    parser.add_argument("--limit", type=int, help="train on the first so many samples only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", action="store_true", help="keep the weights, measure them and rewrite the cards")
    found = parser.parse_args()
    torch.set_num_threads(found.threads)
    found.into.mkdir(parents=True, exist_ok=True)
    return found


def made_with() -> dict[str, Any]:
    """Versions and date."""
    return {
        "versions": {"assay": assay.__version__, "torch": str(torch.__version__)},
        "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
    }
