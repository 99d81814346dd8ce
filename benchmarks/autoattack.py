"""The suites `standard` and `autoattack` beside the original AutoAttack: robust accuracy, passes and seconds.

    python benchmarks/setup_peers.py autoattack                    # once
    python benchmarks/autoattack.py --data FOLDER [--count 300] [--threads 2] [--keep]
    python benchmarks/autoattack.py --data FOLDER --net sdp_cifar_a_adv --keep      # again this network
    python benchmarks/autoattack.py --data FOLDER --again standard                  # our suite alone, once it changed

Each network of the folder under its own threat at half, once and twice its eps, the shipped networks likewise, and
small networks whose gradients are masked (`masked.py`), which are trained first. Each library runs in a process and an
environment of its own (`worker.py`), one at a time; passes are counted by one wrapper around the network; the images
that come back are judged here by the plain network. Results are written after each row, and with --keep rows that are
there are not measured again, unless --net names them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from folder import images, network, reader
from machine import describe, sentence
from masked import KINDS, build, write
from peers import Judge, Worker
from peers_page import OURS
from script import parser

import assay

TIMES = (0.5, 1.0, 2.0)  # the eps of a network's card
SHIPPED = {"fashion-cnn": 0.1, "fashion-cnn-pgd": 0.1}
MASKED_EPS = 0.05
FORWARDS, BACKWARDS, SECONDS = 0.1, 0.2, 0.2  # of AutoAttack's
SUITES = ("standard", "autoattack")
FLAGS = ("saturated-loss", "zero-gradients", "softmax-outputs", "search-beats-gradients", "black-box-beats-white-box")


@dataclass(frozen=True, kw_only=True)
class Case:
    net: str  # in the table
    file: str  # for the reader
    data: str
    eps: float
    masked: bool = False

    @property
    def key(self) -> str:
        return f"{self.net} {self.eps:.5g}"


def cases(load, folder: Path) -> list[Case]:
    cards = json.loads((Path(load.HERE) / "nets" / "cards.json").read_text())
    found = [
        Case(net=net, file=net, data=card["data"], eps=card["eps"] * times)
        for net, card in cards.items()
        for times in TIMES
    ]
    for net, eps in SHIPPED.items():
        file = folder / f"{net}.pt"
        write(assay.load_model(net), images(load, "fashion", 1)[0], file)
        found += [Case(net=net, file=str(file), data="fashion", eps=eps * times) for times in TIMES]
    found += [
        Case(net=kind, file=str(folder / f"{kind}.pt"), data="mnist", eps=MASKED_EPS * times, masked=True)
        for kind in KINDS
        for times in TIMES[:2]
    ]
    return found


def run(worker: Worker, judge: Judge, case: Case, attack: str, seed: int, batch: int) -> dict:
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        answer = worker.ask(
            do="attack", attack=attack, norm="linf", eps=case.eps, seed=seed, batch=batch, save=file.name
        )
        if "error" in answer:
            raise SystemExit(f"{worker.library}, {case}: {answer['error']}")
        withstood, outside = judge.verdict(torch.from_numpy(np.load(file.name)), "linf", case.eps)
    count = len(judge.y)
    passes = {name: answer[name] / count for name in ("forwards", "backwards")}
    where = np.flatnonzero(withstood).tolist()
    return {"robust": len(where), "withstood": where, "outside": outside, "seconds": answer["seconds"], **passes}


def flags(load, case: Case, count: int) -> list[str]:
    """What an evaluation says about a network whose gradients are masked."""
    model, (x, y) = network(load, case.file), images(load, case.data, count)
    found = assay.evaluate(model, (x, y), threat=assay.Linf(case.eps), suite="standard", progress=False)
    return [flag.code for flag in found.flags if flag.code in FLAGS]


def checks(row: dict) -> list[tuple[str, bool]]:
    """What must hold of a row, and whether it does."""
    theirs, ours = row["runs"]["autoattack"], row["runs"]["standard"]
    same = row["runs"]["suite autoattack"]
    near = row["samples"] // 300
    apart = max(1, near) * (3 if row["masked"] else 1)  # without gradients, random search decides: starts tell
    found = [
        ("standard leaves no more samples than AutoAttack", ours["robust"] <= theirs["robust"] + near),
        ("the suite autoattack leaves as many", abs(same["robust"] - theirs["robust"]) <= apart),
        ("the suite autoattack makes no more forward passes", same["forwards"] <= theirs["forwards"]),
        ("the suite autoattack makes no more backward passes", same["backwards"] <= theirs["backwards"]),
        ("no image is outside its budget", not ours["outside"] + same["outside"]),
    ]
    if row["masked"]:
        return [*found, ("a flag fires", bool(row["flags"]))]
    limits = (("forwards", FORWARDS), ("backwards", BACKWARDS), ("seconds", SECONDS))
    return found + [(f"{name} at most {share:g} of AutoAttack's", ours[name] <= share * theirs[name])
                    for name, share in limits]  # fmt: skip


def line(row: dict) -> str:
    theirs, ours, same = (row["runs"][name] for name in ("autoattack", "standard", "suite autoattack"))
    share = {name: f"{ours[name] / theirs[name]:.3f}" for name in ("forwards", "backwards", "seconds")}
    bad = "; ".join(what for what, holds in checks(row) if not holds) or "-"
    cells = [row["net"], f"{row['eps']:.4g}", row["clean"], theirs["robust"], same["robust"], ours["robust"]]
    cells += [f"{run['forwards']:,.0f} + {run['backwards']:,.0f}" for run in (theirs, same, ours)]
    cells += [*share.values(), ", ".join(row["flags"]) or "-", bad]
    return f"| {' | '.join(map(str, cells))} |"


def page(report: dict) -> str:
    rows = list(report["rows"].values())
    failed = sum(not holds for row in rows for _, holds in checks(row))
    names = ["network", "eps", "right", "AutoAttack", "suite autoattack", "standard", "AutoAttack's passes"]
    names += ["suite autoattack's", "standard's", "forwards", "backwards", "seconds", "flags", "does not hold"]
    return "\n".join(
        [
            "# The suites standard and autoattack beside AutoAttack", "", sentence(report["machine"]), "",
            f"{len(rows)} rows, {failed} claims that do not hold. Linf; samples that are left, forward and backward "
            "passes a sample, and the share of `standard` in what AutoAttack spends.", "",
            f"| {' | '.join(names)} |", "|---" * len(names) + "|", *map(line, rows),
        ]
    ) + "\n"  # fmt: skip


def measured(case: Case, load, ours: Worker, theirs: Worker, options: argparse.Namespace) -> dict:
    for worker in (ours, theirs):
        worker.ask(do="load", net=case.file, data=case.data, count=options.count)
    judge = Judge(load, case.file, case.data, options.count)
    runs = {"autoattack": run(theirs, judge, case, "autoattack", options.seed, options.batch)}
    for suite in SUITES:
        name = suite if suite == "standard" else f"suite {suite}"
        runs[name] = run(ours, judge, case, f"suite-{suite}", options.seed, options.batch)
    told = flags(load, case, options.count) if case.masked else []
    counts = {"samples": len(judge.y), "clean": int(judge.clean.sum())}
    about = {name: value for name, value in asdict(case).items() if name != "file"}
    return {**about, **counts, "flags": told, "runs": runs}


def again(row: dict, case: Case, load, ours: Worker, options: argparse.Namespace) -> dict:
    """One suite of ours anew, beside what was measured of AutoAttack before."""
    ours.ask(do="load", net=case.file, data=case.data, count=row["samples"])
    judge = Judge(load, case.file, case.data, row["samples"])
    name = options.again if options.again == "standard" else f"suite {options.again}"
    row["runs"][name] = run(ours, judge, case, f"suite-{options.again}", options.seed, options.batch)
    return row


def main() -> None:
    words = parser(__doc__)
    words.add_argument("--count", type=int, default=300, help="images of each set")
    words.add_argument("--batch", type=int, default=300, help="of AutoAttack")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--net", help="only this network")
    words.add_argument("--again", choices=SUITES, help="measure this suite alone once more, in the rows that are there")
    words.add_argument("--keep", action="store_true", help="keep the rows that are there")
    words.add_argument("--networks", type=Path, default=Path(__file__).parent / ".networks", help="where files go")
    options = words.parse_args()
    torch.set_num_threads(options.threads)
    load = reader(options.data)
    chosen = [case for case in cases(load, options.networks) if options.net in (None, case.net)]
    if not chosen:
        words.error(f"there is no network {options.net!r}")
    earlier = options.out / "autoattack.json"
    report = {"machine": describe(options.threads), "rows": {}}
    if options.keep and earlier.is_file():
        report["rows"] = json.loads(earlier.read_text())["rows"]
    if options.again:
        report["rows"] = json.loads(earlier.read_text())["rows"]
        chosen = [case for case in chosen if case.key in report["rows"]]
    ours, theirs = (Worker(name, options.data, options.threads) for name in (OURS, "autoattack"))
    for case in chosen:
        if case.key in report["rows"] and options.net is None and not options.again:
            continue
        if case.masked:
            x, y = load.mnist("train")
            build(case.net, x[:20_000], y[:20_000], options.networks)
        if options.again:
            row = again(report["rows"][case.key], case, load, ours, options)
        else:
            row = report["rows"][case.key] = measured(case, load, ours, theirs, options)
        print(line(row), file=sys.stderr, flush=True)
        options.out.mkdir(parents=True, exist_ok=True)
        earlier.write_text(json.dumps(report, indent=1) + "\n")
        (options.out / "autoattack.md").write_text(page(report))
    for worker in (ours, theirs):
        worker.close()
    raise SystemExit(any(not holds for row in report["rows"].values() for _, holds in checks(row)))


if __name__ == "__main__":
    main()
