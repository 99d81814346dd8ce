"""Train the networks that ship with the package and write their weights and cards.

    python scripts/train_models.py --data FOLDER            all three
    python scripts/train_models.py --data FOLDER --only fashion-cnn-pgd
    python scripts/train_models.py --data FOLDER --only digits-mlp --epochs 1 --into /tmp/trial
    python scripts/train_models.py --data FOLDER --measure  only measure and rewrite the cards

FOLDER holds the four Fashion-MNIST idx files (``train-images-idx3-ubyte.gz`` ...). Each network is a run of
``assay.train`` in a folder of ``--runs``: one that was interrupted goes on when the command is repeated. The same
seed and thread count give the same weights.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from shipping import made_with, options
from torch import nn

import assay
from assay import grammar
from assay.data.parts import part

SHIPPED = 2000  # test images of Fashion-MNIST that ship with the package
HELD_OUT = 5  # of the digits one of so many is for the test


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A shipped model: its network, data, and settings of ``assay.train``."""

    summary: str
    network: str
    arguments: dict[str, int]
    data: str
    threat: str | None = None
    recipe: str = "Standard()"
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def expression(self) -> str:
        """The untrained network as text."""
        return f"{self.network}({', '.join(f'{name}={value}' for name, value in self.arguments.items())})"


FASHION = {"channels": 32, "hidden": 128, "classes": 10}
USUAL = {
    "optimizer": "AdamW(lr=2e-3, weight_decay=0.01)",
    "schedule": "Cyclic(peak=0.2)",
    "average": "EMA(decay=0.998)",
}
PLANS = {
    "fashion-cnn": Plan(
        summary="Standard training on Fashion-MNIST",
        network="FashionCNN",
        arguments=FASHION,
        data="fashion-mnist",
        settings=USUAL | {"epochs": 20, "augment": ["Flip()", "Crop(padding=1)"]},
    ),
    "fashion-cnn-pgd": Plan(
        summary="Adversarial training on Fashion-MNIST with PGD, Linf 0.1",
        network="FashionCNN",
        arguments=FASHION,
        data="fashion-mnist",
        threat="Linf(0.1)",
        recipe="AdversarialTraining(attack=PGD(steps=7))",
        settings=USUAL | {"epochs": 12, "augment": ["Flip()"]},
    ),
    "digits-mlp": Plan(
        summary="Tiny network on scikit-learn's digits, for tests",
        network="DigitsMLP",
        arguments={"hidden": 20},
        data="digits",
        settings=USUAL
        | {"epochs": 60, "batch": 32, "optimizer": "AdamW(lr=1e-2, weight_decay=0.01)", "average": "EMA(decay=0.9)"},
    ),
}


def read(plan: Plan, folder: Path) -> dict[str, assay.Data]:
    """Training set, full test set and shipped images; digits keep every fifth image for the test."""
    if plan.data == "digits":
        digits = assay.load_data("digits")
        held_out = torch.arange(len(digits)) % HELD_OUT == 0
        places = {"train": (~held_out).nonzero()[:, 0], "test": held_out.nonzero()[:, 0]}
        return {name: part(digits, rows) for name, rows in places.items()} | {"shipped": digits}
    test = assay.load_data(f"idx:{folder}?part=test")
    return {"train": assay.load_data(f"idx:{folder}"), "test": test, "shipped": test.take(SHIPPED)}


def train(plan: Plan, data: assay.Data, out: Path, options: argparse.Namespace) -> None:
    """One run in its folder; all samples are trained on and the last weights count."""
    settings = plan.settings if options.epochs is None else plan.settings | {"epochs": options.epochs}
    threat = None if plan.threat is None else grammar.threat(plan.threat)
    assay.train(
        plan.expression,
        data,
        recipe=grammar.recipe(plan.recipe, threat),
        threat=threat,
        out=out,
        resume=True,
        validation=0,
        keep="last",
        guard=None,
        channels_last=plan.network == "FashionCNN",
        limit=options.limit,
        seed=options.seed,
        **settings,
    )


def accuracy(model: nn.Module, data: assay.Data) -> float:
    """Share of right predictions."""
    right = 0
    with torch.inference_mode():
        for start in range(0, len(data), 500):
            x, y, _ = data.batch(start, start + 500)
            right += int((model(x).argmax(1) == y).sum())
    return right / len(data)


def robust_accuracy(model: nn.Module, data: assay.Data, attack: assay.attacks.APGD) -> float:
    """Accuracy that the attack leaves."""
    x, y, _ = data.batch(0, len(data))
    return round(1.0 - float(attack(model, x, y, seed=0).success.double().mean()), 6)


def write_card(name: str, training: dict[str, Any], data: dict[str, assay.Data], into: Path) -> None:
    """Measure the written weights and write the card beside them."""
    plan = PLANS[name]
    model = grammar.named(plan.expression, nn.Module).eval()
    model.load_state_dict(load_file(into / f"{name}.safetensors"))
    measured: dict[str, Any] = {
        "clean_accuracy": {
            part: {"value": accuracy(model, data[part]), "samples": len(data[part])} for part in ("test", "shipped")
        }
    }
    if plan.threat is not None:
        attack = assay.attacks.APGD(threat=grammar.threat(plan.threat), steps=100)
        measured["robust_accuracy"] = {
            "value": robust_accuracy(model, data["shipped"], attack),
            "samples": len(data["shipped"]),
            "attack": f"APGD(threat={plan.threat}, steps=100)",
            "seed": 0,
        }
    content = {
        "name": name,
        "summary": plan.summary,
        "data": plan.data,
        "architecture": {
            "network": plan.network,
            "settings": plan.arguments,
            "parameters": sum(p.numel() for p in model.parameters()),
            "input": list(data["test"].batch(0, 1)[0].shape[1:]),
            "bounds": [0.0, 1.0],
        },
        "threat": plan.threat,
        "training": training,
        "measured": measured,
        **made_with(),
    }
    (into / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(name, measured, flush=True)


def main() -> None:
    """Train or measure the chosen networks."""
    chosen = options(__doc__, sorted(PLANS))
    for name in chosen.only:
        data = read(PLANS[name], chosen.data)
        if chosen.measure:
            training = json.loads((chosen.into / f"{name}.json").read_text(encoding="utf-8"))["training"]
        else:
            out = chosen.runs / name
            train(PLANS[name], data["train"], out, chosen)
            shutil.copyfile(out / "model.safetensors", chosen.into / f"{name}.safetensors")
            training = json.loads((out / "train.json").read_text(encoding="utf-8"))["settings"]
        write_card(name, training, data, chosen.into)


if __name__ == "__main__":
    main()
