"""What comparisons of attacks that look for small changes share: their options, runs in turn, one judge, the page.

Each library runs in a process of its own; the plain network judges the images that come back. Results are written after
each case, and those of cases and peers that are not run now can be kept.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe, sentence
from peers import ROOM, Worker
from peers_page import OURS

HERE = Path(__file__).resolve().parent
ORDER = {"l0": 0, "l1": 1, "l2": 2, "linf": np.inf}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One table of ours beside peers, and what must hold of it."""

    name: str  # of the files in results/
    title: str
    introduction: str
    columns: tuple[str, ...]
    holds: str
    nets: dict[str, str]  # network -> data
    peers: Sequence[str]
    cases: Sequence[Any]  # each with net, attack and record(), in the order of the table
    rows: Callable[[dict], list[list[str]]]  # of one case in the table
    checks: Callable[[dict], list[tuple[str, bool]]]  # what must hold of one case, and whether it does

    def parser(self, words: str, count: int) -> argparse.ArgumentParser:
        parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawTextHelpFormatter)
        parser.add_argument("--data", required=True, help="folder with networks, images and load.py")
        parser.add_argument("--threads", type=int, default=1)
        parser.add_argument("--count", type=int, default=count, help="images")
        parser.add_argument("--peers", nargs="+", choices=self.peers, default=list(self.peers))
        parser.add_argument("--net", nargs="+", choices=self.nets, default=list(self.nets))
        parser.add_argument("--attack", nargs="+", help="only attacks whose name begins so")
        parser.add_argument("--keep", action="store_true", help="keep earlier results of cases and peers not run now")
        parser.add_argument("--out", type=Path, default=HERE / "results")
        return parser

    def run(self, options: argparse.Namespace, judge: Callable, pair: Callable, **asked: object) -> None:
        """Run every chosen case against every peer, and exit with 1 where something does not hold.

        `judge(net)` gives the network, images and labels, `pair(ours, peer, case, judged)` the lines of both, or None
        where a peer has no such attack; `asked` goes to the processes along with the network.
        """
        torch.set_num_threads(options.threads)
        ours, *others = (Worker(name, options.data, options.threads) for name in (OURS, *options.peers))
        found, versions = self._kept(options)
        for net, group in itertools.groupby(self._chosen(options), lambda case: case.net):
            judged = judge(net)
            for worker in (ours, *others):
                answer = worker.ask(do="load", net=net, data=self.nets[net], count=options.count, **asked)
                versions.update(answer["versions"])
                worker.attacks = answer["attacks"]
            for case in group:
                kept = found.get((net, case.attack), {"pairs": []})["pairs"]
                pairs = [each for each in kept if each["library"] not in options.peers]
                for peer in others:
                    if (lines := pair(ours, peer, case, judged)) is not None:
                        pairs.append({"library": peer.library, **lines})
                        print(net, case.attack, *pairs[-1].items(), sep="\n  ", file=sys.stderr, flush=True)
                pairs.sort(key=lambda each: list(self.peers).index(each["library"]))
                found[net, case.attack] = {**case.record(), "pairs": pairs}
                self._write(options, found, versions)
        for worker in (ours, *others):
            worker.close()
        failed = [what for result in found.values() for what, holds in self.checks(result) if not holds]
        print("\n".join(failed) or "everything holds", file=sys.stderr)
        raise SystemExit(bool(failed))

    def page(self, report: dict) -> str:
        versions = ", ".join(f"{k} {v}" for k, v in sorted(report["versions"].items()) if k != "torch")
        text = [f"# {self.title}", "", f"{sentence(report['machine'])} {versions}."]
        text += [self.introduction, f"| {' | '.join(self.columns)} |", "|---" * len(self.columns) + "|"]
        text += [f"| {' | '.join(row)} |" for result in report["cases"] for row in self.rows(result)]
        text.append(self.holds)
        verdicts = [check for result in report["cases"] for check in self.checks(result)]
        text += [f"- {'holds' if holds else '**fails**'}: {what}" for what, holds in verdicts]
        return "\n".join(text) + "\n"

    def _chosen(self, options: argparse.Namespace) -> list:
        begins = tuple(options.attack or [""])
        return [case for case in self.cases if case.net in options.net and case.attack.startswith(begins)]

    def _kept(self, options: argparse.Namespace) -> tuple[dict[tuple[str, str], dict], dict[str, str]]:
        file = options.out / f"{self.name}.json"
        if not (options.keep and file.is_file()):
            return {}, {}
        earlier = json.loads(file.read_text())
        return {(each["net"], each["attack"]): each for each in earlier["cases"]}, earlier["versions"]

    def _write(self, options: argparse.Namespace, found: dict, versions: dict[str, str]) -> None:
        order = [found[case.net, case.attack] for case in self.cases if (case.net, case.attack) in found]
        report = {"machine": describe(options.threads), "versions": versions, "cases": order}
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{self.name}.json").write_text(json.dumps(report) + "\n")
        (options.out / f"{self.name}.md").write_text(self.page(report))


def moved(worker: Worker, **asked: object) -> tuple[dict, torch.Tensor | None]:
    """What a library answers, and the images that it made; None where it raised an error."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        answer = worker.ask(do="attack", **asked, seed=0, save=file.name)
        return answer, None if "error" in answer else torch.from_numpy(np.load(file.name))


def verdict(network, x, y, x_adv, norm: str) -> np.ndarray:
    """Distance of each image that was right before; inf where it was not changed, or has left the box."""
    with torch.no_grad():
        right, changed = network(x).argmax(1) == y, network(x_adv).argmax(1) != y
    inside = (x_adv.flatten(1) >= -ROOM).all(1) & (x_adv.flatten(1) <= 1 + ROOM).all(1)
    size = (x_adv.double() - x.double()).flatten(1).norm(ORDER[norm], dim=1)
    return torch.where(changed & inside, size, torch.inf)[right].numpy()


def faster(label: str, ours: dict, theirs: dict, least: float) -> tuple[str, bool]:
    """Whether the peer took at least so many times as long."""
    times = theirs["seconds"] / ours["seconds"]
    return f"{label}: {times:.3g} times as fast, {least} asked for", times >= least


def nearer(ours: dict, theirs: dict) -> str:
    """Our median over theirs."""
    return f"{ours['median'] / theirs['median']:.3f}" if np.isfinite(theirs["median"]) else "-"
