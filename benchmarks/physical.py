"""Adversarial images on paper: what survives the camera, made with and without expectation over transformations.

    python benchmarks/physical.py --data FOLDER

PGD in Linf on exact CIFAR-10 images, in three ways: as in an evaluation, which stops at the first success; for all its
steps; and for all its steps on means over views through the camera. The camera is `assay.physical.CAMERA`; the
photographs are other draws than the views. Claim, at the smallest budget: the success that is left after
the camera is at least twice that of either plain way. The page says the factor at each budget: at larger ones plain
perturbations survive the camera better, and EOT has less to gain.
Written: results/physical.json, results/physical.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable

import script
import torch
from folder import images, reader
from machine import sentence

from assay.attacks import PGD
from assay.physical import CAMERA, measure
from assay.threats import Linf
from assay.transformations import EOT

BUDGETS = (2, 4, 8)  # of 255
PHOTOS = 20
FACTOR = 2.0
STOPS, PLAIN, EXPECTED = "plain, stops at success", "plain, all steps", "EOT, all steps"


def attack_net(load, options: argparse.Namespace, device: torch.device) -> list[dict]:
    """One row for each budget and each way to attack."""
    model = load.net(options.net).to(device)
    x, y = (tensor.to(device) for tensor in images(load, "cifar10", options.images))
    rows = []
    for budget in BUDGETS:
        attack = PGD(threat=Linf(budget / 255), steps=options.steps)
        eot = EOT(*CAMERA, draws=options.draws)
        ways = {
            STOPS: lambda attack=attack: attack(model, x, y).x_adv,
            PLAIN: lambda attack=attack: attack.perturb(model, x, y),
            EXPECTED: lambda attack=attack, eot=eot: attack.perturb(model, x, y, eot=eot),
        }
        for name, run in ways.items():
            start = time.perf_counter()
            x_adv = run()
            seconds = time.perf_counter() - start
            if float((x_adv - x).abs().max()) > budget / 255 + 1e-6:
                raise SystemExit(f"{name}: an image left the ball of {budget}/255")
            found = measure(model, x, x_adv, y, photos=PHOTOS)
            rows.append({"budget": budget, "way": name, "seconds": seconds, **found.as_dict()})
            print(f"{budget}/255 {name}: {found.success_after:.3f} after the camera, {seconds:.0f} s", file=sys.stderr)
    return rows


def verdict(rows: list[dict]) -> dict:
    """How many times the success of each plain way EOT keeps after the camera, at each budget."""
    after = {(row["budget"], row["way"]): row["success_after"] for row in rows}
    factors = {
        str(budget): {
            way: after[budget, EXPECTED] / after[budget, way] if after[budget, way] else None for way in (STOPS, PLAIN)
        }
        for budget in BUDGETS
    }
    return {"factors": factors, "holds": enough(factors[str(min(BUDGETS))].values())}


def enough(factors: Iterable[float | None]) -> bool:
    """Whether each is as large as claimed; None is a factor over nothing, which shows nothing."""
    return all(factor is not None and factor >= FACTOR for factor in factors)


def page(report: dict) -> str:
    v, rows = report["verdict"], report["rows"]
    text = ["# Adversarial images after printing and photographing", "", sentence(report["machine"]), ""]
    text += [
        f"{report['net']}, {rows[0]['samples']} byte-exact CIFAR-10 test images, {PHOTOS} photographs of each, "
        f"{report['device']}. PGD in Linf, {report['steps']} steps; EOT: means over {report['draws']} views a step. "
        f"{rows[0]['clean_photos_right'] / rows[0]['samples'] / PHOTOS:.1%} of the photographs of clean images are "
        "classified rightly. The camera:",
        "",
        f"`{report['camera']}`",
        "",
    ]
    least = str(min(BUDGETS))
    text += [
        f"- {'holds' if v['holds'] else '**fails**'}: at {least}/255 EOT keeps at least {FACTOR:g} times the success "
        "of either plain way",
        "",
        f"Success after the camera with EOT, as a multiple of that of each plain way, on {rows[0]['samples']} images:",
        "",
        f"| eps | {' | '.join((STOPS, PLAIN))} | at least {FACTOR:g} times either |",
        "|---|---|---|---|",
    ]
    for budget, by_way in v["factors"].items():
        factors = [by_way[way] for way in (STOPS, PLAIN)]
        told = " | ".join("-" if factor is None else f"{factor:.2f}" for factor in factors)
        text += [f"| {budget}/255 | {told} | {'yes' if enough(factors) else '**no**'} |"]
    text += [
        "",
        "*before*: wrong without a camera, of images that are right clean. *after*: wrong photographs, of those whose "
        "clean counterpart, photographed in the same way, is right. *destruction rate*: photographs that are right "
        "again, of images that are right clean and wrong with the perturbation (Kurakin et al. 2017).",
        "",
        "| eps | attack | before | after | destruction rate | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        destroyed = "-" if row["destruction_rate"] is None else f"{row['destruction_rate']:.1%}"
        text += [
            f"| {row['budget']}/255 | {row['way']} | {row['success_before']:.1%} | {row['success_after']:.1%} | "
            f"{destroyed} | {row['seconds']:.0f} |"
        ]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("--net", default="resnet20")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--draws", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    rows = attack_net(reader(options.data), options, torch.device(options.device))
    report = {
        **script.where(options),
        "net": options.net,
        "steps": options.steps,
        "draws": options.draws,
        "camera": ", ".join(map(repr, CAMERA)),
        "rows": rows,
        "verdict": verdict(rows),
    }
    script.end("physical", report, page(report), options, holds=report["verdict"]["holds"])


if __name__ == "__main__":
    main()
