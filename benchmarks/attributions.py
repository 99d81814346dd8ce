"""Explanations under attack: a standard, a PGD-trained and an ART-trained network, beside random moves.

    python benchmarks/attributions.py --train idx:FOLDER --runs FOLDER     # three seeds each; --limit, --epochs

One small network on Fashion-MNIST. Each run is a folder of `assay train`, and is continued where it was stopped. The
attack (top-k, PGD of 50 steps on the surrogate) changes the gradient's map of test images that ship with the package
by at most 8/255 in every pixel and has to keep every decision; beside it stands one random move of the same size.
Claims: the shipped standard network keeps at most half of its most important places, with every decision kept; every
seed of the PGD- and ART-trained networks keeps more than every seed of the standard one, intervals apart. Where captum
is installed, attributions of the shipped network are compared with its own, to 1e-5.
Written: results/attributions.json, results/attributions.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from importlib.util import find_spec
from pathlib import Path

import torch
from machine import describe, sentence
from recipes import THREAT as TRAINED
from recipes import train_one

import assay
from assay.attribution import GradCAM, Gradient, GradientTimesInput, IntegratedGradients
from assay.attributional.comparison import METRICS

HERE = Path(__file__).resolve().parent
THREAT = "linf:8/255"
RECIPES = ("standard", "PGD-AT", "ART")  # trained as recipes.py trains them
SHIPPED = ("fashion-cnn", "fashion-cnn-pgd")
AT_MOST = 0.5  # of the most important places that the shipped standard network may keep
NEAR = 1e-5


def measured(model: str, args: argparse.Namespace) -> dict:
    found = assay.attribute(model, "fashion-mnist", threat=THREAT, limit=args.count)
    print(f"{model}: {found.results}", file=sys.stderr)
    return found.results


def beside_captum() -> dict[str, float] | None:
    """The largest differences to captum's attributions of the shipped network, as shares of the largest one."""
    if find_spec("captum") is None:
        return None
    from captum import attr

    model = assay.load_model("fashion-cnn")
    x, y, _ = assay.load_data("fashion-mnist", limit=16).batch(0, 16)
    last = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    cam = attr.LayerGradCam(model, last).attribute(x, target=y, relu_attributions=True)
    theirs = {
        GradCAM(): attr.LayerAttribution.interpolate(cam, x.shape[2:], "bilinear"),
        Gradient(): attr.Saliency(model).attribute(x.clone().requires_grad_(), target=y, abs=False),
        GradientTimesInput(): attr.InputXGradient(model).attribute(x.clone().requires_grad_(), target=y),
        IntegratedGradients(): attr.IntegratedGradients(model).attribute(x, torch.zeros_like(x), target=y, n_steps=50),
    }
    return {
        type(own).__name__: float((own(model, x, y) - other.detach()).abs().max() / other.detach().abs().max())
        for own, other in theirs.items()
    }


def ahead(rows: list[dict], name: str) -> float | None:
    """By how much the lowest end of this recipe's intervals exceeds the highest one of the standard networks'."""
    ends: dict[str, list[dict]] = {name: [], "standard": []}
    for row in rows:
        if row["name"] in ends:
            ends[row["name"]].append(row["metrics"]["top_k"]["attack"])
    if not all(ends.values()):
        return None
    return min(each["low"] for each in ends[name]) - max(each["high"] for each in ends["standard"])


def claims(report: dict) -> dict[str, bool]:
    shipped = report["shipped"]["fashion-cnn"]
    left = shipped["metrics"]["top_k"]["attack"]["value"]
    text = f"shipped standard network: {left:.1%} of the places stay, {shipped['kept']:.1%} of the decisions"
    found = {text: left <= AT_MOST and shipped["kept"] == 1.0}
    for name in ("PGD-AT", "ART"):
        gap = ahead(report["rows"], name)
        if gap is not None:
            found[f"{name}: every seed keeps more than every standard one, intervals {gap:.3f} apart"] = gap > 0
    for name, gap in (report["captum"] or {}).items():
        found[f"{name} is captum's, to {gap:.1e}"] = gap <= NEAR
    return found


def page(report: dict) -> str:
    text = ["# Explanations under attack", "", sentence(report["machine"]), ""]
    text += [f"- {'holds' if holds else '**fails**'}: {claim}" for claim, holds in claims(report).items()]
    text += [
        "",
        f"`{report['network']}`, {report['images']:,} training images, {report['epochs']} epochs, trained under "
        f"{TRAINED}, attacked under {THREAT}; {report['count']:,} test images, those classified rightly count. "
        "Maps of the gradient, attack / random move of the same size; ± is the standard deviation over seeds.",
        "",
        f"| network | seeds | right | {' | '.join(METRICS[key].name for key in report['keys'])} |",
        "|---" * (3 + len(report["keys"])) + "|",
    ]
    groups = {f"`{name}`, shipped": [results] for name, results in report["shipped"].items()}
    groups |= {name: [row for row in report["rows"] if row["name"] == name] for name in RECIPES}
    for name, rows in groups.items():
        if rows:
            cells = [f"{words(rows, key, 'attack')} / {words(rows, key, 'random')}" for key in report["keys"]]
            right = statistics.mean(row["right"] / row["samples"] for row in rows)
            text.append(f"| {name} | {len(rows)} | {right:.1%} | {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def words(rows: list[dict], key: str, column: str) -> str:
    values = [row["metrics"][key][column]["value"] for row in rows]
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="training data, such as idx:FOLDER")
    parser.add_argument("--runs", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--network", default="FashionCNN()")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--limit", type=int, help="only the first so many training images")
    parser.add_argument("--count", type=int, default=500, help="test images")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    report = {
        "machine": describe(args.threads),
        "network": args.network,
        "images": len(assay.load_data(args.train, limit=args.limit)),
        "epochs": args.epochs,
        "count": args.count,
        "captum": beside_captum(),
        "shipped": {name: measured(name, args) for name in SHIPPED},
        "rows": [],
    }
    report["keys"] = list(report["shipped"][SHIPPED[0]]["metrics"])
    for seed in range(args.seeds):
        for name in RECIPES:
            report["rows"].append({"name": name, "seed": seed, **measured(str(train_one(name, seed, args)), args)})
            (args.out / "attributions.json").write_text(json.dumps(report, indent=1) + "\n")
            (args.out / "attributions.md").write_text(page(report))
    print(page(report), file=sys.stderr)
    return 0 if all(claims(report).values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
