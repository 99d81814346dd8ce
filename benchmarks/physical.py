"""Adversarial images on paper: what survives the camera, made with and without expectation over transformations.

    python benchmarks/physical.py --data FOLDER

PGD in Linf on exact CIFAR-10 images, in three ways: as in an evaluation, which stops at the first success; for all its
steps; and for all its steps on means over views through the camera. The camera is `assay.physical.CAMERA`; the
photographs are other draws than the views. Claim, at the smallest budget: the success that is left after
the camera is at least twice that of either plain way.
Written: results/physical.json, results/physical.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from folder import images, reader
from machine import describe, sentence

from assay.attacks import PGD
from assay.physical import CAMERA, measure
from assay.threats import Linf
from assay.transformations import EOT

HERE = Path(__file__).resolve().parent
BUDGETS = (2, 4)  # of 255
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
        str(budget): {way: after[budget, EXPECTED] / after[budget, way] for way in (STOPS, PLAIN)} for budget in BUDGETS
    }
    return {"factors": factors, "holds": min(factors[str(min(BUDGETS))].values()) >= FACTOR}


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
        f"of either plain way ({', '.join(f'{f:.2f} times: {way}' for way, f in v['factors'][least].items())})",
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with load.py, its networks and its images")
    parser.add_argument("--net", default="resnet20")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    load, device = reader(options.data), torch.device(options.device)
    rows = attack_net(load, options, device)
    report = {
        "machine": describe(options.threads),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "on the processor",
        "net": options.net,
        "steps": options.steps,
        "draws": options.draws,
        "camera": ", ".join(map(repr, CAMERA)),
        "rows": rows,
        "verdict": verdict(rows),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "physical.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "physical.md").write_text(page(report))
    print(json.dumps(report["verdict"], indent=1), file=sys.stderr)
    raise SystemExit(not report["verdict"]["holds"])


if __name__ == "__main__":
    main()
