"""What the library costs on top of the network, and what packing gains.

    python benchmarks/overhead.py --data FOLDER [--pairs 15] [--threads 2]      # about ten minutes

(a) `perturb`, PGD-10, batch 64, beside a loop written by hand with the same arithmetic: within 3 %.
(b) An attack of which no sample ever succeeds, beside the bare forward and backward passes of the network that it
    needs, in the same micro-batches: packing, judging, recording and the attack's arithmetic within 5 %.
(c) A whole attack on a standard network beside the loop by hand, which carries every sample to the last step.

Each comparison is made of neighbouring pairs of runs whose order alternates; reported is the median ratio of a pair's
seconds with its quartiles. Written: results/overhead.json, results/overhead.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from counted import Counted
from folder import images, reader
from machine import describe, sentence
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import assay
from assay.attacks import PGD

HERE = Path(__file__).resolve().parent
EPS = 8 / 255
TINY = 1e-6  # a budget at which nothing can succeed


def by_hand(model: nn.Module, x: Tensor, y: Tensor, eps: float, steps: int) -> Tensor:
    """PGD as one writes it for a single use."""
    step = 2.5 * eps / steps
    low, high = (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)
    x_adv = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp_(0, 1)
    for _ in range(steps):
        x_adv.requires_grad_()
        loss = cross_entropy(model(x_adv), y, reduction="sum")
        (grad,) = torch.autograd.grad(loss, x_adv)
        x_adv = torch.minimum(torch.maximum(x_adv.detach() + step * grad.sign(), low), high)
    return x_adv


def bare_passes(model: nn.Module, x: Tensor, forwards: int, backwards: int, micro_batch: int) -> None:
    """The network's own time: `backwards` passes with a gradient and the rest of `forwards` without, per sample."""
    for _ in range(backwards):
        for part in x.split(micro_batch):
            part = part.detach().requires_grad_()
            torch.autograd.grad(model(part).sum(), part)
    with torch.no_grad():
        for _ in range(forwards - backwards):
            for part in x.split(micro_batch):
                model(part)


def ratios(ours: Callable[[], object], theirs: Callable[[], object], pairs: int) -> dict[str, float]:
    """Seconds of ours over seconds of theirs, in neighbouring pairs of alternating order."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for pair in range(-1, pairs):  # the first pair warms up
        for first in (True, False):
            is_ours = first == bool(pair % 2)
            start = time.perf_counter()
            (ours if is_ours else theirs)()
            seconds[is_ours].append(time.perf_counter() - start)
        print(f"pair {max(pair, 0)} of {pairs - 1}", end="\r", file=sys.stderr, flush=True)
    mine, other = np.array(seconds[True][1:]), np.array(seconds[False][1:])
    low, middle, high = np.percentile(mine / other, [25, 50, 75])
    return {
        "ratio": float(middle),
        "low": float(low),
        "high": float(high),
        "pairs": pairs,
        "ours_seconds": float(np.median(mine)),
        "other_seconds": float(np.median(other)),
    }


def training(load, pairs: int) -> dict:
    model = load.net("recolor_delta")
    x, y = images(load, "cifar10", 64)
    attack = PGD(threat=assay.Linf(EPS), steps=10)
    found = ratios(lambda: attack.perturb(model, x, y), lambda: by_hand(model, x, y, EPS, 10), pairs)
    what = "(a) perturb, PGD-10, recolor_delta, batch 64, beside the loop by hand"
    return {"what": what, "limit": 1.03, **found}


def nothing_succeeds(load, pairs: int) -> dict:
    model = load.net("recolor_delta")
    x, y = images(load, "cifar10", 150)
    with torch.no_grad():
        right = model(x).argmax(1) == y
    x, y = x[right], y[right]
    attack = PGD(threat=assay.Linf(TINY), steps=10)
    counted = Counted(model)
    result = attack(counted, x, y)
    forwards, backwards = counted.forwards // len(x), counted.backwards // len(x)
    if result.success.any() or counted.forwards % len(x) or counted.backwards % len(x):
        raise SystemExit("the budget was to leave every sample unharmed")
    size = 64  # several micro-batches, so that packing has work
    found = ratios(
        lambda: attack(model, x, y, micro_batch=size),
        lambda: bare_passes(model, x, forwards, backwards, size),
        pairs,
    )
    what = f"(b) attack, PGD-10, recolor_delta, {len(x)} samples in micro-batches of {size}, nothing succeeds"
    return {"what": f"{what}, beside {forwards} forward and {backwards} backward passes", "limit": 1.05, **found}


def packing(load, eps: float, label: str, pairs: int) -> dict:
    model = load.net("resnet20")
    x, y = images(load, "cifar10", 100)
    attack = PGD(threat=assay.Linf(eps), steps=40)
    result = attack(model, x, y)
    found = ratios(
        lambda: attack(model, x, y),
        lambda: by_hand(model, x, y, eps, 40),
        pairs,
    )
    spent = f"{result.backwards.double().mean().item():.1f} gradient evaluations a sample in place of 40"
    what = f"(c) attack, PGD-40, resnet20, eps {label}, 100 samples, {spent}, beside the loop by hand"
    return {"what": what, "limit": None, **found}


def page(report: dict) -> str:
    text = ["# Overhead", "", sentence(report["machine"]), "", "| what | ratio of seconds | quartiles | limit |"]
    text.append("|---|---|---|---|")
    for line in report["lines"]:
        limit = "-" if line["limit"] is None else f"{line['limit']:.2f}"
        verdict = "" if line["limit"] is None or line["ratio"] <= line["limit"] else " **exceeded**"
        quartiles = f"{line['low']:.3f}-{line['high']:.3f} ({line['pairs']} pairs)"
        text.append(f"| {line['what']} | {line['ratio']:.3f} | {quartiles} | {limit}{verdict} |")
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with networks, images and load.py")
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    load = reader(options.data)
    few = max(1, options.pairs // 3)
    lines = []
    for part in (
        lambda: training(load, options.pairs),
        lambda: nothing_succeeds(load, options.pairs),
        lambda: packing(load, 1 / 255, "1/255", few),
        lambda: packing(load, 8 / 255, "8/255", few),
    ):
        lines.append(part())
        print(lines[-1], file=sys.stderr, flush=True)
    report = {"machine": describe(options.threads), "lines": lines}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "overhead.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "overhead.md").write_text(page(report))
    print(page(report))
    raise SystemExit(any(line["limit"] is not None and line["ratio"] > line["limit"] for line in lines))


if __name__ == "__main__":
    main()
