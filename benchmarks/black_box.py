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

import itertools
from dataclasses import asdict, dataclass

import numpy as np
from beside import Comparison, faster, moved, nearer, verdict
from folder import reader, right_images
from peers import Worker
from peers_page import OURS

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

    def record(self) -> dict:
        return {**asdict(self), "settings": SETTINGS[self.attack]}

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
    asked = {**settings, "eps": case.eps} if case.bounded else settings
    answer, x_adv = moved(worker, attack=case.attack, **asked, batch=100, first=first)
    if x_adv is None:
        return answer
    found = verdict(network, x[:first], y[:first], x_adv, case.norm)
    within = int((found <= case.eps * (1 + 1e-5)).sum())
    return {"images": len(found), "within": within, "median": float(np.median(found)), **answer}


def pair(ours: Worker, peer: Worker, case: Case, judge) -> dict | None:
    """The peer, and ours with as many queries; None where the peer does not take part."""
    if peer.library not in SETTINGS[case.attack]:
        return None
    first = len(judge[2])
    if (peer.library, case.attack) == ("art", "zoo-l2"):
        first = min(first, ZOO_IMAGES)
    settings = SETTINGS[case.attack][peer.library]
    theirs = run(peer, case, first, settings, judge)
    if "error" in theirs:
        return {"theirs": theirs}
    budget = settings["steps"] if case.bounded else int(theirs["forwards"] / theirs["images"])
    mine = run(ours, case, first, {"queries": budget}, judge)
    if "error" in mine:
        raise SystemExit(f"{case}: {mine['error']}")
    return {"ours": mine, "theirs": theirs}


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
            found.append(faster(label, ours, theirs, FASTER[against["library"], result["attack"]]))
    return found


def cells(result: dict, library: str, line: dict, near: str = "", times: str = "") -> list[str]:
    eps = EPS[result["net"], result["attack"].rpartition("-")[2]]
    return [
        result["net"], result["attack"], library, str(line["images"]), f"{eps:.4g}", str(line["within"]),
        f"{line['median']:.4g}", near, f"{queries(line):.0f}", f"{line['seconds']:.1f}", times,
    ]  # fmt: skip


def rows(result: dict) -> list[list[str]]:
    found = []
    for against in result["pairs"]:
        theirs = against["theirs"]
        if "error" in theirs:
            found.append([result["net"], result["attack"], f"{against['library']} raises {theirs['error']}"])
            continue
        ours = against["ours"]
        times = f"{theirs['seconds'] / ours['seconds']:.1f}"
        found += [cells(result, OURS, ours), cells(result, against["library"], theirs, nearer(ours, theirs), times)]
    return found


COMPARISON = Comparison(
    name="black-box",
    title="Black-box attacks beside other libraries",
    introduction=INTRODUCTION,
    columns=COLUMNS,
    holds=HOLDS,
    nets=NETS,
    peers=PEERS,
    cases=cases(),
    rows=rows,
    checks=checks,
)


def main() -> None:
    options = COMPARISON.parser(__doc__, count=50).parse_args()
    load = reader(options.data)

    def judge(net: str) -> tuple:
        network = load.net(net)
        return network, *right_images(load, NETS[net], options.count, network)

    COMPARISON.run(options, judge, pair, right=True)


if __name__ == "__main__":
    main()
