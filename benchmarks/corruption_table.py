"""The shipped networks under corruptions: standard, PGD-trained, and one that is trained with noise here.

    python benchmarks/corruption_table.py --data FOLDER [--runs runs/corruption-table] [--epochs 20]

FOLDER holds Fashion-MNIST's files in `fashion-mnist/`. The third network is trained as the shipped standard one, with
noise on its inputs; a training that was interrupted goes on, and so do the runs. All 19 corruptions at five severities
on the shipped 2,000 test images, with the standard network as the baseline of corruption errors.

Written: results/corruption-table.json, results/corruption-table.md.
"""

from __future__ import annotations

from pathlib import Path

import torch
from machine import sentence
from script import end, parser, where

import assay

TRAINING = {  # as of the shipped standard network, see scripts/train_models.py
    "optimizer": "AdamW(lr=2e-3, weight_decay=0.01)",
    "schedule": "Cyclic(peak=0.2)",
    "average": "EMA(decay=0.998)",
    "augment": ["Flip()", "Crop(padding=1)", "AddNoise(std=0.3)"],
}
NETWORK = "FashionCNN(channels=32, hidden=128, classes=10)"
NAMES = {"standard": "fashion-cnn", "PGD-trained": "fashion-cnn-pgd", "trained with noise": None}


def page(report: dict) -> str:
    found = report["networks"]
    names = list(found)
    lines = ["# The shipped networks under corruptions", "", sentence(report["machine"]), ""]
    lines += [
        f"{report['samples']} test images of Fashion-MNIST, CIFAR-10-C's parameters, seed 0. Accuracy in percent, the "
        "mean over five severities; mCE of the standard network is 100.", "",
        f"| corruption | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}",
    ]  # fmt: skip
    lines += [_row("clean", [found[name]["clean"]["value"] for name in names])]
    for place, each in enumerate(found[names[0]]["corruptions"]):
        title = each["name"] + (" (extra)" if each["extra"] else "")
        lines.append(_row(title, [found[name]["corruptions"][place]["accuracy"] for name in names]))
    lines += [_row("**mean of the common ones**", [found[name]["mean_accuracy"] for name in names])]
    for title, part in (("mCE", "errors"), ("relative mCE", "relative")):
        means = [found[name]["against"][part]["mean"] for name in names]
        lines.append(f"| **{title}** | {' | '.join('-' if m is None else f'{100 * m:.1f}' for m in means)} |")
    return "\n".join([*lines, ""])


def _row(name: str, shares: list[float]) -> str:
    return f"| {name} | {' | '.join(f'{100 * share:.1f}' for share in shares)} |"


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--runs", type=Path, default=Path("runs/corruption-table"))
    arguments.add_argument("--epochs", type=int, default=20)
    arguments.add_argument("--limit", type=int)
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    noisy = options.runs / "noise"
    data = assay.load_data(f"idx:{Path(options.data) / 'fashion-mnist'}")
    assay.train(
        NETWORK, data, recipe="standard", epochs=options.epochs, out=noisy, resume=True, validation=0, keep="last",
        device=options.device, **TRAINING,
    )  # fmt: skip
    images = assay.load_data("fashion-mnist", limit=options.limit)
    report = where(options) | {"samples": len(images), "networks": {}}
    for title, name in NAMES.items():
        found = assay.corrupt(
            name or str(noisy), images, corruptions="all", baseline=str(options.runs / "standard") if name is None or
            title != "standard" else None, out=options.runs / title.replace(" ", "-"), resume=True,
            device=options.device,
        )  # fmt: skip
        if title == "standard":  # its own measure
            found = assay.corrupt(
                name, images, corruptions="all", baseline=str(found.path), out=found.path, resume=True,
                device=options.device,
            )  # fmt: skip
        report["networks"][title] = found.results
    means = [network["mean_accuracy"] for network in report["networks"].values()]
    end("corruption-table", report, page(report), options, holds=means[2] > means[0])


if __name__ == "__main__":
    main()
