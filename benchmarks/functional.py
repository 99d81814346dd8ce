"""Colour, flow and additive moves, alone and combined: how much accuracy is left.

    python benchmarks/functional.py --data FOLDER

Three networks: trained on clean images, against additive moves, against flows. Each threat is searched by PGD, by Adam
on the margin, and by ReColorAdv with the settings of its paper; what all three together leave is the worst case. Every
image is judged again by the plain network in this process.
Written: results/functional.json, results/functional.md.
"""

from __future__ import annotations

import sys
import time
from itertools import product

import script
import torch
from folder import images, reader
from machine import sentence

from assay.attacks import PGD, AdamSearch, ReColorAdv
from assay.threats import Combined, Flow, Linf, Recolor, Threat

NETS = ("recolor_normal", "recolor_delta", "recolor_stadv")
PARTS = {"colour": Recolor(0.06), "flow": Flow(0.05), "additive": Linf(8 / 255)}
SETS = [
    names
    for chosen in product((True, False), repeat=len(PARTS))
    if (names := tuple(name for name, used in zip(PARTS, chosen, strict=True) if used))
]
PAPER = "ReColorAdv, 100 steps"
HELD = ("recolor_delta", tuple(PARTS), 0.05)  # the network, the parts, and the most that the paper's attack may leave


def threat_of(names: tuple[str, ...]) -> Threat:
    return PARTS[names[0]] if len(names) == 1 else Combined(*(PARTS[name] for name in names))


def weights(names: tuple[str, ...], width: int) -> float | tuple[float, ...]:
    """The paper's weight of each part's roughness; its code counts flows in half sides, ours in pixels."""
    of_part = {"colour": 0.05, "flow": 0.05 * 2 / (width - 1), "additive": 0.0}
    found = tuple(of_part[name] for name in names)
    return found[0] if len(names) == 1 else found


def searches(names: tuple[str, ...], width: int) -> dict:
    threat = threat_of(names)
    return {
        "PGD, 40 steps": PGD(threat=threat),
        "Adam on the margin, 100 steps": AdamSearch(threat=threat, loss="margin"),
        PAPER: ReColorAdv(threat=threat, smoothness_weight=weights(names, width)),
    }


def attack_net(load, net: str, count: int, device: torch.device) -> list[dict]:
    """One row for each set of parts: accuracy after each search and after all."""
    model = load.net(net).to(device)
    x, y = (tensor.to(device) for tensor in images(load, "cifar10", count))
    rows = []
    for names in SETS:
        left, accuracy, seconds = torch.ones_like(y, dtype=torch.bool), {}, {}
        for name, attack in searches(names, x.shape[3]).items():
            start = time.perf_counter()
            result = attack(model, x, y)
            seconds[name] = time.perf_counter() - start
            with torch.no_grad():
                right = model(result.x_adv).argmax(1) == y
            if not torch.equal(right, ~result.success):
                raise SystemExit(f"{net}, {name}: {int((right == result.success).sum())} images judged otherwise")
            left &= right
            accuracy[name] = float(right.double().mean())
            print(f"{net} {'+'.join(names)} {name}: {accuracy[name]:.3f}, {seconds[name]:.0f} s", file=sys.stderr)
        with torch.no_grad():
            clean = float((model(x).argmax(1) == y).double().mean())
        rows.append({"net": net, "parts": names, "clean": clean, "accuracy": accuracy,
                     "worst": float(left.double().mean()), "seconds": seconds})  # fmt: skip
    return rows


def verdict(rows: list[dict]) -> dict:
    """Combinations that leave more than one of their own parts, and what the paper's attack leaves where it is held."""
    above = [
        {"net": whole["net"], "parts": whole["parts"], "over": part["parts"]}
        for whole, part in product(rows, rows)
        if whole["net"] == part["net"]
        and set(part["parts"]) < set(whole["parts"])
        and whole["worst"] > part["worst"] + 1e-9
    ]
    left = [row["accuracy"][PAPER] for row in rows if (row["net"], tuple(row["parts"])) == HELD[:2]]
    return {"above": above, "paper_leaves": left[0] if left else None, "allowed": HELD[2]}


def page(report: dict) -> str:
    v, rows = report["verdict"], report["rows"]
    text = ["# Colour, flow and additive moves", "", sentence(report["machine"]), ""]
    text += [
        f"{report['images']} byte-exact CIFAR-10 test images, {report['device']}. Colours move by at most 0.06 in each "
        "channel of scaled CIELUV, pixels by at most 0.05 of half a side, values by at most 8/255. Accuracy that is "
        "left, in percent.",
        "",
    ]
    text += [f"- {'**fails**' if v['above'] else 'holds'}: a combination leaves no more than any of its parts"]
    text += [f"  - {o['net']}: {' + '.join(o['parts'])} over {' + '.join(o['over'])}" for o in v["above"]]
    if v["paper_leaves"] is not None:
        holds = v["paper_leaves"] <= v["allowed"]
        text += [f"- {'holds' if holds else '**fails**'}: ReColorAdv on all three parts leaves "
                 f"{100 * v['paper_leaves']:.1f} % on {HELD[0]} (at most {100 * v['allowed']:.0f} %)"]  # fmt: skip
    text += ["", "## All searches together", ""]
    nets = list(dict.fromkeys(row["net"] for row in rows))
    clean = {row["net"]: row["clean"] for row in rows}
    text += [f"| moves | {' | '.join(nets)} |", "|---" * (len(nets) + 1) + "|"]
    text += [f"| none | {' | '.join(f'{100 * clean[net]:.1f}' for net in nets)} |"]
    for names in sorted(SETS, key=len):
        worst = {row["net"]: row["worst"] for row in rows if tuple(row["parts"]) == names}
        text += [f"| {' + '.join(names)} | {' | '.join(f'{100 * worst[net]:.1f}' for net in nets)} |"]
    text += ["", "## Each search", ""]
    tried = list(rows[0]["accuracy"])
    text += [f"| network | moves | {' | '.join(tried)} | seconds |", "|---" * (len(tried) + 3) + "|"]
    for row in rows:
        cells = [f"{100 * row['accuracy'][name]:.1f}" for name in tried]
        seconds = ", ".join(f"{row['seconds'][name]:.0f}" for name in tried)
        text += [f"| {row['net']} | {' + '.join(row['parts'])} | {' | '.join(cells)} | {seconds} |"]
    text += [
        "",
        "ReColorAdv here: Adam on the margin less 0.05 times the roughness of colours and flows, steps of 0.001.",
    ]
    return "\n".join(text) + "\n"


def main() -> None:
    parser = script.parser(__doc__)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--net", choices=NETS, action="append", help="only these networks; all by default")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    load, device = reader(options.data), torch.device(options.device)
    rows = [row for net in options.net or NETS for row in attack_net(load, net, options.images, device)]
    v = verdict(rows)
    report = {**script.where(options), "images": options.images, "rows": rows, "verdict": v}
    holds = not v["above"] and (v["paper_leaves"] is None or v["paper_leaves"] <= v["allowed"])
    script.end("functional", report, page(report), options, holds=holds)


if __name__ == "__main__":
    main()
