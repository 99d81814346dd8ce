"""How near our attacks come to the exact smallest perturbation of a small ReLU network.

    python benchmarks/optimality.py [--attack FMN ...]         # some minutes; exact_distances.py made the answers

For each norm every minimum-norm attack is run on the images of results/exact-distances.json. Reported is the ratio of
its distance to the exact one, with the passes it took, and the same for the best of all attacks on each image.
Must hold for the best of them: median at most 1.01, 95th percentile at most 1.05; for each attack: none below 1 - 1e-6.
Written: results/optimality.json, results/optimality.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe, sentence

import assay
from assay import attacks

HERE = Path(__file__).resolve().parent
THREATS = {"linf": assay.Linf(), "l2": assay.L2(), "l1": assay.L1()}
ROUNDING = 1e-6
MEDIAN, LARGEST = 1.01, 1.05


def contenders(norm: str) -> dict[str, attacks.Attack]:
    threat = THREATS[norm]
    found: dict[str, attacks.Attack] = {
        "FMN": attacks.FMN(threat=threat),
        "FAB": attacks.FAB(threat=threat),
        "PDPGD": attacks.PDPGD(threat=threat, steps=20, restarts=5),
    }
    if norm == "l2":
        found["DDN"] = attacks.DDN(threat=threat)
    if norm == "l1":
        found["EAD"] = attacks.EAD(threat=threat)
    else:
        found["DeepFool"] = attacks.DeepFool(threat=threat)
        found["CarliniWagner"] = attacks.CarliniWagner(threat=threat, steps=1000)
    return found


def line(name: str, ratios: np.ndarray, spent: dict[str, float]) -> dict:
    quantiles = np.quantile(ratios, [0.5, 0.95], method="higher")
    return {
        "attack": name,
        "median": float(quantiles[0]),
        "p95": float(quantiles[1]),
        "largest": float(ratios.max()),
        "least": float(ratios.min()),
        **spent,
    }


def page(report: dict) -> str:
    text = ["# Distance to the optimum", "", sentence(report["machine"]), ""]
    text.append(
        f"{report['images']} images of the digits, network 64-20-10, exact distances from `exact_distances.py`. "
        "Ratios of the distance found to the exact one; *found*: images for which anything was found; passes per image."
    )
    for norm, lines in report["norms"].items():
        text += ["", f"## {norm}", "", "| attack | median | 95 % | largest | least | found | F | B | seconds |"]
        text.append("|---|---|---|---|---|---|---|---|---|")
        for r in lines:
            numbers = [f"{r[key]:.6f}" for key in ("median", "p95", "largest", "least")]
            numbers += [str(r["found"]), f"{r['forwards']:.0f}", f"{r['backwards']:.0f}", f"{r['seconds']:.1f}"]
            text.append(f"| {r['attack']} | {' | '.join(numbers)} |")
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--attack", nargs="+", help="only these")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()

    exact = json.loads((HERE / "results" / "exact-distances.json").read_text())
    index = torch.tensor([image["index"] for image in exact["images"]])
    data = assay.load_data(exact["data"])
    model = assay.load_model(exact["model"]).double()
    x, y = data.x[index].double(), data.y[index]
    report = {"machine": describe(torch.get_num_threads()), "images": len(index), "norms": {}}
    failed = []
    for norm in THREATS:
        answer = np.array([image[norm] for image in exact["images"]])
        lines, best = [], np.full(len(index), np.inf)
        total = {"forwards": 0.0, "backwards": 0.0, "seconds": 0.0}
        for name, attack in contenders(norm).items():
            if options.attack and name not in options.attack:
                continue
            began = time.perf_counter()
            result = attack(model, x, y)
            spent = {"forwards": float(result.forwards.double().mean())}
            spent |= {"backwards": float(result.backwards.double().mean()), "seconds": time.perf_counter() - began}
            ratios = result.distance.numpy() / answer
            total = {key: total[key] + spent[key] for key in total}
            best = np.minimum(best, ratios)
            lines.append(line(name, ratios, {**spent, "found": int(result.success.sum())}))
            print(norm, lines[-1], file=sys.stderr, flush=True)
            if ratios.min() < 1 - ROUNDING:
                failed.append(f"{norm}: {name} reports {ratios.min():.9f} of the exact distance")
        lines.append(line("best of all", best, {**total, "found": int(np.isfinite(best).sum())}))
        report["norms"][norm] = lines
        if lines[-1]["median"] > MEDIAN or lines[-1]["p95"] > LARGEST:
            failed.append(f"{norm}: best of all has median {lines[-1]['median']:.4f}, 95 % {lines[-1]['p95']:.4f}")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "optimality.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "optimality.md").write_text(page(report))
    print(page(report))
    print("\n".join(failed) or "everything holds", file=sys.stderr)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
