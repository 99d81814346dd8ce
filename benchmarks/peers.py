"""Our attacks beside those of other libraries: same networks, images, budgets, steps and judge.

    python benchmarks/setup_peers.py                          # once
    python benchmarks/peers.py --data FOLDER [--rounds 5] [--threads 2]
    python benchmarks/peers.py --data FOLDER --net resnet20 --keep      # again this network, the others as they are

Each library runs in a process and an environment of its own (`worker.py`). One process works at a time, and
the runs take turns (ours, a peer, ours, the next peer, ...), so that a drift of the machine touches all alike.
Model passes are counted by one wrapper around the network. The images that come back are judged here, by the
plain network: a changed prediction counts only when the image is inside the budget and the box.
Written after each case: results/peers.json and, by `peers_page.py`, results/peers.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from folder import images, network, reader
from machine import describe
from peers_page import OURS, checks, page, summary
from setup_peers import python_of

HERE = Path(__file__).resolve().parent
ATTACKERS = ("foolbox", "torchattacks", "art", "advlib")  # peers with these attacks
ROOM = 1e-6  # how far outside its budget or box an image may be, for rounding


@dataclass(frozen=True, kw_only=True)
class Case:
    net: str
    data: str
    robust: bool
    attack: str
    steps: int
    norm: str
    eps: str
    repeat: int

    @property
    def radius(self) -> float:
        above, _, below = self.eps.partition("/")
        return float(above) / float(below or 1)


def cases() -> list[Case]:
    resnet = [("linf", "1/255"), ("linf", "2/255"), ("linf", "8/255"), ("l2", "0.25")]
    nets = [
        ("resnet20", "cifar10", False, 1, resnet),
        ("recolor_delta", "cifar10", True, 1, [("linf", "8/255"), ("l2", "0.5")]),
        ("fast_mnist_pgd", "mnist", True, 4, [("linf", "0.3"), ("l2", "1.5")]),  # cheap; the start matters most here
    ]
    return [
        Case(net=net, data=data, robust=robust, attack=attack, steps=steps, norm=norm, eps=eps, repeat=repeat)
        for net, data, robust, repeat, budgets in nets
        for norm, eps in budgets
        for attack, steps in (("pgd", 40), ("apgd", 100))
        if (norm, attack) != ("l2", "apgd")
    ]


class Worker:
    """A library's process, which answers one request at a time."""

    def __init__(self, library: str, data: str, threads: int) -> None:
        python = sys.executable if library == OURS else str(python_of(library))
        command = [python, str(HERE / "worker.py"), library, "--data", data, "--threads", str(threads)]
        self.library, self.attacks = library, ()  # those that it has for the network that it loaded
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, **request: object) -> dict:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.library} stopped while answering {request}")
        return json.loads(answer)

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


class Judge:
    """The plain network's verdict on images, whoever made them."""

    def __init__(self, load, net: str, data: str, count: int) -> None:
        self.network = network(load, net)
        self.x, self.y = images(load, data, count)
        self.clean = self.correct(self.x)

    def correct(self, x) -> np.ndarray:
        with torch.no_grad():
            return torch.cat([self.network(part).argmax(1) for part in x.split(100)]).eq(self.y).numpy()

    def verdict(self, x_adv, norm: str, radius: float) -> tuple[np.ndarray, int]:
        """Which samples withstood, and how many images broke the rules."""
        change = (x_adv.double() - self.x.double()).flatten(1)
        size = torch.linalg.vector_norm(change, ord={"linf": torch.inf, "l2": 2, "l1": 1}[norm], dim=1)
        lowest, highest = x_adv.flatten(1).aminmax(dim=1)
        inside = ((size <= radius + ROOM) & (lowest >= -ROOM) & (highest <= 1 + ROOM)).numpy()
        withstood = np.where(inside, self.correct(x_adv), self.clean)
        return withstood, int((~inside).sum())


def compare(case: Case, workers: list[Worker], judge: Judge, rounds: int, batch: int) -> dict:
    """Runs of every library in turn; ours runs before each peer, so that both share one moment."""
    ours, *others = workers
    runs: dict[str, list[dict]] = {worker.library: [] for worker in workers}
    always = {worker.library: np.ones(len(judge.y), dtype=bool) for worker in workers}

    def run(worker: Worker, seed: int) -> dict:
        with tempfile.NamedTemporaryFile(suffix=".npy") as file:
            what = {"attack": case.attack, "norm": case.norm, "eps": case.radius, "steps": case.steps}
            answer = worker.ask(do="attack", **what, seed=seed, batch=batch, save=file.name)
            if "error" in answer:
                raise SystemExit(f"{worker.library}, {case}: {answer['error']}")
            x_adv = torch.from_numpy(np.load(file.name))
        withstood, outside = judge.verdict(x_adv, case.norm, case.radius)
        always[worker.library] &= withstood
        return {"seed": seed, **answer, "robust": int(withstood.sum()), "outside": outside}

    for seed, peer in itertools.product(range(rounds * case.repeat), others):
        mine = run(ours, seed)
        theirs = run(peer, seed)
        theirs["ours_over_theirs"] = mine["seconds"] / theirs["seconds"]
        runs[OURS].append(mine)
        runs[peer.library].append(theirs)
    withstood_always = {library: np.flatnonzero(mask).tolist() for library, mask in always.items()}
    counts = {"samples": len(judge.y), "clean": int(judge.clean.sum())}
    return {**asdict(case), **counts, "runs": runs, "withstood_always": withstood_always}


class Report:
    """The results so far, in the order of `cases`; each new one is on disk at once."""

    def __init__(self, out: Path, machine: dict, batch: int, *, keep: bool) -> None:
        self.out, self.machine, self.batch = out, machine, batch
        self.versions: dict[str, str] = {}
        self.found: dict[tuple, dict] = {}
        if keep and (out / "peers.json").is_file():
            earlier = json.loads((out / "peers.json").read_text())
            self.versions.update(earlier["versions"])
            self.found = {(r["net"], r["attack"], r["norm"], r["eps"]): r for r in earlier["cases"]}

    def results(self) -> list[dict]:
        wanted = [(case.net, case.attack, case.norm, case.eps) for case in cases()]
        return [self.found[key] for key in wanted if key in self.found]

    def add(self, case: Case, result: dict) -> None:
        self.found[case.net, case.attack, case.norm, case.eps] = result
        missing = [
            f"{c.net} {c.attack.upper()}-{c.steps} {c.norm} {c.eps}"
            for c in cases()
            if (c.net, c.attack, c.norm, c.eps) not in self.found
        ]
        whole = {"machine": self.machine, "batch": self.batch, "versions": self.versions, "missing": missing}
        whole["cases"] = self.results()
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "peers.json").write_text(json.dumps(whole) + "\n")
        (self.out / "peers.md").write_text(page(whole))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with networks, images and load.py")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", type=int, default=300, help="images")
    parser.add_argument("--batch", type=int, default=100, help="images a call, for the peers")
    parser.add_argument("--peers", nargs="+", choices=ATTACKERS, default=list(ATTACKERS))
    parser.add_argument("--net", help="only this network")
    parser.add_argument("--attack", choices=["pgd", "apgd"], help="only this attack")
    parser.add_argument("--norm", help="only this norm")
    parser.add_argument("--eps", help="only this budget, as the page writes it (8/255)")
    parser.add_argument("--keep", action="store_true", help="keep earlier results of cases not run now")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    load = reader(options.data)
    report = Report(options.out, describe(options.threads), options.batch, keep=options.keep)
    only = {name: getattr(options, name) for name in ("net", "attack", "norm", "eps") if getattr(options, name)}
    chosen = [case for case in cases() if all(getattr(case, name) == value for name, value in only.items())]
    if not chosen:
        parser.error(
            f"no case has {only}; there are:\n" + "\n".join(f"{c.net} {c.attack} {c.norm} {c.eps}" for c in cases())
        )
    workers = [Worker(name, options.data, options.threads) for name in (OURS, *options.peers)]
    for (net, data), group in itertools.groupby(chosen, lambda case: (case.net, case.data)):
        judge = Judge(load, net, data, options.count)
        offers = {}
        for worker in workers:
            answer = worker.ask(do="load", net=net, data=data, count=options.count)
            report.versions.update(answer["versions"])
            offers[worker.library] = answer["attacks"]
        for case in group:
            able = [worker for worker in workers if case.attack in offers[worker.library]]
            result = compare(case, able, judge, options.rounds, options.batch)
            report.add(case, result)
            for library, line in summary(result).items():
                print(case.net, case.attack, case.norm, case.eps, library, line, file=sys.stderr, flush=True)
    for worker in workers:
        worker.close()

    failed = [what for result in report.results() for what, holds in checks(result) if not holds]
    print("\n".join(failed) or "everything holds", file=sys.stderr)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
