"""Attacks on colour images beyond the norms, one picture for each: clean, the move, adversarial, and the decisions.

A small network learns in seconds what parts of two photographs show, which scikit-learn brings along
(`pip install scikit-learn`), and is attacked on views of them that it has not seen:

    python examples/gallery.py runs/gallery
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_sample_image
from torch import Tensor, nn
from torch.nn import functional as F

import assay
from assay import Combined, Flow, Linf, Patch, Recolor, Rotation, ToneCurve, Translation
from assay.attacks import PGD, GridSearch, ReColorAdv, StAdv

PLACES = {  # photograph, and the row and column of its middle
    "temple": ("china.jpg", 200, 210),
    "lake": ("china.jpg", 200, 460),
    "trees": ("china.jpg", 330, 500),
    "flower": ("flower.jpg", 220, 310),
    "leaves": ("flower.jpg", 150, 130),
}
SIDE = 56

ATTACKS = {
    "flow": StAdv(threat=Flow(measure="roughness")),
    "rotation": GridSearch(threat=Rotation(45), points=46),
    "translation": GridSearch(threat=Translation(12), points=13),
    "recolor": ReColorAdv(threat=Recolor(0.06)),
    "tone-curve": PGD(threat=ToneCurve(0.2, points=8), steps=20),
    "patch": PGD(threat=Patch(0.06), steps=40, restarts=3),
    "combined": PGD(threat=Combined(Recolor(0.06, resolution=(4, 4, 4)), Flow(0.03), Linf(4 / 255)), steps=20),
}


def views(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Square views of the places, of sizes and at distances drawn at random: `(n, 3, SIDE, SIDE)`, labels `(n,)`."""
    photos = {name: torch.tensor(load_sample_image(name)).permute(2, 0, 1) / 255 for name, _, _ in PLACES.values()}
    draw = torch.Generator().manual_seed(seed)
    x, y = [], torch.arange(n) % len(PLACES)
    for label in y.tolist():
        name, row, column = list(PLACES.values())[label]
        size = int(torch.randint(140, 190, (), generator=draw))
        down, right = torch.randint(-30, 31, (2,), generator=draw).tolist()
        view = photos[name][None, :, row + down - size // 2 :, column + right - size // 2 :][..., :size, :size]
        x.append(F.interpolate(view, (SIDE, SIDE), mode="bilinear", antialias=True))
    return torch.cat(x).clamp(0, 1), y


def trained() -> nn.Module:
    """A network that tells the places apart."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 7 * 7, len(PLACES)),
    )  # fmt: skip
    x, y = views(512, seed=1)
    optimiser = torch.optim.Adam(net.parameters(), 2e-3)
    for step in range(60):
        rows = torch.arange(64) + 64 * (step % 8)
        optimiser.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        optimiser.step()
    return net.eval()


def main() -> None:
    """Train, attack, and write the pictures."""
    parser = argparse.ArgumentParser(description="Write a picture of each threat beyond the norms.")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--rows", type=int, default=3, help="images in a picture")
    given = parser.parse_args()
    folder = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    model = trained()
    x, y = views(20, seed=2)
    print(f"right on {int((model(x).argmax(dim=1) == y).sum())} of {len(y)} new views")
    for name, attack in ATTACKS.items():
        found = attack(model, x, y, keep_moves=True)
        if not bool((found.success & (found.distance > 0)).any()):
            print(f"{name}: {found}, no picture")
            continue
        path = folder / f"{name}.png"
        assay.picture(attack.threat, x, found, before=y, classes=list(PLACES), most=given.rows).save(
            path, optimize=True
        )
        print(f"{path}: {found}")


if __name__ == "__main__":
    main()
