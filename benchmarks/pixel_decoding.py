"""PixelDefend's decoding with everything kept that a new pixel does not change, beside whole evaluations.

    python benchmarks/pixel_decoding.py [--density fashion-pixelcnn] [--images 100] [--whole 2] [--eps 32]

Processor seconds of one thread for so many test images of Fashion-MNIST, 28x28: the decoding as it is, and as many
whole evaluations of the network as there are pixels, which is what it takes without keeping anything (one evaluation
of all images is timed, and counted 784 times). On the first `--whole` images the latter is run to its end. Claims:
the same images to the last bit, and at least 50 times faster. Written: results/pixel-decoding.json, results/pixel-
decoding.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from machine import describe, sentence
from script import RESULTS

import assay
from assay.defenses.generative import Density, as_levels
from assay.defenses.pixel_defend import decoded

LEAST = 50.0


class Whole(Density):
    """The same density, evaluated as a whole for each pixel."""

    def __init__(self, inner: Density) -> None:
        super().__init__()
        self.inner, self.channels = inner, inner.channels

    def numbers(self, levels: torch.Tensor) -> torch.Tensor:
        return self.inner.numbers(levels)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--density", default="fashion-pixelcnn")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--whole", type=int, default=2)
    parser.add_argument("--eps", type=int, default=32)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def main() -> None:
    args = options()
    torch.set_num_threads(1)
    density = assay.load_model(args.density).double()
    x = as_levels(assay.load_data("fashion-mnist", limit=args.images).batch(0, args.images)[0].double())
    with torch.no_grad():
        began = time.process_time()
        found = decoded(density, x, args.eps)
        kept = time.process_time() - began
        began = time.process_time()
        density.numbers(x)
        each = time.process_time() - began
        began = time.process_time()
        same = torch.equal(decoded(Whole(density), x[: args.whole], args.eps), found[: args.whole])
        whole = time.process_time() - began
    pixels = x.shape[2] * x.shape[3]
    faster = pixels * each / kept
    report = {
        "machine": describe(1), "density": args.density, "images": args.images, "eps": args.eps, "seconds": kept,
        "seconds_of_an_evaluation": each, "faster": faster, "run_whole": {"images": args.whole, "seconds": whole},
        "same": same, "holds": same and faster >= LEAST,
    }  # fmt: skip
    lines = [
        "# PixelDefend's decoding",
        "",
        f"{args.images} test images of Fashion-MNIST, {args.density}, eps {args.eps}, processor seconds of one thread.",
        sentence(report["machine"]),
        "",
        "| decoding | seconds | an image |",
        "|---|---|---|",
        f"| what a new pixel changes | {kept:.2f} | {kept / args.images:.4f} |",
        f"| a whole evaluation for each of {pixels} pixels | {pixels * each:.0f} | {pixels * each / args.images:.2f} |",
        f"| the same, run to its end, images: {args.whole} | {whole:.1f} | {whole / args.whole:.2f} |",
        "",
        f"{faster:.0f} times faster; whole evaluations find {'the same' if same else 'OTHER'} images, to the last bit.",
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "pixel-decoding.json").write_text(json.dumps(report, indent=1) + "\n")
    (args.out / "pixel-decoding.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    sys.exit(0 if report["holds"] else 1)


if __name__ == "__main__":
    main()
