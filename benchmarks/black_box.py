"""Our black-box attacks beside those of other libraries: same networks and images, no more queries, one judge.

    python benchmarks/setup_peers.py foolbox art          # once
    python benchmarks/black_box.py --data FOLDER [--net resnet20] [--attack zoo] [--count 20] [--keep]

Each library runs in a process of its own and is given the images that the network has right. The peer runs first; ours
then gets at most the queries that the peer spent on an image (on average, rounded down) for every image, and no other
limit. Square, where an image costs what it takes, is given the same number of steps instead. One wrapper around the
network counts the queries, and the plain network judges the images that come back, as in `nearest.py`.
Written after each case: results/black-box.json and results/black-box.md.
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
from folder import reader, right_images
from machine import describe, sentence
from nearest import verdict
from peers import Worker
from peers_page import OURS

HERE = Path(__file__).resolve().parent
PEERS = ("foolbox", "art")
NETS = {"resnet20": "cifar10", "fast_mnist_pgd": "mnist"}
EPS = {("resnet20", "l2"): 0.5, ("resnet20", "linf"): 8 / 255}
EPS |= {("fast_mnist_pgd", "l2"): 2.0, ("fast_mnist_pgd", "linf"): 0.3}
# attack -> settings of each library that takes part, chosen for some thousand queries an image
SETTINGS: dict[str, dict[str, dict[str, float]]] = {
    "hop-skip-jump-l2": {"foolbox": {"steps": 15}, "art": {"steps": 15}},
    "hop-skip-jump-linf": {"foolbox": {"steps": 15}, "art": {"steps": 15}},
    "boundary-l2": {"foolbox": {"steps": 5000}, "art": {"steps": 100}},
    "square-linf": {"art": {"steps": 1000}},
    "square-l2": {"art": {"steps": 1000}},
    "zoo-l2": {"art": {"steps": 100, "searches": 3}},
    "sign-opt-l2": {"art": {"queries": 5000}},
}
ZOO_IMAGES = 5  # of ART's ZOO, at most: it takes minutes for each
FASTER = {("art", attack): 10 for attack in ("hop-skip-jump-l2", "hop-skip-jump-linf", "zoo-l2", "sign-opt-l2")}
NOT_WORSE = 1.05  # of medians, as all are random searches
COLUMNS = (
    "network", "attack", "library", "images", "eps", "within eps", "median", "ours / theirs", "queries", "seconds",
    "times as fast",
)  # fmt: skip
INTRODUCTION = """
*within eps*: images with another prediction at a distance of at most eps. *median*: of the distances of all images,
with *inf* for those never changed. *queries*: rows pushed through the network, per image. For each peer the line of
ours above it was given its queries, on the same images. *times as fast*: its seconds over ours. ZOO takes 100 steps for
each of three constants, the first 10, with steps of 0.1, and does not stop early.
"""
HOLDS = """
## What must hold

Against every peer, with no more queries: a median at most 5 % larger (all are random searches); for Square at most one
image fewer within eps. ART's HopSkipJump, Sign-OPT and ZOO have to take at least 10 times as long as ours.
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    net: str
    attack: str

    @property
    def norm(self) -> str:
        return self.attack.rpartition("-")[2]

    @property
    def eps(self) -> float:
        return EPS[self.net, self.norm]

    @property
    def bounded(self) -> bool:
        """Whether the attack works inside eps in place of looking for the smallest change."""
        return self.attack.startswith("square")


def cases() -> list[Case]:
    return [Case(net=net, attack=attack) for net, attack in itertools.product(NETS, SETTINGS)]


def run(worker: Worker, case: Case, first: int, settings: dict, judge) -> dict:
    network, x, y = judge
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        asked = {**settings, "eps": case.eps} if case.bounded else settings
        answer = worker.ask(do="attack", attack=case.attack, **asked, seed=0, batch=100, first=first, save=file.name)
        if "error" in answer:
            return answer
        x_adv = torch.from_numpy(np.load(file.name))
    found = verdict(network, x[:first], y[:first], x_adv, case.norm)
    within = int((found <= case.eps * (1 + 1e-5)).sum())
    return {"images": len(found), "within": within, "median": float(np.median(found)), **answer}


def pair(ours: Worker, peer: Worker, case: Case, judge) -> dict:
    """The peer, and ours with as many queries."""
    first = len(judge[2])
    if (peer.library, case.attack) == ("art", "zoo-l2"):
        first = min(first, ZOO_IMAGES)
    settings = SETTINGS[case.attack][peer.library]
    theirs = run(peer, case, first, settings, judge)
    if "error" in theirs:
        return {"library": peer.library, "theirs": theirs}
    budget = settings["steps"] if case.bounded else int(theirs["forwards"] / theirs["images"])
    mine = run(ours, case, first, {"queries": budget}, judge)
    if "error" in mine:
        raise SystemExit(f"{case}: {mine['error']}")
    return {"library": peer.library, "ours": mine, "theirs": theirs}


def queries(line: dict) -> float:
    return line["forwards"] / line["images"]


def checks(result: dict) -> list[tuple[str, bool]]:
    """What must hold against each peer: not worse, no more queries, and `FASTER`."""
    found = []
    for against in result["pairs"]:
        if "error" in against["theirs"]:
            continue
        ours, theirs = against["ours"], against["theirs"]
        label = f"{result['net']}, {result['attack']}, {against['library']}"
        if Case(net=result["net"], attack=result["attack"]).bounded:
            strong = ours["within"] >= theirs["within"] - 1
            found.append((f"{label}: {ours['within']} within eps against {theirs['within']}", strong))
        else:
            near = ours["median"] <= theirs["median"] * NOT_WORSE
            found.append((f"{label}: median {ours['median']:.4g} against {theirs['median']:.4g}", near))
        share = queries(ours) / queries(theirs)
        found.append((f"{label}: {share:.2f} of its queries", share <= 1))
        if (against["library"], result["attack"]) in FASTER:
            times, least = theirs["seconds"] / ours["seconds"], FASTER[against["library"], result["attack"]]
            found.append((f"{label}: {times:.3g} times as fast, {least} asked for", times >= least))
    return found


def cells(result: dict, library: str, line: dict, near: str = "", times: str = "") -> str:
    eps = EPS[result["net"], result["attack"].rpartition("-")[2]]
    row = [
        result["net"], result["attack"], library, str(line["images"]), f"{eps:.4g}", str(line["within"]),
        f"{line['median']:.4g}", near, f"{queries(line):.0f}", f"{line['seconds']:.1f}", times,
    ]  # fmt: skip
    return f"| {' | '.join(row)} |"


def page(report: dict) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in sorted(report["versions"].items()) if k != "torch")
    text = ["# Black-box attacks beside other libraries", "", f"{sentence(report['machine'])} {versions}."]
    text += [INTRODUCTION, f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for result in report["cases"]:
        for against in result["pairs"]:
            theirs = against["theirs"]
            if "error" in theirs:
                text.append(f"| {result['net']} | {result['attack']} | {against['library']} raises {theirs['error']} |")
                continue
            ours = against["ours"]
            near = f"{ours['median'] / theirs['median']:.3f}" if np.isfinite(theirs["median"]) else "-"
            text.append(cells(result, OURS, ours))
            text.append(cells(result, against["library"], theirs, near, f"{theirs['seconds'] / ours['seconds']:.1f}"))
    text.append(HOLDS)
    verdicts = [check for result in report["cases"] for check in checks(result)]
    text += [f"- {'holds' if holds else '**fails**'}: {what}" for what, holds in verdicts]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with networks, images and load.py")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=50, help="images, of which those that are right are attacked")
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
    if options.keep and (options.out / "black-box.json").is_file():
        earlier = json.loads((options.out / "black-box.json").read_text())
        versions.update(earlier["versions"])
        found = {(r["net"], r["attack"]): r for r in earlier["cases"]}
    chosen = [
        case
        for case in cases()
        if case.net in options.net and (not options.attack or case.attack.startswith(tuple(options.attack)))
    ]
    for net, group in itertools.groupby(chosen, lambda case: case.net):
        network = load.net(net)
        judge = (network, *right_images(load, NETS[net], options.count, network))
        for worker in (ours, *others):
            answer = worker.ask(do="load", net=net, data=NETS[net], count=options.count, right=True)
            versions.update(answer["versions"])
        for case in group:
            kept = found.get((net, case.attack), {"pairs": []})["pairs"]
            pairs = [against for against in kept if against["library"] not in options.peers]
            for peer in others:
                if peer.library in SETTINGS[case.attack]:
                    pairs.append(pair(ours, peer, case, judge))
                    print(net, case.attack, *pairs[-1].items(), sep="\n  ", file=sys.stderr, flush=True)
            pairs.sort(key=lambda against: PEERS.index(against["library"]))
            found[net, case.attack] = {**asdict(case), "settings": SETTINGS[case.attack], "pairs": pairs}
            order = [found[c.net, c.attack] for c in cases() if (c.net, c.attack) in found]
            report = {"machine": describe(options.threads), "versions": versions, "cases": order}
            options.out.mkdir(parents=True, exist_ok=True)
            (options.out / "black-box.json").write_text(json.dumps(report) + "\n")
            (options.out / "black-box.md").write_text(page(report))
    for worker in (ours, *others):
        worker.close()
    failed = [what for result in found.values() for what, holds in checks(result) if not holds]
    print("\n".join(failed) or "everything holds", file=sys.stderr)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
