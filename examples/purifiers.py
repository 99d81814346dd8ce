"""Draw what purifiers make of images: clean and adversarial ones, and each of both after Defense-GAN and APE-GAN.

    python examples/purifiers.py [--out purifiers.png] [--images 10] [--restarts 10] [--steps 200]

A column for each image of Fashion-MNIST. Rows: clean, moved by PGD within Linf 0.1 on `fashion-cnn`, and then for each
purifier what the network gets to see of both. A line below an image marks a wrong decision of the network on it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import assay
from assay.defenses import APEGANDefense, DefenseGAN

SCALE, GAP = 2, 4


def rows(count: int, restarts: int, steps: int) -> tuple[list[Tensor], Tensor]:
    """What is drawn, row by row, and the labels."""
    x, y, _ = assay.load_data("fashion-mnist").batch(0, count)
    moved = assay.attacks.PGD(threat=assay.Linf(0.1), steps=40).perturb(assay.load_model("fashion-cnn"), x, y)
    torch.manual_seed(0)
    purifiers = DefenseGAN(restarts=restarts, steps=steps), APEGANDefense()
    with torch.no_grad():
        return [x, moved, *(each.transform(shown) for each in purifiers for shown in (x, moved))], y


def sheet(shown: list[Tensor], y: Tensor) -> Image.Image:
    """All rows below each other."""
    network = assay.load_model("fashion-cnn")
    side = shown[0].shape[-1] * SCALE
    page = np.full((len(shown) * (side + 2 * GAP), len(y) * (side + GAP) + GAP), 255, dtype=np.uint8)
    for row, images in enumerate(shown):
        with torch.no_grad():
            wrong = network(images).argmax(dim=1) != y
        for column, image in enumerate(images):
            top, left = row * (side + 2 * GAP) + GAP, column * (side + GAP) + GAP
            pixels = (image[0] * 255).round().byte().numpy().repeat(SCALE, axis=0).repeat(SCALE, axis=1)
            page[top : top + side, left : left + side] = pixels
            if wrong[column]:
                page[top + side + 1 : top + side + GAP - 1, left : left + side] = 0
    return Image.fromarray(page)


def main() -> None:
    """Draw the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("purifiers.png"))
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200)
    args = parser.parse_args()
    sheet(*rows(args.images, args.restarts, args.steps)).save(args.out)
    print(args.out)


if __name__ == "__main__":
    main()
