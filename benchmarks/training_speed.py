"""How fast `assay train` trains, beside a loop written by hand, and what a second process gains.

    python benchmarks/training_speed.py [--data fashion-mnist] [--pairs 15] [--threads 2]      # half an hour

(a) PGD-AT-10 and TRADES-10 on FashionCNN beside a loop written by hand with the same arithmetic, optimizer and batches
    of the same size: within 3 %.
(b) Two gloo processes with one thread each beside one process with one thread, the same batch shared by two: at least
    1.7 times as many images a second. It needs two idle cores.

Each comparison is made of neighbouring pairs of runs whose order alternates; reported is the median ratio of a pair
with its quartiles. Written: results/training-speed.json, results/training-speed.md.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from machine import describe, sentence
from overhead import ratios
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

import assay
from assay.data import Data
from assay.models.networks import FashionCNN
from assay.training.feed import Feed
from assay.training.fit import Fit
from assay.training.recipes import PGDAT, TRADES
from assay.training.schedules import Constant
from assay.training.settings import Settings
from assay.training.workers import Workers

HERE = Path(__file__).resolve().parent
EPS, STEPS, RATE, BATCH = 0.1, 10, 2e-3, 128
EPOCHS = 1000  # none of the loops comes to its end


def moved(x: Tensor, x_adv: Tensor, grad: Tensor, step: float) -> Tensor:
    return torch.minimum(torch.maximum(x_adv.detach() + step * grad.sign(), x - EPS), x + EPS).clamp(0, 1)


def pgdat_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    model.eval()
    x_adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        x_adv.requires_grad_()
        (grad,) = torch.autograd.grad(cross_entropy(model(x_adv), y, reduction="sum"), x_adv)
        x_adv = moved(x, x_adv, grad, EPS / 4)
    model.train()
    return cross_entropy(model(x_adv), y)


def trades_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    model.eval()
    with torch.no_grad():
        wanted = model(x).softmax(1)
    x_adv = (x + 0.001 * torch.randn_like(x)).clamp(0, 1)
    for _ in range(STEPS):
        x_adv.requires_grad_()
        loss = kl_div(model(x_adv).log_softmax(1), wanted, reduction="sum")
        (grad,) = torch.autograd.grad(loss, x_adv)
        x_adv = moved(x, x_adv, grad, EPS * 7 / 31)
    model.train()
    clean = model(x)
    robust = kl_div(model(x_adv).log_softmax(1), clean.softmax(1), reduction="batchmean")
    return cross_entropy(clean, y) + 6.0 * robust


def by_hand(model: nn.Module, data: Data, loss_of) -> Iterator[None]:
    """Training as one writes it for a single use, a step at a time."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    while True:
        for rows in torch.randperm(len(data)).split(BATCH):
            if len(rows) < BATCH:
                break
            loss = loss_of(model, data.x[rows], data.y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if not np.isfinite(loss.item()):
                raise SystemExit("the loop by hand diverged")
            yield


def by_assay(model: nn.Module, data: Data, recipe) -> Iterator[None]:
    """The steps of `assay train`."""
    settings = Settings(recipe=recipe, epochs=EPOCHS, batch=BATCH, schedule=Constant())
    fit = Fit(model, Feed(data=data, batch=BATCH, seed=0), settings, Workers("cpu"), 10)
    while True:
        yield from fit.steps_left()
        fit.progress.history.append({})


def several(steps: Iterator[None], count: int) -> None:
    for _ in range(count):
        next(steps)


def beside_by_hand(name: str, recipe, loss_of, data: Data, pairs: int, count: int) -> dict:
    torch.manual_seed(0)
    ours, theirs = by_assay(FashionCNN(), data, recipe), by_hand(FashionCNN(), data, loss_of)
    found = ratios(lambda: several(ours, count), lambda: several(theirs, count), pairs)
    what = f"(a) {name} on FashionCNN, batches of {BATCH}, {count} steps a run, beside the loop by hand"
    speeds = {f"{who}_images_per_second": count * BATCH / found[f"{who}_seconds"] for who in ("ours", "other")}
    return {"what": what, "of": "seconds", "limit": 1.03, "holds": found["ratio"] <= 1.03, **found, **speeds}


def images_per_second(data: str, limit: int, processes: int) -> float:
    """Of the command line, without starting, measuring and the first epoch."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        line = f"train FashionCNN() --data {data} --limit {limit} --recipe pgdat --threat linf:{EPS} --epochs 3"
        line += f" --batch {BATCH} --validation 0 --device cpu --quiet --devices {processes} --out {out}"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, "-m", "assay", *line.split()], env=environment, check=True)
        with (out / "metrics.csv").open(newline="") as file:
            return statistics.median(float(row["images_per_second"]) for row in list(csv.DictReader(file))[1:])


def two_processes(data: str, limit: int, pairs: int) -> dict:
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for pair in range(pairs):
        for processes in (1, 2) if pair % 2 else (2, 1):
            speeds[processes].append(images_per_second(data, limit, processes))
    one, two = np.array(speeds[1]), np.array(speeds[2])
    low, middle, high = np.percentile(two / one, [25, 50, 75])
    return {
        "what": f"(b) two gloo processes beside one, one thread each, PGD-AT-10 on FashionCNN, {BATCH} images a step",
        "of": "images a second",
        "limit": 1.7,
        "holds": bool(middle >= 1.7),
        "ratio": float(middle),
        "low": float(low),
        "high": float(high),
        "pairs": pairs,
        "ours_images_per_second": float(np.median(two)),
        "other_images_per_second": float(np.median(one)),
    }


def page(report: dict) -> str:
    text = ["# Speed of training", "", sentence(report["machine"]), ""]
    text += ["| what | ratio | quartiles | limit | images a second |", "|---|---|---|---|---|"]
    for line in report["lines"]:
        bound = "at most" if line["of"] == "seconds" else "at least"
        verdict = "" if line["holds"] else " **missed**"
        quartiles = f"{line['low']:.3f}-{line['high']:.3f} ({line['pairs']} pairs)"
        speeds = f"{line['ours_images_per_second']:,.0f} beside {line['other_images_per_second']:,.0f}"
        ratio = f"{line['ratio']:.3f} of {line['of']}"
        limit = f"{bound} {line['limit']:.2f}{verdict}"
        text.append(f"| {line['what']} | {ratio} | {quartiles} | {limit} | {speeds} |")
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist", help="DATA of 1x28x28 images")
    parser.add_argument("--pairs", type=int, default=15, help="a third of them with several processes")
    parser.add_argument("--steps", type=int, default=8, help="of a run, in (a)")
    parser.add_argument("--limit", type=int, default=2000, help="samples")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    data = assay.load_data(options.data).take(options.limit)
    threat = assay.Linf(EPS)
    trades = assay.grammar.recipe("trades", threat)
    assert isinstance(trades, TRADES)
    known = (("PGD-AT-10", PGDAT(threat=threat, steps=STEPS), pgdat_loss), ("TRADES-10", trades, trades_loss))
    lines = [beside_by_hand(*each, data, options.pairs, options.steps) for each in known]
    lines.append(two_processes(options.data, options.limit, max(1, options.pairs // 3)))
    report = {"machine": describe(options.threads), "lines": lines}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "training-speed.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "training-speed.md").write_text(page(report))
    print(page(report))
    raise SystemExit(not all(line["holds"] for line in lines))


if __name__ == "__main__":
    main()
