"""Every training recipe on Fashion-MNIST: what it costs and what a strong attack leaves of it.

    python benchmarks/recipes.py --train idx:FOLDER --runs FOLDER     # hours on a slow core; --only, --seeds, --epochs

One small network, Linf 0.1, equal passes over the data, the same optimizer for all. Each run is a folder of `assay
train`, and is continued where it was stopped. Measured on test images that ship with the package: clean accuracy,
PGD-20, and what the suite `standard` leaves.
Written: results/recipes.json, results/recipes.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from machine import describe, sentence

import assay
from assay import grammar
from assay.attacks import PGD

HERE = Path(__file__).resolve().parent
THREAT = "linf:0.1"
MAIN = ("PGD-AT", "TRADES", "MART", "AWP", "fast AT")  # measured with every seed
HELD = ("PGD-AT", "TRADES", "MART", "AWP")
POINTS = 0.6  # by which these have to exceed standard training under the suite


@dataclass(frozen=True)
class Plan:
    """A recipe as it is written on the command line, and what differs from the other runs."""

    recipe: str
    settings: list[str] = field(default_factory=list)
    share: float = 1.0  # of the epochs: free AT goes through the data several times in each
    begins: str = ""  # the run whose network it goes on with
    lr: float = 2e-3


PLANS = {
    "standard": Plan("standard"),
    "FGSM-AT": Plan("fgsmat"),
    "fast AT": Plan("fastat"),
    "GradAlign": Plan("gradalign"),
    "free AT, m = 4": Plan("freeat", ["replays=4"], share=0.25),
    "PGD-AT": Plan("pgdat"),
    "ALP": Plan("alp"),
    "TRADES": Plan("trades"),
    "MART": Plan("mart"),
    "AWP": Plan("awp"),
    "AWP on TRADES": Plan("AWP(recipe=TRADES(), gamma=0.005)"),
    "interpolated AT": Plan("interpolatedat"),
    "AVMixup": Plan("avmixup"),
    "CURE": Plan("cure", begins="standard", lr=1e-4),
    "LLR": Plan("llr"),
    "ART": Plan("art"),
    "IG-NORM": Plan("ignorm", ["segments=10", "search_segments=5"]),
    "IG-SUM-NORM": Plan("igsumnorm", ["segments=10", "search_segments=5"]),
    "distillation, T = 100": Plan("distillation"),
    "Linf and L2, the worse": Plan(
        "MultiThreat(attacks=(PGD(threat=Linf(0.1), steps=10, rel_step=0.25), PGD(threat=L2(1.5), steps=10)))"
    ),
}


def train_one(name: str, seed: int, args: argparse.Namespace) -> Path:
    plan = PLANS[name]
    threat = grammar.threat(THREAT)
    out = args.runs / f"{name.replace(' ', '-').replace(',', '').replace('=', '')}-{seed}"
    model = args.network if not plan.begins else str(args.runs / f"{plan.begins}-{seed}")
    assay.train(
        model,
        args.train,
        recipe=grammar.recipe(plan.recipe, threat, plan.settings),
        threat=threat,
        epochs=max(1, round(args.epochs * plan.share)),
        optimizer=f"AdamW(lr={plan.lr})",
        schedule="Cyclic(peak=0.2)",
        guard=None,
        keep="last",
        limit=args.limit,
        seed=seed,
        out=out,
        resume=True,
    )
    return out


def measure(folder: Path, count: int) -> dict[str, float]:
    """Accuracy of the network in a folder: clean, under PGD-20, under the suite."""
    model, data = assay.load_model(str(folder)), assay.load_data("fashion-mnist", limit=count)
    threat = grammar.threat(THREAT)
    x, y, index = data.batch(0, count)
    pgd = PGD(threat=threat, steps=20)(model, x, y, index=index)
    found = assay.evaluate(model, data, threat=threat, suite="standard", progress=False)
    return {
        "clean": found.clean_accuracy,
        "pgd20": 1 - float(pgd.success.double().mean()),
        "suite": found.robust_accuracy,
    }


def run(name: str, seed: int, args: argparse.Namespace) -> dict:
    start = time.perf_counter()
    folder = train_one(name, seed, args)
    rows = (folder / "metrics.csv").read_text().splitlines()[1:]
    seconds = [float(row.rpartition(",")[2]) for row in rows]
    plan = PLANS[name]
    found = {"name": name, "seed": seed, "seconds_a_pass": statistics.mean(seconds) * plan.share,
             **measure(folder, args.count)}  # fmt: skip
    print(f"{name}, seed {seed}: {found}, {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return found


def mean(rows: list[dict], key: str) -> str:
    values = [row[key] for row in rows]
    spread = f" ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.1f}{spread}"


def page(report: dict) -> str:
    by_name = {name: [row for row in report["rows"] if row["name"] == name] for name in PLANS}
    by_name = {name: rows for name, rows in by_name.items() if rows}
    v = verdict(report["rows"])
    text = ["# Training recipes", "", sentence(report["machine"]), ""]
    text += [
        f"`{report['network']}`, {report['images']:,} training images, Linf 0.1, {report['epochs']} passes over the "
        f"data (free AT: as many in all), AdamW under one cycle; measured on {report['count']:,} other test images. "
        "Percent; ± is the standard deviation over seeds.",
        "",
    ]
    for name, ahead in v.items():
        text.append(
            f"- {'holds' if ahead >= POINTS else '**fails**'}: {name} is {100 * ahead:.1f} points above standard "
            f"training under the suite ({100 * POINTS:.0f} wanted)"
        )
    text += ["", "| recipe | seeds | clean | PGD-20 | suite `standard` | seconds for a pass over the data |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    text += [
        f"| {name} | {len(rows)} | {mean(rows, 'clean')} | {mean(rows, 'pgd20')} | {mean(rows, 'suite')} | "
        f"{statistics.mean(row['seconds_a_pass'] for row in rows):.0f} |"
        for name, rows in by_name.items()
    ]
    return "\n".join(text) + "\n"


def verdict(rows: list[dict]) -> dict[str, float]:
    """By how much each of the recipes in HELD exceeds standard training under the suite."""
    suite = {}
    for row in rows:
        suite.setdefault(row["name"], []).append(row["suite"])
    if "standard" not in suite:
        return {}
    base = statistics.mean(suite["standard"])
    return {name: statistics.mean(suite[name]) - base for name in HELD if name in suite}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="training data, such as idx:FOLDER")
    parser.add_argument("--runs", type=Path, required=True, help="where the runs are kept")
    parser.add_argument("--network", default="FashionCNN()")
    parser.add_argument("--only", nargs="+", choices=list(PLANS), default=list(PLANS))
    parser.add_argument("--seeds", type=int, default=3, help="of the main recipes; the others have one")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--limit", type=int, help="only the first so many training images")
    parser.add_argument("--count", type=int, default=2000, help="test images")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=HERE / "results")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path = args.out / "recipes.json"
    known = json.loads(path.read_text())["rows"] if path.exists() else []
    images = len(assay.load_data(args.train, limit=args.limit))
    jobs = [(name, seed) for seed in range(args.seeds) for name in args.only if seed == 0 or name in MAIN]
    for name, seed in jobs:
        if any(row["name"] == name and row["seed"] == seed for row in known):
            continue
        known.append(run(name, seed, args))
        report = {
            "machine": describe(args.threads),
            "network": args.network,
            "images": images,
            "epochs": args.epochs,
            "count": args.count,
            "rows": known,
        }
        path.write_text(json.dumps(report, indent=1) + "\n")
        (args.out / "recipes.md").write_text(page(report))
    return 0 if all(ahead >= POINTS for ahead in verdict(known).values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
