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

import itertools
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
from beside import ORDER, Comparison, faster, moved, nearer, verdict
from folder import images, reader
from peers import Worker
from peers_page import OURS
from setup_peers import PEERS

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

    def record(self) -> dict:
        return {**asdict(self), "title": self.title}

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


def run(worker: Worker, case: Case, first: int, batch: int, judge) -> dict:
    network, x, y = judge
    answer, x_adv = moved(worker, attack=case.attack, **dict(case.settings), batch=batch, first=first)
    if x_adv is None:
        return answer
    found = verdict(network, x[:first], y[:first], x_adv, case.norm)
    changed = int(np.isfinite(found).sum())
    return {"images": first, "right": len(found), "changed": changed, "median": float(np.median(found)), **answer}


def pair(ours: Worker, peer: Worker, case: Case, judge, *, batch: int) -> dict | None:
    """Both on the same images; None where the peer has no such attack."""
    if case.attack not in peer.attacks:
        return None
    count = len(judge[2])
    first = min(count, FEW[NETS[case.net]].get((peer.library, case.attack), count))
    return {"ours": run(ours, case, first, batch, judge), "theirs": run(peer, case, first, batch, judge)}


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
            found.append(faster(label, ours, theirs, SLOWER[pair["library"], result["attack"]]))
    return found


def cells(result: dict, library: str, line: dict, ratios: tuple[str, str, str]) -> list[str]:
    f, b = (line[name] / line["images"] for name in ("forwards", "backwards"))
    changed = f"{line['changed']} of {line['right']}"
    near, spent, time = ratios
    return [
        result["net"], result["title"], library, str(line["images"]), changed, f"{line['median']:.4g}", near,
        f"{f:.1f}", f"{b:.1f}", spent, f"{line['seconds']:.1f}", time,
    ]  # fmt: skip


def rows(result: dict) -> list[list[str]]:
    found = []
    for pair in result["pairs"]:
        ours, theirs = pair["ours"], pair["theirs"]
        found.append(cells(result, OURS, ours, ("", "", "")))
        if "error" in theirs:
            found.append([result["net"], result["title"], pair["library"], f"raises {theirs['error']}"])
            continue
        spent, time = passes(ours) / passes(theirs), ours["seconds"] / theirs["seconds"]
        found.append(cells(result, pair["library"], theirs, (nearer(ours, theirs), f"{spent:.2f}", f"{time:.2f}")))
    return found


COMPARISON = Comparison(
    name="nearest",
    title="Minimum-norm attacks beside other libraries",
    introduction=INTRODUCTION,
    columns=COLUMNS,
    holds=HOLDS,
    nets=NETS,
    peers=list(PEERS),
    cases=cases(),
    rows=rows,
    checks=checks,
)


def main() -> None:
    parser = COMPARISON.parser(__doc__, count=100)
    parser.add_argument("--batch", type=int, default=100, help="images a call, for the peers")
    options = parser.parse_args()
    load = reader(options.data)
    COMPARISON.run(
        options,
        judge=lambda net: (load.net(net), *images(load, NETS[net], options.count)),
        pair=partial(pair, batch=options.batch),
    )


if __name__ == "__main__":
    main()
