"""One perturbation for all images, beside adversarial-robustness-toolbox: how many held-out images does it fool?

    python benchmarks/setup_peers.py                        # once
    python benchmarks/universal.py --data FOLDER

Each perturbation is fitted on the same training images, ours by DeepFool image after image (the paper's method) and by
stochastic gradient ascent, theirs by DeepFool; every library in a process of its own, where one wrapper counts the
passes. The plain network judges: on images that no fit has seen, clipped to [0, 1], an image is fooled whose decision
differs from that on the clean image. Signs at random are the baseline.
Written: results/universal.json and results/universal.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile

import numpy as np
import script
import torch
from folder import images, reader
from machine import sentence
from peers import ROOM, Worker
from peers_page import OURS

from assay.evaluation.stats import wilson

LINES = ((OURS, "uap-deepfool-linf"), ("art", "uap-deepfool-linf"), (OURS, "uap-sgd-linf"))
SETS = {"cifar10": "byte-exact test images", "cifar10-test": "test images that went through JPEG"}


def fooled(network, x, v) -> dict:
    """The share of images whose decision the perturbation changes, and its 95 % interval."""
    changed = 0
    with torch.no_grad():
        for part in x.split(500):
            changed += int((network(part).argmax(1) != network((part + v).clamp(0, 1)).argmax(1)).sum())
    return {"images": len(x), "share": changed / len(x), "interval": list(wilson(changed, len(x)))}


def fit(worker: Worker, attack: str, options: argparse.Namespace) -> dict:
    """Passes, seconds and the perturbation of one library, or its error."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        settings = {"eps": options.eps / 255, "passes": options.passes, "batch": options.batch}
        answer = worker.ask(do="attack", attack=attack, seed=options.seed, save=file.name, **settings)
        if "error" not in answer:
            answer["perturbation"] = torch.from_numpy(np.load(file.name))
    return answer


def measured(network, sets: dict, line: dict, eps: float) -> dict:
    """The line with its fooling rates in place of the perturbation."""
    if "error" in line:
        return line
    v = line.pop("perturbation")
    if float(v.abs().max()) > eps + ROOM:
        return line | {"error": f"the perturbation is {float(v.abs().max()):.4g} large, {eps:.4g} allowed"}
    return line | {"fooling": {name: fooled(network, x, v) for name, x in sets.items()}}


def checks(report: dict) -> list[tuple[str, bool]]:
    """Against each peer: no smaller fooling rate on the exact images with no more passes, for one of our methods."""
    ours = [line for line in report["lines"] if line["library"] == OURS and "error" not in line]
    found = []
    for peer in report["lines"]:
        if peer["library"] in (OURS, "random signs") or "error" in peer:
            continue
        rate = peer["fooling"]["cifar10"]["share"]
        for line in ours:
            share = line["fooling"]["cifar10"]["share"]
            passes = (line["forwards"] + line["backwards"]) / (peer["forwards"] + peer["backwards"])
            what = f"{line['attack']}: fools {share:.1%}, {peer['library']} {rate:.1%}; {passes:.2f} of its passes, "
            what += f"{line['seconds'] / peer['seconds']:.3f} of its seconds"
            found.append((what, share >= rate and passes <= 1))
    return found


def page(report: dict) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in sorted(report["versions"].items()) if k != "torch")
    given = report["settings"]
    text = ["# One perturbation for all images", "", f"{sentence(report['machine'])} {versions}.", ""]
    text += [
        f"`{given['net']}`, Linf {given['eps']:g}/255, fitted on {given['fit']} training images in at most "
        f"{given['passes']} passes over them. Fooled: held-out images whose decision changes, with 95 % intervals.",
        "",
        f"| library | method | {' | '.join(SETS.values())} | forwards | backwards | seconds |",
        "|---" * (5 + len(SETS)) + "|",
    ]
    for line in report["lines"]:
        if "error" in line:
            text.append(f"| {line['library']} | {line['attack']} | raises {line['error']} |")
            continue
        rates = [line["fooling"][name] for name in SETS]
        cells = ["{:.1%} [{:.1%}, {:.1%}] of {}".format(r["share"], *r["interval"], r["images"]) for r in rates]
        cells += [str(line[name]) for name in ("forwards", "backwards")] + [f"{line['seconds']:.1f}"]
        text.append(f"| {line['library']} | {line['attack']} | {' | '.join(cells)} |")
    text += ["", "A fooling rate at least as high, with no more passes:", ""]
    text += [f"- {'holds' if holds else '**fails**'}: {what}" for what, holds in checks(report)]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = script.parser(__doc__, threads=1)
    parser.add_argument("--net", default="resnet20")
    parser.add_argument("--eps", type=float, default=10.0, help="in units of 1/255")
    parser.add_argument("--fit", type=int, default=200, help="training images that are fitted on")
    parser.add_argument("--held-out", type=int, default=2000, help="images of each set that are measured, at most")
    parser.add_argument("--passes", type=int, default=5, help="over the images, at most")
    parser.add_argument("--batch", type=int, default=32, help="images at once, where the method allows it")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    load = reader(options.data)
    network = load.net(options.net)
    sets = {name: images(load, name, options.held_out)[0] for name in SETS}

    signs = torch.randint(2, (1, *sets["cifar10"].shape[1:]), generator=torch.Generator().manual_seed(options.seed))
    noise = {"seconds": 0.0, "forwards": 0, "backwards": 0, "perturbation": (2.0 * signs - 1) * options.eps / 255}
    found, versions = [("random signs", "none", noise)], {}
    workers: dict[str, Worker] = {}
    for library, attack in LINES:
        if library not in workers:
            worker = workers[library] = Worker(library, options.data, options.threads)
            answer = worker.ask(do="load", net=options.net, data="cifar10-train", count=options.fit)
            versions.update(answer["versions"])
        found.append((library, attack, fit(workers[library], attack, options)))
        print(library, attack, {k: v for k, v in found[-1][2].items() if k != "perturbation"}, file=sys.stderr)
    for worker in workers.values():
        worker.close()
    report = {
        **script.where(options),
        "versions": versions,
        "settings": {name: getattr(options, name) for name in ("net", "eps", "fit", "passes", "batch", "seed")},
        "lines": [
            {"library": library, "attack": attack} | measured(network, sets, line, options.eps / 255)
            for library, attack, line in found
        ],
    }
    script.end("universal", report, page(report), options, holds=all(holds for _, holds in checks(report)))


if __name__ == "__main__":
    main()
