"""Our attacks on verification problems whose answer is proved.

    python benchmarks/truth.py --data FOLDER

'unsat': two sound verifiers proved that no perturbation inside the ball changes the answer: a success that an attack
reports there is a bug. 'sat': an adversarial example is known to exist: PGD with restarts must find at least 90 %, and
the suite `standard` no fewer than the suite `autoattack`. Budgets are given to attacks per sample, as one tensor for
each network, to suites for those of equal budget and target. Needs the package onnx (the networks' reader uses it).
Written: results/truth.json, results/truth.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from folder import reader
from machine import describe, sentence

import assay
from assay import Linf, Targeted, Untargeted
from assay.attacks import APGD, BIM, FGSM, MIFGSM, PGD, MultiTargeted, Square
from assay.evaluation.shards import ADV

HERE = Path(__file__).resolve().parent
FAMILIES = ("2021_cifar10_resnet", "2021_eran", "2021_marabou-cifar10", "2021_oval21", "2021_verivital")
WANTED = 0.9
SUITES = {"unsat": ("standard",), "sat": ("standard", "autoattack")}


def searches(threat, targeted: bool) -> dict:
    """The attacks that must stay silent on 'unsat'; on 'sat' the first is the one that is asked of."""
    found = {
        "PGD, 100 steps, 20 restarts": PGD(threat=threat, steps=100, restarts=20),
        "APGD-CE, 100 steps, 5 restarts": APGD(threat=threat, steps=100, restarts=5),
        "APGD-margin, 100 steps, 5 restarts": APGD(threat=threat, steps=100, loss="margin", restarts=5),
        "APGD-DLR, 100 steps, 5 restarts": APGD(threat=threat, steps=100, loss="dlr", restarts=5),
        "FGSM": FGSM(threat=threat),
        "BIM": BIM(threat=threat),
        "MI-FGSM": MIFGSM(threat=threat),
        "Square, 500 queries": Square(threat=threat, queries=500),
    }
    if not targeted:
        found["MultiTargeted APGD-DLR, 9 targets"] = MultiTargeted(attack=APGD(threat=threat, loss="dlr"), targets=9)
    return found


def groups(load, answer: str):
    """Instances of one network, goal and answer together: they make one batch with a budget for each sample."""
    for family in FAMILIES:

        def key(t):
            return t.net_file, t.y is None

        instances = sorted(load.truths(family, (answer,)), key=key)
        for (file, targeted), group in itertools.groupby(instances, key=key):
            yield family, file.removeprefix(family + "_").removesuffix(".onnx.gz"), targeted, list(group)


def evaluated(suite: str, group: list, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which problems an evaluation solves, and its inputs: one run for each budget and target.

    A targeted problem names no label: the model's answer is one.
    """
    model, won, x_adv = group[0].net, torch.zeros(len(group), dtype=torch.bool), x.clone()
    with torch.no_grad():
        answers = model(x).argmax(dim=1)
    y = torch.stack([answers[i] if t.y is None else t.y[0] for i, t in enumerate(group)])
    for eps, target in {(t.eps, t.target) for t in group}:
        rows = torch.tensor([i for i, t in enumerate(group) if (t.eps, t.target) == (eps, target)])
        with tempfile.TemporaryDirectory() as folder:
            found = assay.evaluate(
                model, (x[rows], y[rows]), threat=Linf(eps), suite=suite, targeted=target, out=Path(folder) / "run",
                save_adv=True, progress=False,
            )  # fmt: skip
            won[rows] = ~found.store.merge().robust
            x_adv[rows] = torch.cat(
                [found.store.read_shard(ADV, start).columns["x_adv"] for start, _ in found.store.chunks]
            )
    return won, x_adv


def attack_group(load, family: str, net: str, targeted: bool, group: list) -> dict:
    """Each attack's successes, as the attack reports them and as the problem's own checker replays them."""
    from truth import success  # the reader's own module: it is on the path once `truths` has run

    if not all(t.ball for t in group):
        raise SystemExit(f"{family}: a box that is no ball needs an attack of its own")
    x = torch.cat([t.x for t in group])
    eps = torch.tensor([t.eps for t in group])
    model = group[0].net
    if targeted:
        goal = Targeted(torch.tensor([t.target for t in group]))
    else:
        goal = Untargeted(torch.cat([t.y for t in group]))

    def alone(attack):
        result = attack(model, x, goal)
        return result.success, result.x_adv

    runs = {name: partial(alone, attack) for name, attack in searches(Linf(eps), targeted).items()}
    runs |= {f"suite {name}": partial(evaluated, name, group, x) for name in SUITES[group[0].answer]}
    reported, replayed, seconds = {}, {}, {}
    for name, search in runs.items():
        start = time.perf_counter()
        won, x_adv = search()
        seconds[name] = time.perf_counter() - start
        reported[name] = won.nonzero().flatten().tolist()
        replayed[name] = [i for i in reported[name] if success(group[i], x_adv[i : i + 1]).item()]
        print(f"{family} {net} {len(group)}: {name}: {len(reported[name])}, {seconds[name]:.1f} s", file=sys.stderr)
    return {
        "family": family,
        "net": net,
        "targeted": targeted,
        "instances": [{"property": t.prop, "eps": t.eps} for t in group],
        "reported": reported,
        "replayed": replayed,
        "seconds": seconds,
    }


def table(groups: list[dict], field: str) -> list[str]:
    names = list(dict.fromkeys(name for group in groups for name in group[field]))
    lines = [f"| network | problems | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for group in groups:
        counts = [str(len(group[field][name])) if name in group[field] else "-" for name in names]
        goal = " (targeted)" if group["targeted"] else ""
        lines.append(f"| {group['family']} {group['net']}{goal} | {len(group['instances'])} | {' | '.join(counts)} |")
    totals = [str(sum(len(group[field].get(name, ())) for group in groups)) for name in names]
    lines.append(f"| **all** | **{sum(len(group['instances']) for group in groups)}** | {' | '.join(totals)} |")
    return lines


def verdict(report: dict) -> dict:
    main = next(iter(report["sat"][0]["replayed"]))
    sat = sum(len(group["instances"]) for group in report["sat"])
    missed = [
        {"network": f"{group['family']} {group['net']}", **group["instances"][i],
         "found_by": [name for name, wins in group["replayed"].items() if i in wins]}
        for group in report["sat"]
        for i in range(len(group["instances"]))
        if i not in group["replayed"][main]
    ]  # fmt: skip
    return {
        "attack": main,
        "unsat": sum(len(group["instances"]) for group in report["unsat"]),
        "false_successes": sum(len(wins) for group in report["unsat"] for wins in group["reported"].values()),
        "sat": sat,
        "found": sat - len(missed),
        "missed": missed,
        "suites": {
            name: sum(len(group["replayed"][f"suite {name}"]) for group in report["sat"]) for name in SUITES["sat"]
        },
        "not_replayed": sum(
            len(group["reported"][name]) - len(group["replayed"][name])
            for group in report["sat"]
            for name in group["reported"]
        ),
    }


def suites_hold(verdict: dict) -> bool:
    return verdict["suites"]["standard"] >= verdict["suites"]["autoattack"]


def page(report: dict) -> str:
    v = report["verdict"]
    share = v["found"] / v["sat"]
    text = ["# Problems with a proved answer", "", sentence(report["machine"]), ""]
    text += [f"- {'holds' if not v['false_successes'] else '**fails**'}: {v['false_successes']} successes reported on "
             f"{v['unsat']} problems that are proved robust",
             f"- {'holds' if share >= WANTED else '**fails**'}: {v['attack']} finds {v['found']} of {v['sat']} "
             f"({share:.0%}) where an adversarial example exists",
             f"- {'holds' if suites_hold(v) else '**fails**'}: the suite standard finds {v['suites']['standard']}, "
             f"autoattack {v['suites']['autoattack']}",
             f"- {'holds' if not v['not_replayed'] else '**fails**'}: {v['not_replayed']} reported successes are not "
             "confirmed by the problems' own checker"]  # fmt: skip
    text += ["", "## Proved robust: successes reported (each would be a bug)", "", *table(report["unsat"], "reported")]
    text += ["", "## An adversarial example exists: found, and confirmed by the checker", ""]
    text += table(report["sat"], "replayed")
    text += ["", f"Missed by {v['attack']}:", ""]
    for miss in v["missed"]:
        others = ", ".join(miss["found_by"]) or "none of the attacks above"
        text.append(f"- {miss['network']}, {miss['property']}, eps {miss['eps']:.4g}; found by {others}")
    text += [] if v["missed"] else ["- none"]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="folder with load.py and its truth problems")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    load = reader(options.data)
    report = {"machine": describe(options.threads)}
    for answer in ("unsat", "sat"):
        report[answer] = [attack_group(load, *group) for group in groups(load, answer)]
    report["verdict"] = verdict(report)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "truth.json").write_text(json.dumps(report) + "\n")
    (options.out / "truth.md").write_text(page(report))
    print(json.dumps(report["verdict"], indent=1), file=sys.stderr)
    bad = report["verdict"]
    wrong = bad["false_successes"] or bad["not_replayed"] or bad["found"] < WANTED * bad["sat"] or not suites_hold(bad)
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
