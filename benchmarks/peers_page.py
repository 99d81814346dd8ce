"""Turn results/peers.json into a page, and say what holds.

python benchmarks/peers_page.py results/peers.json > results/peers.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean, median

import numpy as np
from machine import sentence

OURS = "assay"
TITLES = {False: "Standard network", True: "Robust networks"}
COLUMNS = (
    "network", "attack", "library", "robust", "F", "B", "B, ours / theirs", "seconds",
    "seconds, ours / theirs", "outside",
)  # fmt: skip
INTRODUCTION = """
The peers are called in batches of {batch}, ours once with all samples. Every round has its own seed, 0 first.

- *robust*: images that the plain network still classifies rightly, mean over the rounds (lowest-highest; rounds)
- *F*, *B*: rows pushed forward and pulled back through the network, per image, median of the rounds
- *seconds*: median of the rounds; *ours / theirs*: ratio of neighbouring runs, median and quartiles
- *outside*: images beyond the budget or the box by more than 1e-6; their predictions are not used
"""
DEMAND = """
Against every peer, by the means and medians above: never weaker by more than one image; at most a third of its gradient
evaluations on the standard network, and never more on a robust one.
"""


def summary(result: dict) -> dict[str, dict]:
    """One line for each library: medians over the rounds."""
    lines = {}
    for library, runs in result["runs"].items():
        robust = {run["seed"]: run["robust"] for run in runs}.values()
        ratios = [run["ours_over_theirs"] for run in runs if "ours_over_theirs" in run]
        lines[library] = {
            "robust": mean(robust),
            "range": f"{min(robust)}-{max(robust)}; {len(robust)}",
            "forwards": median(run["forwards"] for run in runs) / result["samples"],
            "backwards": median(run["backwards"] for run in runs) / result["samples"],
            "seconds": median(run["seconds"] for run in runs),
            "time_ratio": [float(q) for q in np.percentile(ratios, [25, 50, 75])] if ratios else None,
            "outside": max(run["outside"] for run in runs),
        }
    return lines


def name(result: dict) -> str:
    return f"{result['attack'].upper()}-{result['steps']} {result['norm']} {result['eps']}"


def checks(result: dict) -> list[tuple[str, bool]]:
    """What must hold against each peer: nearly as strong or stronger, and never more gradient evaluations."""
    lines = summary(result)
    mine = lines.pop(OURS)
    share = 1 if result["robust"] else 1 / 3
    found = []
    for peer, theirs in lines.items():
        label = f"{result['net']}, {name(result)}, {peer}"
        strong = mine["robust"] <= theirs["robust"] + 1
        found.append((f"{label}: robust {mine['robust']:.1f} against {theirs['robust']:.1f}", strong))
        ratio = mine["backwards"] / theirs["backwards"]
        found.append((f"{label}: {ratio:.3f} of its gradient evaluations", ratio <= share))
    return found


def rows(result: dict) -> list[str]:
    lines = summary(result)
    mine = lines[OURS]
    text = []
    for library, line in lines.items():
        passes = times = ""
        if library != OURS:
            first, middle, third = line["time_ratio"]
            passes = f"{mine['backwards'] / line['backwards']:.2f}"
            times = f"{middle:.2f} ({first:.2f}-{third:.2f})"
        cells = [
            result["net"], name(result), library, f"{line['robust']:.1f} ({line['range']})", f"{line['forwards']:.1f}",
            f"{line['backwards']:.1f}", passes, f"{line['seconds']:.2f}", times, str(line["outside"]),
        ]  # fmt: skip
        text.append(f"| {' | '.join(cells)} |")
    return text


def page(report: dict) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in sorted(report["versions"].items()) if k != "torch")
    text = ["# Beside other libraries", "", f"{sentence(report['machine'])} {versions}."]
    if report["missing"]:
        text += ["", f"**Still to be measured:** {'; '.join(report['missing'])}."]
    text.append(INTRODUCTION.format(batch=report["batch"]).rstrip())
    for robust, title in TITLES.items():
        group = [result for result in report["cases"] if result["robust"] == robust]
        if not group:
            continue
        clean = {result["net"]: f"{result['net']} {result['clean']} of {result['samples']}" for result in group}
        text += ["", f"## {title}", "", f"Right without an attack: {', '.join(clean.values())}.", ""]
        text += [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
        text += [row for result in group for row in rows(result)]
    text += ["", "## What must hold", DEMAND]
    verdicts = [check for result in report["cases"] for check in checks(result)]
    text += [f"- {'holds' if holds else '**fails**'}: {what}" for what, holds in verdicts]
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page(json.loads(Path(sys.argv[1]).read_text())))
