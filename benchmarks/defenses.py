"""Defenses at test time, as claimed and as they stand: attacks that do not know of them, and the same that do.

    python benchmarks/defenses.py [--train idx:FOLDER] [--runs FOLDER] [--limit 200] [--epochs 15] [--only NAME ...]
        [--held-out "idx:FOLDER?part=test"] [--keep]

On Fashion-MNIST with the shipped standard network: clean accuracy, PGD (Linf 0.1, 40 steps, cross-entropy, as in the
papers) and C&W (L2 1.5), each oblivious and adaptive, and seconds an image of all four. With `--train` three networks
are trained behind their defense (random self-ensemble, thermometer code, distillation at T = 100) and kept in `--runs`;
without it their rows are left out. Detectors (MagNet, the density) get their thresholds from the images of
`--held-out` after the first 2,000, which are those that ship and are evaluated; each statistic drops 0.5 % of them.
Without it their rows are left out. Claims: every defense leaves more to the oblivious attacks than no defense does, for
one of the two at least, and less to the adaptive ones than it claimed. Results are written after each row; with
`--keep` rows that are there are not measured again, unless `--only` names them.
Written: results/defenses.json, results/defenses.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from machine import describe, sentence
from script import RESULTS

import assay

NETWORK = "SmallCNN(channels=1, size=28, mean=0.286, std=0.353)"
PGD = ("Linf(0.1)", "PGD(steps=40, loss='ce')")
CW = ("L2(1.5)", "CarliniWagner(steps=30, search_steps=5, lr=0.1, initial_c=0.1)")
PLAIN = {  # around the shipped network
    "random resize and pad": "RandomResizePad()",
    "the same, larger": "RandomResizePad(lowest=22, final=31)",
    "bit depth 3": "BitDepth(bits=3)",
    "bit depth 1": "BitDepth(bits=1)",
    "JPEG 75": "JPEGDefense(quality=75)",
    "JPEG 20, by Pillow": "JPEGDefense(quality=20, codec='pillow')",
    "total variation": "TotalVariation()",
    "median 3x3": "MedianFilter(size=3)",
    "smoothing, sigma 0.25": "Averaged(InputNoise(0.25), passes=10)",
    "noise layers": "Averaged(NoiseLayers(), passes=10)",
    "Defense-GAN": "DefenseGAN()",
    "APE-GAN": "APEGANDefense()",
    "PixelDefend, eps 16": "PixelDefend(eps=16)",
    "PixelDefend, eps 32": "PixelDefend(eps=32)",
}
CALIBRATED = {  # around the shipped network, with thresholds
    "MagNet": "MagNet()",
    "MagNet, reconstruction alone": "MagNet(temperatures=())",
    "PixelDefend's detector": "DensityDetector()",
}
SKIP, DROP = 2000, 0.005
DRAWS = {"Defense-GAN": "EOT(draws=1, confirm=4)"}  # the best of ten restarts is nearly the same in each draw
TRAINED = {  # the MODEL that is trained, its recipe, the defense, and what oblivious attacks attack
    "random self-ensemble": (
        f"Defended('{NETWORK}', NoiseLayers())",
        "standard",
        "Averaged(NoiseLayers(), passes=10)",
        "",
    ),
    "thermometer code": (
        f"Defended('{NETWORK.replace('channels=1', 'channels=16')}', Thermometer(levels=16))",
        "standard",
        "Thermometer(levels=16)",
        "fashion-cnn",
    ),
    "distillation, T = 100": (NETWORK, "Distillation(temperature=100)", "Distilled(temperature=100.0)", ""),
}  # fmt: skip


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--train", help="training data, as assay train reads it")
    parser.add_argument("--held-out", help="images that nobody was trained on, as assay calibrate reads them")
    parser.add_argument("--runs", type=Path, default=Path("runs/defenses"))
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--train-limit", type=int)
    parser.add_argument("--only", nargs="*", help="rows by name")
    parser.add_argument("--keep", action="store_true", help="keep the rows that are there")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def calibrated(name: str, args: argparse.Namespace) -> str:
    """The detector with thresholds, as text."""
    return repr(assay.calibrate("fashion-cnn", args.held_out, CALIBRATED[name], drop=DROP, skip=SKIP))


def network_of(name: str, args: argparse.Namespace) -> str | torch.nn.Module:
    """The network behind a defense that was trained with it, without the defense."""
    model, recipe, *_ = TRAINED[name]
    folder = args.runs / name.replace(" ", "-").replace(",", "").replace("=", "")
    assay.train(
        model, args.train, recipe=recipe, epochs=args.epochs, limit=args.train_limit, out=folder, resume=True
    )  # fmt: skip
    found = assay.load_model(str(folder))
    return found.model if isinstance(found, assay.models.Defended) else found


def suite_of(key: str, attack: str, draws: str | None) -> str:
    """The path of a suite of this one attack, with so many draws a question where the defense is random."""
    path = Path(tempfile.mkdtemp()) / "suite.toml"
    eot = "" if draws is None else f'eot = "{draws}"\n'
    own = attack.replace("(", "(threat=THREAT, ", 1)
    path.write_text(f'name = "{key}"\nversion = 1\ndescription = "{key}"\n[[stage]]\nname = "{key}"\n'
                    f'attack = "{own}"\n{eot}')  # fmt: skip
    return str(path)


def shown(
    network: str | torch.nn.Module,
    defense: str | None,
    surrogate: str,
    args: argparse.Namespace,
    draws: str | None = None,
) -> dict:
    """The numbers of a row."""
    row: dict = {"defense": defense}
    began = time.perf_counter()
    for key, (threat, attack) in (("pgd", PGD), ("cw", CW)):
        suite = suite_of(key, attack, draws)
        found = assay.evaluate(
            network, "fashion-mnist", threat=threat, suite=suite, defense=defense, surrogate=surrogate or None,
            limit=args.limit, progress=False,
        )  # fmt: skip
        row["clean"] = found.clean_accuracy
        told = found.results.get("defense")
        row[f"{key}_oblivious"] = told["claimed"]["value"] if told else found.robust_accuracy
        row[f"{key}_adaptive"] = told["stands"]["value"] if told else found.robust_accuracy
        if told and "rejected_lost" in told:
            row[f"{key}_lost"], row["rejected"] = told["rejected_lost"]["value"], told["clean_rejected"]
        row[f"{key}_stages"] = found.results["stages"]
    row["seconds"] = (time.perf_counter() - began) / args.limit
    return row


def page(rows: dict[str, dict], args: argparse.Namespace) -> str:
    lines = [
        "# Defenses at test time, as claimed and as they stand",
        "",
        f"{args.limit} test images of Fashion-MNIST. PGD: {PGD[1]} in {PGD[0]}; C&W: {CW[1]} in {CW[0]}. Oblivious: "
        "the attack searches on the bare network, its last move is tried on the defended one. Adaptive: on what these "
        "left, through the defense (BPDA; 20 draws where it is random, and 20 others to confirm; of "
        "Defense-GAN 1 and 4).",
        sentence(describe(args.threads)),
        "",
        "| defense | clean | PGD oblivious | PGD adaptive | C&W oblivious | C&W adaptive | seconds an image |",
        "|---|---|---|---|---|---|---|",
    ]
    keys = ("clean", "pgd_oblivious", "pgd_adaptive", "cw_oblivious", "cw_adaptive")
    for name, row in rows.items():
        shares = " | ".join(f"{row[key]:.1%}" for key in keys)
        lines.append(f"| {name} | {shares} | {row['seconds']:.2f} |")
    lost = [
        f"{name}: {row['pgd_lost']:.1%} and {row['cw_lost']:.1%}, {row['rejected']} of the clean images rejected"
        for name, row in rows.items()
        if "pgd_lost" in row
    ]
    if lost:
        lines += ["", "Where rejected inputs count as lost, PGD and C&W leave: " + "; ".join(lost) + "."]
    return "\n".join(lines) + "\n"


def claims(rows: dict[str, dict]) -> bool:
    none = rows["none"]
    held = True
    for name, row in rows.items():
        if name == "none":
            continue
        stops = any(row[f"{key}_oblivious"] > none[f"{key}_oblivious"] for key in ("pgd", "cw"))
        falls = any(row[f"{key}_adaptive"] < row[f"{key}_oblivious"] for key in ("pgd", "cw"))
        held &= stops and falls
        print(f"{name}: stops oblivious attacks: {stops}; adaptive ones get further: {falls}", file=sys.stderr)
    return held


def measured(name: str, plain: dict[str, str], args: argparse.Namespace) -> dict:
    if name == "none":
        return shown("fashion-cnn", None, "", args)
    if name in plain:
        return shown("fashion-cnn", plain[name], "", args, DRAWS.get(name))
    return shown(network_of(name, args), TRAINED[name][2], TRAINED[name][3], args)


def main() -> None:
    args = options()
    torch.set_num_threads(args.threads)
    earlier = args.out / "defenses.json"
    rows = json.loads(earlier.read_text())["rows"] if args.keep and earlier.is_file() else {}
    due = [
        name
        for name in ["none", *PLAIN, *(CALIBRATED if args.held_out else ()), *(TRAINED if args.train else ())]
        if (name in args.only if args.only and name != "none" else name not in rows)
    ]
    plain = PLAIN | {name: calibrated(name, args) for name in CALIBRATED if name in due}
    args.out.mkdir(parents=True, exist_ok=True)
    for name in due:
        rows[name] = measured(name, plain, args)
        print(name, {k: v for k, v in rows[name].items() if isinstance(v, float)}, file=sys.stderr)
        report = {"machine": describe(args.threads), "limit": args.limit, "rows": rows}
        earlier.write_text(json.dumps(report, indent=1) + "\n")
        (args.out / "defenses.md").write_text(page(rows, args))
    raise SystemExit(not claims(rows))


if __name__ == "__main__":
    main()
