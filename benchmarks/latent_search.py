"""Defense-GAN's search, all inputs and restarts side by side, beside loops that go through them one by one.

    python benchmarks/latent_search.py [--generator fashion-wgan-gp] [--images 1000] [--looped 2]

Processor seconds of one thread for R = 10 restarts of L = 200 steps on so many test images of Fashion-MNIST, by
`assay.defenses.latent.search`; and an image's seconds by three loops, on the first `--looped` images: a plain one (one
descent of one image after the other, torch's SGD and autograd through the whole generator), and the search itself for
one descent at a time and for one image at a time. Claim: at most a twentieth of the plain loop's time an image, and the
same reconstructions. Written: results/latent-search.json, results/latent-search.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import describe, sentence
from script import RESULTS
from torch import Tensor, nn

import assay
from assay.defenses.latent import draw, search
from assay.rng import Keyed

RESTARTS, STEPS, LR, MOMENTUM = 10, 200, 10.0, 0.7
MOST = 1 / 20


def plain(generator: nn.Module, x: Tensor, starts: Tensor) -> Tensor:
    """What is left of each image, by the shortest loop that follows the paper."""
    best = []
    for image, own in zip(x, starts, strict=True):
        left = []
        for start in own:
            z = start[None].clone().requires_grad_()
            optimizer = torch.optim.SGD([z], lr=LR, momentum=MOMENTUM)
            for step in range(STEPS):
                optimizer.param_groups[0]["lr"] = LR if step < 0.8 * STEPS else LR / 10
                optimizer.zero_grad()
                (generator(z)[0] - image).square().mean().backward()
                optimizer.step()
            with torch.no_grad():
                left.append((generator(z)[0] - image).square().mean())
        best.append(torch.stack(left).min())
    return torch.stack(best)


def descents(generator: nn.Module, x: Tensor, starts: Tensor) -> Tensor:
    """The same by the search, one descent at a time."""
    each = [
        torch.cat([search(generator, image[None], start[None, None], steps=STEPS)[1] for start in own]).min()
        for image, own in zip(x, starts, strict=True)
    ]
    return torch.stack(each)


def images(generator: nn.Module, x: Tensor, starts: Tensor) -> Tensor:
    """The same by the search, one image at a time."""
    each = zip(x, starts, strict=True)
    return torch.cat([search(generator, image[None], own[None], steps=STEPS)[1] for image, own in each])


def batched(generator: nn.Module, x: Tensor, starts: Tensor) -> Tensor:
    """All side by side."""
    return search(generator, x, starts, steps=STEPS)[1]


def timed(way: Callable[..., Tensor], generator: nn.Module, x: Tensor, starts: Tensor) -> tuple[float, Tensor]:
    """Processor seconds an image, and what is left."""
    began = time.process_time()
    left = way(generator, x, starts)
    return (time.process_time() - began) / len(x), left


def page(row: dict) -> str:
    names = {"plain": "plain loop", "descents": "the search, one descent at a time", "images": "one image at a time"}
    lines = [
        "# Defense-GAN's search",
        "",
        f"{row['images']} test images, R = {RESTARTS}, L = {STEPS}, generator {row['generator']}; the loops on "
        f"{row['looped']} of them. Processor seconds. {sentence(row['machine'])}",
        "",
        "| way | milliseconds an image | times the search's |",
        "|---|---|---|",
    ]
    for key, name in {**names, "batched": "all images and restarts side by side"}.items():
        seconds = row["seconds"][key]
        lines.append(f"| {name} | {1000 * seconds:.1f} | {seconds / row['seconds']['batched']:.1f} |")
    lines += ["", f"Largest difference of what is left to the plain loop's: {row['apart']:.1e}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--generator", default="fashion-wgan-gp")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--looped", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    generator = assay.load_model(args.generator).requires_grad_(False)
    x, _, index = assay.load_data("fashion-mnist").batch(0, args.images)
    starts = draw(Keyed(0, index), RESTARTS, generator.latent)
    batched(generator, x[:8], starts[:8])  # warm
    seconds, left = {}, {}
    for way in (batched, images, descents, plain):
        some = args.images if way is batched else args.looped
        seconds[way.__name__], left[way.__name__] = timed(way, generator, x[:some], starts[:some])
    apart = float((left["batched"][: args.looped] - left["plain"]).abs().max())
    holds = seconds["batched"] <= MOST * seconds["plain"] and apart < 1e-4
    row = {"machine": describe(1), "generator": args.generator, "images": len(x), "looped": args.looped,
           "seconds": seconds, "apart": apart, "left": float(left["batched"].mean()), "holds": holds}  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "latent-search.json").write_text(json.dumps(row, indent=1) + "\n")
    (args.out / "latent-search.md").write_text(page(row))
    print(page(row), file=sys.stderr)
    raise SystemExit(not holds)


if __name__ == "__main__":
    main()
