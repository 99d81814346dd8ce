"""One patch on a tenth of the image, at random places, scales and turns, on images that it was not fitted on.

    python benchmarks/patch.py --data FOLDER

The patch is fitted on images of the training set, which went through JPEG once, and measured on test images, most of
all byte-exact ones; `--augment` draws noise, light and JPEG while fitting. Fooled is an image whose
decision differs from that on the clean image, right or wrong as that was. A patch of random values is the baseline.
Written: results/patch.json, results/patch.md, results/patch.png, results/patch.safetensors.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys

import script
import torch
from folder import reader
from machine import sentence

import assay
from assay import grammar
from assay.universal import Pasting, patch_fitting

WANTED = 0.8
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
AUGMENT = "[]"  # [Contrast(0.2), Brightness(0.1), Noise(0.05), JPEG(70, 100)] fools 64 % and 75 % in as many steps
DRAWS = 10  # of places for each byte-exact image: one alone leaves the share uncertain by a point
AREAS = (0.025, 0.05, 0.075, 0.1, 0.125)


def fitted(net, data: assay.Data, arguments: argparse.Namespace):
    steps = patch_fitting(
        net,
        data,
        target=arguments.target,
        seed=arguments.seed,
        names=(arguments.net, "cifar10, training images"),
        area=0.1,
        shape=arguments.shape,
        rotation=arguments.rotation,
        scale=tuple(arguments.scale),
        steps=arguments.steps,
        finish=arguments.finish,
        batch=arguments.batch,
        lr=arguments.lr,
        augment=grammar.parse(arguments.augment, list),
    )
    for number, now in enumerate(steps, start=1):
        if number % 50 == 0:
            spent = now.universal.spent["seconds"]
            print(f"step {number}: {now.fooled:.1%} fooled of those seen last, {spent:.0f} s", file=sys.stderr)
    return now.universal.with_rates("fit", now.universal.measure(net, data))


def at_area(patch, area: float):
    """The same patch, always as large as this share of the image."""
    scale = (area / patch.pasting.area) ** 0.5
    return dataclasses.replace(patch, pasting=dataclasses.replace(patch.pasting, scale=(scale, scale)))


def measured(net, patch, sets: dict[str, assay.Data]) -> dict:
    random = patch.baseline()
    rows = {
        name: {"patch": patch.measure(net, data).as_dict(), "random": random.measure(net, data).as_dict()}
        for name, data in sets.items()
    }
    exact = sets["exact"]
    places = [patch.measure(net, exact, seed=seed).fooling.value for seed in range(DRAWS)]
    by_area = [
        {
            "area": area,
            "patch": at_area(patch, area).measure(net, exact).as_dict(),
            "random": at_area(random, area).measure(net, exact).as_dict(),
        }
        for area in AREAS
    ]
    return {"sets": rows, "places": places, "by_area": by_area}


def words(rate: dict) -> str:
    return f"{rate['value']:.1%} [{rate['low']:.1%}, {rate['high']:.1%}]"


def page(report: dict) -> str:
    pasting, spent, settings = Pasting(**report["pasting"]), report["spent"], report["settings"]
    found, random = (report["sets"]["exact"][name] for name in ("patch", "random"))
    names = {"exact": "test images, byte-exact", "test": "test images that went through JPEG"}
    places = report["places"]
    mean = sum(places) / len(places)
    held = "holds" if mean >= WANTED else "**fails**"
    low, high = pasting.scale
    aim = "without a target" if settings["target"] is None else f"towards {CLASSES[settings['target']]}"
    text = [
        "# The universal patch",
        "",
        sentence(report["machine"]),
        "",
        f"- {held}: one patch fools {mean:.1%} of {found['samples']} held-out images of `{report['net']}` (mean over "
        f"{len(places)} draws of places, {min(places):.1%} to {max(places):.1%}), at least {WANTED:.0%} wanted; a "
        f"patch of random values fools {words(random['fooling'])}",
        "",
        f"{pasting.shape.capitalize()} of {pasting.area:.0%} of the image at scale 1, placed anew in each image: "
        f"scale {low:g} to {high:g}, turned by up to {pasting.rotation:g} degrees, anywhere inside the image. Fitted "
        f"{aim} on {settings['samples']} training images by",
        "",
        f"    {settings['method']}",
        "",
        f"in {spent['backwards']} backward passes and {spent['seconds']:.0f} s. Rates below are those of one draw of "
        "places, with 95 % intervals.",
        "",
        "![the patch, and images without and with it](patch.png)",
        "",
        "| images | fooled by the patch | by random values | accuracy before | after |",
        "|---|---|---|---|---|",
    ]
    for name, row in report["sets"].items():
        after = row["patch"]
        cells = [f"{after['samples']} {names[name]}", words(after["fooling"]), words(row["random"]["fooling"])]
        cells += [f"{after['clean_accuracy']['value']:.1%}", f"{after['accuracy']['value']:.1%}"]
        text.append(f"| {' | '.join(cells)} |")
    text += ["", "The same patch, always of one size, on the byte-exact images:", ""]
    text += ["| share of the image | fooled by the patch | by random values |", "|---|---|---|"]
    for row in report["by_area"]:
        text.append(f"| {row['area']:.1%} | {words(row['patch']['fooling'])} | {words(row['random']['fooling'])} |")
    return "\n".join(text) + "\n"


def main() -> None:
    parser = script.parser(__doc__, threads=1)
    parser.add_argument("--net", default="recolor_normal")
    parser.add_argument("--fit", type=int, default=10_000, help="training images that are fitted on")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--finish", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=0.2)
    parser.add_argument("--shape", default="square")
    parser.add_argument("--rotation", type=float, default=22.5)
    parser.add_argument("--scale", type=float, nargs=2, default=(0.9, 1.1))
    parser.add_argument(
        "--augment", default=AUGMENT, help="what images of the fit go through with the patch; [] is none"
    )
    parser.add_argument("--target", type=int, default=None)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    load = reader(arguments.data)
    net = load.net(arguments.net).to(arguments.device)
    x, y = load.cifar10("train")
    sets = {name: assay.Data(*load.cifar10(name), name=name, classes=CLASSES) for name in ("exact", "test")}
    patch = fitted(net, assay.Data(x[: arguments.fit], y[: arguments.fit], name="cifar10"), arguments)
    report = {
        **script.where(arguments),
        "net": arguments.net,
        **{key: patch.as_dict()[key] for key in ("pasting", "settings", "spent")},
        "fit": patch.rates["fit"].as_dict(),
        **measured(net, patch, sets),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    patch.save(arguments.out / "patch.safetensors")
    patch.picture(arguments.out / "patch.png", net, sets["exact"])
    holds = sum(report["places"]) / DRAWS >= WANTED
    script.end("patch", report, page(report), arguments, holds=holds)


if __name__ == "__main__":
    main()
