"""Our minimum-norm attacks beside those of other libraries: same networks, images and steps, one judge.

    python benchmarks/setup_peers.py                          # once
    python benchmarks/nearest.py --data FOLDER [--net resnet20] [--attack fmn] [--keep]

As in `peers.py` each library runs in a process of its own, ours and a peer take turns, one wrapper counts the passes,
and the plain network judges the images that come back: an image counts with its distance where the prediction has
changed and every value lies in the box, and as never changed otherwise. A pair is compared on the same images; the
slowest peers get fewer (`FEW`). Every library takes its defaults beside the number of steps, but for Carlini and
Wagner's L2 (learning rate and first constant 0.1, since few steps of 0.01 lead nowhere); our FMN and DDN are held to
one run and to the passes of the peers. Seconds and passes are those of the whole call.
Written after each case: results/nearest.json and results/nearest.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from folder import images, reader
from machine import describe, sentence
from peers import ROOM, Worker
from peers_page import OURS
from setup_peers import PEERS

HERE = Path(__file__).resolve().parent
ORDER = {"l0": 0, "l1": 1, "l2": 2, "linf": np.inf}
NETS = {"fast_mnist_pgd": "mnist", "resnet20": "cifar10", "recolor_delta": "cifar10"}
# data -> (library, attack) -> images, where the whole set would take hours
FEW = {
    "mnist": {("art", "cw-l2"): 10, ("art", "cw-linf"): 2, ("art", "ead-l1"): 10},
    "cifar10": {
        ("art", "deepfool-l2"): 10,
        ("art", "cw-l2"): 10,
        ("art", "cw-linf"): 2,
        ("art", "ead-l1"): 10,
        ("art", "jsma-l0"): 10,
        ("torchattacks", "jsma-l0"): 10,
        ("torchattacks", "deepfool-l2"): 20,
    },
}
# (library, attack) -> how many times as long as ours it must take, at least
SLOWER = {("art", "deepfool-l2"): 10, ("torchattacks", "jsma-l0"): 50}
COLUMNS = (
    "network", "attack", "library", "images", "changed", "median", "ours / theirs", "F", "B", "F + B, ours / theirs",
    "seconds", "seconds, ours / theirs",
)  # fmt: skip
INTRODUCTION = """
*changed*: images with another prediction afterwards, of those that were right before. *median*: of the distances of
all that were right before, with *inf* for those never changed. *F*, *B*: rows pushed forward and pulled back through
the network, per image. For each peer the line of ours above it is the run beside it, on the same images.
"""
HOLDS = """
## What must hold

Against every peer: a median at most 1 % larger, with no more passes. ART's DeepFool has to take at least 10 times as
long as ours, and torchattacks' JSMA at least 50 times.
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    net: str
    attack: str
    settings: tuple[tuple[str, int], ...]

    @property
    def norm(self) -> str:
        return self.attack.rpartition("-")[2]

    @property
    def title(self) -> str:
        return f"{self.attack} ({', '.join(f'{name} {value}' for name, value in self.settings)})"


def cases() -> list[Case]:
    searches = {"steps": 100, "searches": 6}
    settings: dict[str, dict[str, int]] = {
        "deepfool-l2": {"steps": 50},
        "deepfool-linf": {"steps": 50},
        "ddn-l2": {"steps": 100},
        **{f"fmn-{norm}": {"steps": 100} for norm in ORDER},
        "cw-l2": searches,
        "cw-linf": {"steps": 100},
        "ead-l1": searches,
        **{f"fab-{norm}": {"steps": 50} for norm in ("linf", "l2", "l1")},
        **{f"pdpgd-{norm}": {"steps": 100} for norm in ORDER},
        "sigma-zero-l0": {"steps": 100},
        "jsma-l0": {"steps": 10},
    }
    return [
        Case(net=net, attack=attack, settings=tuple(given.items()))
        for net, (attack, given) in itertools.product(NETS, settings.items())
    ]


def verdict(network, x, y, x_adv, norm: str) -> np.ndarray:
    """Distance of each image that was right before; inf where it was not changed, or has left the box."""
    with torch.no_grad():
        right, changed = network(x).argmax(1) == y, network(x_adv).argmax(1) != y
    inside = (x_adv.flatten(1) >= -ROOM).all(1) & (x_adv.flatten(1) <= 1 + ROOM).all(1)
    size = (x_adv.double() - x.double()).flatten(1).norm(ORDER[norm], dim=1)
    return torch.where(changed & inside, size, torch.inf)[right].numpy()


def run(worker: Worker, case: Case, first: int, batch: int, judge) -> dict:
    network, x, y = judge
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        settings = dict(case.settings)
        answer = worker.ask(
            do="attack", attack=case.attack, **settings, seed=0, batch=batch, first=first, save=file.name
        )
        if "error" in answer:
            return answer
        x_adv = torch.from_numpy(np.load(file.name))
    found = verdict(network, x[:first], y[:first], x_adv, case.norm)
    changed = int(np.isfinite(found).sum())
    return {"images": first, "right": len(found), "changed": changed, "median": float(np.median(found)), **answer}


def passes(line: dict) -> float:
    return (line["forwards"] + line["backwards"]) / line["images"]


def checks(result: dict) -> list[tuple[str, bool]]:
    """What must hold against each peer: a median at most 1 % larger, no more passes, and `SLOWER`."""
    found = []
    for pair in result["pairs"]:
        ours, theirs = pair["ours"], pair["theirs"]
        if "error" in theirs:
            continue
        label = f"{result['net']}, {result['title']}, {pair['library']}"
        near = ours["median"] <= theirs["median"] * 1.01
        found.append((f"{label}: median {ours['median']:.4g} against {theirs['median']:.4g}", near))
        share = passes(ours) / passes(theirs)
        found.append((f"{label}: {share:.2f} of its passes", share <= 1))
        if (pair["library"], result["attack"]) in SLOWER:
            times, least = theirs["seconds"] / ours["seconds"], SLOWER[pair["library"], result["attack"]]
            found.append((f"{label}: {times:.3g} times as fast, {least} asked for", times >= least))
    return found


def cells(result: dict, library: str, line: dict, ratios: tuple[str, str, str]) -> str:
    f, b = (line[name] / line["images"] for name in ("forwards", "backwards"))
    changed = f"{line['changed']} of {line['right']}"
    near, spent, time = ratios
    row = [
        result["net"], result["title"], library, str(line["images"]), changed, f"{line['median']:.4g}", near,
        f"{f:.1f}", f"{b:.1f}", spent, f"{line['seconds']:.1f}", time,
    ]  # fmt: skip
    return f"| {' | '.join(row)} |"


def page(report: dict) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in sorted(report["versions"].items()) if k != "torch")
    text = ["# Minimum-norm attacks beside other libraries", "", f"{sentence(report['machine'])} {versions}."]
    text += [INTRODUCTION, f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for result in report["cases"]:
        for pair in result["pairs"]:
            ours, theirs = pair["ours"], pair["theirs"]
            text.append(cells(result, OURS, ours, ("", "", "")))
            if "error" in theirs:
                text.append(f"| {result['net']} | {result['title']} | {pair['library']} | raises {theirs['error']} |")
                continue
            near = f"{ours['median'] / theirs['median']:.3f}" if np.isfinite(theirs["median"]) else "-"
            ratios = (near, f"{passes(ours) / passes(theirs):.2f}", f"{ours['seconds'] / theirs['seconds']:.2f}")
            text.append(cells(result, pair["library"], theirs, ratios))
    text.append(HOLDS)
    verdicts = [check for result in report["cases"] for check in checks(result)]
    text += [f"- {'holds' if holds else '**fails**'}: {what}" for what, holds in verdicts]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with networks, images and load.py")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=100, help="images")
    parser.add_argument("--batch", type=int, default=100, help="images a call, for the peers")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--net", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--attack", nargs="+", help="only attacks whose name begins so")
    parser.add_argument("--keep", action="store_true", help="keep earlier results of cases and peers not run now")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    load = reader(options.data)
    ours, *others = (Worker(name, options.data, options.threads) for name in (OURS, *options.peers))
    found: dict[tuple[str, str], dict] = {}
    versions: dict[str, str] = {}
    if options.keep and (options.out / "nearest.json").is_file():
        earlier = json.loads((options.out / "nearest.json").read_text())
        versions.update(earlier["versions"])
        found = {(r["net"], r["attack"]): r for r in earlier["cases"]}
    chosen = [
        case
        for case in cases()
        if case.net in options.net and (not options.attack or case.attack.startswith(tuple(options.attack)))
    ]
    for net, group in itertools.groupby(chosen, lambda case: case.net):
        judge = (load.net(net), *images(load, NETS[net], options.count))
        offers = {}
        for worker in (ours, *others):
            answer = worker.ask(do="load", net=net, data=NETS[net], count=options.count)
            versions.update(answer["versions"])
            offers[worker.library] = answer["attacks"]
        for case in group:
            earlier = found.get((net, case.attack), {"pairs": []})["pairs"]
            pairs = [pair for pair in earlier if pair["library"] not in options.peers]
            for peer in others:
                if case.attack not in offers[peer.library]:
                    continue
                first = min(options.count, FEW[NETS[net]].get((peer.library, case.attack), options.count))
                mine, theirs = (run(worker, case, first, options.batch, judge) for worker in (ours, peer))
                pairs.append({"library": peer.library, "ours": mine, "theirs": theirs})
                print(net, case.title, peer.library, mine, theirs, sep="\n  ", file=sys.stderr, flush=True)
            pairs.sort(key=lambda pair: list(PEERS).index(pair["library"]))
            found[net, case.attack] = {**asdict(case), "title": case.title, "pairs": pairs}
            order = [found[c.net, c.attack] for c in cases() if (c.net, c.attack) in found]
            report = {"machine": describe(options.threads), "versions": versions, "cases": order}
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "nearest.json").write_text(json.dumps(report) + "\n")
            (options.out / "nearest.md").write_text(page(report))
    for worker in (ours, *others):
        worker.close()
    failed = [what for result in found.values() for what, holds in checks(result) if not holds]
    print("\n".join(failed) or "everything holds", file=sys.stderr)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
