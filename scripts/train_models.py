"""Train the networks that ship with the package and write their weights and cards.

    python scripts/train_models.py --data FOLDER            all three
    python scripts/train_models.py --data FOLDER --only fashion-cnn-pgd --epochs 2
    python scripts/train_models.py --data FOLDER --measure  only measure and rewrite the cards

FOLDER holds the four Fashion-MNIST idx files (``train-images-idx3-ubyte.gz`` ...). Weights are written after
every epoch, so that a run which is interrupted leaves usable ones. The same seed and thread count give the
same weights.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pack_data import SHIPPED, fashion
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import assay
from assay.models import zoo
from assay.models.networks import DigitsMLP, FashionCNN
from assay.rng import derive


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one network is trained: AdamW under a one-cycle learning rate, weights averaged exponentially."""

    epochs: int
    batch: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.2
    average: float = 0.998
    shift: int = 0
    flip: bool = False
    eps: float | None = None
    steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A shipped model: its network, data and recipe."""

    network: str
    settings: dict[str, int]
    data: str
    recipe: Recipe


PLANS = {
    "fashion-cnn": Plan(
        network="FashionCNN",
        settings={"channels": 32, "hidden": 128, "classes": 10},
        data="fashion-mnist",
        recipe=Recipe(epochs=20, shift=1, flip=True),
    ),
    "fashion-cnn-pgd": Plan(
        network="FashionCNN",
        settings={"channels": 32, "hidden": 128, "classes": 10},
        data="fashion-mnist",
        recipe=Recipe(epochs=12, flip=True, eps=0.1, steps=7),
    ),
    "digits-mlp": Plan(
        network="DigitsMLP",
        settings={"hidden": 20},
        data="digits",
        recipe=Recipe(epochs=60, batch=32, lr=1e-2, average=0.9),
    ),
}


def build(plan: Plan) -> nn.Module:
    """The untrained network of a plan."""
    network = {"FashionCNN": FashionCNN, "DigitsMLP": DigitsMLP}[plan.network]
    return network(**plan.settings)


def tensors(images: Any, labels: Any, scale: float = 255.0) -> tuple[Tensor, Tensor]:
    """Images (n, 1, H, W) in [0, 1] and int64 labels."""
    return torch.from_numpy(images.astype(np.float32))[:, None] / scale, torch.from_numpy(labels.astype(np.int64))


def read(plan: Plan, folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Training set, full test set and shipped test images; digits keep every fifth image for the test."""
    if plan.data == "digits":
        with np.load(SHIPPED / "digits.npz") as file:
            x, y = tensors(file["x"], file["y"], scale=16.0)
        held_out = torch.arange(len(x)) % 5 == 0
        return {"train": (x[~held_out], y[~held_out]), "test": (x[held_out], y[held_out]), "shipped": (x, y)}
    test = tensors(*fashion(folder, "t10k"))
    return {
        "train": tensors(*fashion(folder, "train")),
        "test": test,
        "shipped": (test[0][:2000], test[1][:2000]),
    }


def batches(x: Tensor, y: Tensor, recipe: Recipe, draw: torch.Generator) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """One shuffled, augmented epoch of (x, y, position); the last, incomplete batch is left out."""
    order = torch.randperm(len(x), generator=draw)
    for rows in order.split(recipe.batch):
        if len(rows) < recipe.batch:
            return
        batch = x[rows]
        if recipe.flip:
            mirror = torch.rand(len(rows), generator=draw) < 0.5
            batch[mirror] = batch[mirror].flip(-1)
        if recipe.shift:
            batch = shifted(batch, recipe.shift, draw)
        yield batch.contiguous(memory_format=torch.channels_last), y[rows], rows


def shifted(batch: Tensor, most: int, draw: torch.Generator) -> Tensor:
    """Each image moved by up to ``most`` pixels, zeros moving in."""
    height, width = batch.shape[-2:]
    padded = nn.functional.pad(batch, (most,) * 4)
    down, right = torch.randint(0, 2 * most + 1, (2, len(batch), 1), generator=draw)
    rows = (down + torch.arange(height))[:, None, :, None]
    columns = (right + torch.arange(width))[:, None, None, :]
    return padded[torch.arange(len(batch))[:, None, None, None], 0, rows, columns]


def accuracy(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Share of right predictions."""
    with torch.inference_mode():
        right = sum(
            int((model(x).argmax(1) == y).sum()) for x, y in zip(*(part.split(500) for part in data), strict=True)
        )
    return right / len(data[1])


def robust_accuracy(model: nn.Module, data: tuple[Tensor, Tensor], eps: float) -> float:
    """Accuracy that is left after APGD-100 with cross-entropy."""
    attack = assay.attacks.APGD(threat=assay.Linf(eps), steps=100)
    return round(1.0 - float(attack(model, *data, seed=0).success.double().mean()), 6)


def train(name: str, plan: Plan, data: dict[str, tuple[Tensor, Tensor]], seed: int) -> None:
    """Train one network, writing the averaged weights and the card after each epoch."""
    recipe = plan.recipe
    torch.manual_seed(derive(seed, name, "weights"))
    model = build(plan).to(memory_format=torch.channels_last)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.average))
    draw = torch.Generator().manual_seed(derive(seed, name, "batches") % 2**32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * (len(data["train"][0]) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.lr, total_steps=steps, pct_start=recipe.warmup, cycle_momentum=False
    )
    attack = None
    if recipe.eps is not None:
        attack = assay.attacks.PGD(threat=assay.Linf(recipe.eps), steps=recipe.steps)
    for epoch in range(recipe.epochs):
        began, total = time.monotonic(), 0.0
        for count, (clean, y, rows) in enumerate(batches(*data["train"], recipe, draw), start=1):
            x = clean
            if attack is not None:
                x = attack.perturb(model, clean, y, seed=derive(seed, name, "attack", epoch), index=rows)
            loss = nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            averaged.update_parameters(model)
            total += loss.item()
            if count % 100 == 0:
                print(
                    f"{name} {epoch + 1} {count} loss {total / count:.3f} {time.monotonic() - began:.0f} s",
                    flush=True,
                )
        save(averaged.module, zoo.WEIGHTS / f"{name}.safetensors")
        write_card(name, plan, data, seed=seed, epochs=epoch + 1, robust=epoch + 1 == recipe.epochs)


def save(model: nn.Module, path: Path) -> None:
    """Write the weights whole or not at all, readable by everyone."""
    part = path.with_suffix(".part")
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, part)
    part.chmod(0o644)
    part.replace(path)


def write_card(
    name: str, plan: Plan, data: dict[str, tuple[Tensor, Tensor]], *, seed: int, epochs: int, robust: bool
) -> None:
    """Measure the written weights and write the card beside them."""
    from safetensors.torch import load_file

    model = build(plan).eval()
    model.load_state_dict(load_file(zoo.WEIGHTS / f"{name}.safetensors"))
    eps = plan.recipe.eps
    measured: dict[str, Any] = {
        "clean_accuracy": {
            part: {"value": accuracy(model, data[part]), "samples": len(data[part][1])} for part in ("test", "shipped")
        }
    }
    if robust and eps is not None:
        measured["robust_accuracy"] = {
            "value": robust_accuracy(model, data["shipped"], eps),
            "samples": len(data["shipped"][1]),
            "attack": f"APGD(threat=Linf({eps}), steps=100)",
            "seed": 0,
        }
    content = {
        "name": name,
        "summary": SUMMARIES[name],
        "data": plan.data,
        "architecture": {
            "network": plan.network,
            "settings": plan.settings,
            "parameters": sum(p.numel() for p in model.parameters()),
            "input": list(data["test"][0].shape[1:]),
            "bounds": [0.0, 1.0],
        },
        "threat": None if eps is None else f"Linf({eps})",
        "training": {
            **asdict(plan.recipe),
            "epochs_done": epochs,
            "seed": seed,
            "images": len(data["train"][1]),
        },
        "measured": measured,
        "versions": {"assay": assay.__version__, "torch": str(torch.__version__)},
        "date": datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
    }
    (zoo.WEIGHTS / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(name, epochs, measured, flush=True)


SUMMARIES = {
    "fashion-cnn": "Standard training on Fashion-MNIST",
    "fashion-cnn-pgd": "Adversarial training on Fashion-MNIST with PGD, Linf 0.1",
    "digits-mlp": "Tiny network on scikit-learn's digits, for tests",
}


def main() -> None:
    """Train or measure the chosen networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with the four Fashion-MNIST idx files")
    parser.add_argument("--only", nargs="+", choices=sorted(PLANS), default=sorted(PLANS))
    parser.add_argument("--epochs", type=int, help="instead of the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--measure", action="store_true", help="keep the weights, measure them and rewrite the cards")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    zoo.WEIGHTS.mkdir(exist_ok=True)
    for name in options.only:
        plan = PLANS[name]
        if options.epochs:
            plan = replace(plan, recipe=replace(plan.recipe, epochs=options.epochs))
        data = read(plan, options.data)
        if options.measure:
            done = zoo.card(name)["training"]
            write_card(name, plan, data, seed=done["seed"], epochs=done["epochs_done"], robust=True)
        else:
            train(name, plan, data, options.seed)


if __name__ == "__main__":
    main()
