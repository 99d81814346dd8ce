"""Train the generative networks that ship with the package, and write their weights and cards.

    python scripts/train_generative.py --data FOLDER            all
    python scripts/train_generative.py --data FOLDER --only fashion-pixelcnn
    python scripts/train_generative.py --data FOLDER --measure  only measure and rewrite the cards

FOLDER holds the four Fashion-MNIST idx files (``train-images-idx3-ubyte.gz`` ...). Each network is a run of
``assay.train`` in a folder of ``--runs``: one that was interrupted goes on when the command is repeated. They are
trained on the first 45,000 training images; the other 15,000 are for thresholds. Weights ship in half precision, and
what the cards say was measured with these.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from shipping import made_with, options
from torch import Tensor, nn

import assay
from assay import grammar
from assay.defenses import DefenseGAN
from assay.defenses.generative import Autoencoder, Density, as_levels
from assay.defenses.latent import draw
from assay.models.networks import APEGenerator, ConvAutoencoder, DenseGenerator, PixelCNN
from assay.rng import Keyed, drawing

TRAINED = 45_000
CHUNK = 500
SEARCHED = 1_000  # test images that Defense-GAN is tried on


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A shipped network: what it is, how it is built, and settings of ``assay.train``."""

    kind: str
    summary: str
    network: type[nn.Module]
    arguments: dict[str, Any]
    recipe: str
    samples: int = TRAINED
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def expression(self) -> str:
        """The untrained network as text."""
        return f"{self.network.__name__}({', '.join(f'{name}={value!r}' for name, value in self.arguments.items())})"


MAGNET = {"epochs": 10, "batch": 64, "optimizer": "Adam(lr=1e-2)", "schedule": "Cyclic(peak=0.1)"}
PLANS = {
    "fashion-ae-1": Plan(
        kind="autoencoder",
        summary="MagNet's autoencoder I for Fashion-MNIST: a detector and the reformer",
        network=ConvAutoencoder,
        arguments={"channels": 1, "width": 3, "pooled": True},
        recipe="Reconstruction(noise=0.1, activity=1e-9)",
        settings=MAGNET,
    ),
    "fashion-ae-2": Plan(
        kind="autoencoder",
        summary="MagNet's autoencoder II for Fashion-MNIST: a detector",
        network=ConvAutoencoder,
        arguments={"channels": 1, "width": 3, "pooled": False},
        recipe="Reconstruction(noise=0.1, activity=1e-9)",
        settings=MAGNET,
    ),
    "fashion-pixelcnn": Plan(
        kind="density",
        summary="a small PixelCNN++ for Fashion-MNIST",
        network=PixelCNN,
        arguments={"channels": 1, "width": 24, "dilations": (1, 2, 4), "components": 5},
        recipe="Likelihood()",
        settings={
            "epochs": 1,
            "batch": 8,
            "optimizer": "Adam(lr=2e-3)",
            "schedule": "Cyclic(peak=0.1)",
            "average": "EMA(decay=0.998)",
            "clip": 1.0,
        },
    ),
    "fashion-wgan-gp": Plan(
        kind="generator",
        summary="a small WGAN-GP for Fashion-MNIST, for Defense-GAN",
        network=DenseGenerator,
        arguments={"channels": 1, "size": 28, "latent": 128, "hidden": 256},
        recipe="WGANGP(convolutional=False, width=256, critic_optimizer=Adam(lr=5e-4, betas=(0.0, 0.9)))",
        samples=60_000,
        settings={
            "epochs": 40,
            "batch": 250,
            "optimizer": "Adam(lr=5e-4, betas=(0.0, 0.9))",
            "schedule": "Cosine()",
            "average": "EMA(decay=0.998)",
        },
    ),
    "fashion-ape-gan": Plan(
        kind="purifier",
        summary="the generator of APE-GAN for Fashion-MNIST and fashion-cnn, FGSM of Linf 0.1",
        network=APEGenerator,
        arguments={"channels": 1, "width": 16},
        recipe="APEGAN(attack=FGSM(threat=Linf(0.1)), teacher='fashion-cnn')",
        samples=60_000,
        settings={
            "epochs": 2,
            "batch": 64,
            "optimizer": "Adam(lr=2e-4, betas=(0.5, 0.999))",
            "schedule": "Constant()",
        },
    ),
}


def train(plan: Plan, data: assay.Data, out: Path, options: argparse.Namespace) -> None:
    """One run in its folder; the last weights count."""
    settings = plan.settings if options.epochs is None else plan.settings | {"epochs": options.epochs}
    assay.train(
        plan.expression,
        data.take(min(plan.samples, options.limit or plan.samples)),
        recipe=grammar.recipe(plan.recipe),
        out=out,
        resume=True,
        keep="last",
        seed=options.seed,
        **settings,
    )


def mean_of(measure: Callable[[Tensor], Tensor], data: assay.Data) -> float:
    """The mean of a number over all images."""
    total = 0.0
    with torch.inference_mode():
        for start in range(0, len(data), CHUNK):
            total += float(measure(data.batch(start, start + CHUNK)[0]).double().sum())
    return total / len(data)


def reconstruction(model: Autoencoder, trained: assay.Data, test: assay.Data) -> dict[str, float]:
    """Mean squared error on test images, beside that of always answering the mean training image."""
    mean = trained.batch(0, len(trained))[0].mean(dim=0)

    def error(found: Callable[[Tensor], Tensor]) -> float:
        return mean_of(lambda x: (found(x) - x).square().flatten(1).mean(dim=1), test)

    return {"squared_error": error(model), "squared_error_of_the_mean_image": error(lambda x: mean.expand_as(x))}


def bits(model: Density, trained: assay.Data, test: assay.Data) -> dict[str, float]:
    """Bits per value on test images, beside those of a histogram of all values."""
    counts = torch.zeros(256, dtype=torch.float64)
    for start in range(0, len(trained), CHUNK):
        levels = as_levels(trained.batch(start, start + CHUNK)[0]).long()
        counts += levels.flatten().bincount(minlength=256)
    code = -((counts + 1) / (counts + 1).sum()).log2()
    return {
        "bits_per_value": mean_of(model.bits, test),
        "bits_per_value_of_a_histogram": mean_of(lambda x: code[as_levels(x).long()].flatten(1).mean(dim=1), test),
    }


def searched(model: nn.Module, trained: assay.Data, test: assay.Data) -> dict[str, float]:
    """What Defense-GAN leaves of test images, beside what it starts from, and how well they are still recognised."""
    x, y, index = test.batch(0, SEARCHED)
    defense, classifier = DefenseGAN(model), assay.load_model("fashion-cnn")
    mean = trained.batch(0, len(trained))[0].mean(dim=0)
    with torch.inference_mode(), drawing(Keyed(0, index)):
        shown = defense.transform(x)
        starts = draw(Keyed(0, index), defense.restarts, model.latent).flatten(0, 1)
        begun = model(starts).reshape(len(x), -1, *x.shape[1:])
        left = (shown - x).square().flatten(1).mean(dim=1)
        return {
            "samples": len(x),
            "restarts": defense.restarts,
            "steps": defense.steps,
            "squared_error": float(left.mean()),
            "squared_error_95_percent": float(left.quantile(0.95)),
            "squared_error_of_the_best_start": float((begun - x[:, None]).square().flatten(2).mean(2).amin(1).mean()),
            "squared_error_of_the_mean_image": float((mean - x).square().mean()),
            "accuracy_of_fashion_cnn": accuracy(classifier, x, y),
            "accuracy_of_fashion_cnn_on_reconstructions": accuracy(classifier, shown, y),
        }


def cleaned(model: nn.Module, trained: assay.Data, test: assay.Data) -> dict[str, float]:
    """How near adversarial test images come to the clean ones, and how well both are recognised, before and after."""
    del trained
    x, y, _ = test.batch(0, len(test))
    classifier = assay.load_model("fashion-cnn")
    moved = assay.attacks.FGSM(threat=assay.Linf(0.1)).perturb(classifier, x, y)
    with torch.inference_mode():
        back, kept = model(moved), model(x)
        return {
            "squared_error": float((back - x).square().mean()),
            "squared_error_before": float((moved - x).square().mean()),
            "accuracy_of_fashion_cnn": accuracy(classifier, x, y),
            "accuracy_of_fashion_cnn_cleaned": accuracy(classifier, kept, y),
            "accuracy_under_fgsm": accuracy(classifier, moved, y),
            "accuracy_under_fgsm_cleaned": accuracy(classifier, back, y),
        }


def accuracy(classifier: nn.Module, x: Tensor, y: Tensor) -> float:
    """The share of right decisions."""
    return float((classifier(x).argmax(dim=1) == y).double().mean())


MEASURES: dict[str, Callable[[Any, assay.Data, assay.Data], dict[str, float]]] = {
    "autoencoder": reconstruction,
    "density": bits,
    "generator": searched,
    "purifier": cleaned,
}


def write(name: str, plan: Plan, run: Path, into: Path) -> dict[str, Any]:
    """The weights in half precision, and the settings of the run."""
    state = load_file(run / "model.safetensors")
    save_file({key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in state.items()},
              into / f"{name}.safetensors")  # fmt: skip
    settings: dict[str, Any] = json.loads((run / "train.json").read_text(encoding="utf-8"))["settings"]
    return settings


def write_card(name: str, training: dict[str, Any], trained: assay.Data, test: assay.Data, into: Path) -> None:
    """Measure the written weights and write the card beside them."""
    plan = PLANS[name]
    model = grammar.named(plan.expression, nn.Module).eval()
    model.load_state_dict(load_file(into / f"{name}.safetensors"))
    measured = {key: round(value, 6) for key, value in MEASURES[plan.kind](model, trained, test).items()}
    content = {
        "name": name,
        "kind": plan.kind,
        "summary": plan.summary,
        "data": "fashion-mnist",
        "architecture": {
            "network": plan.network.__name__,
            "settings": plan.arguments,
            "parameters": sum(p.numel() for p in model.parameters()),
            "input": list(test.batch(0, 1)[0].shape[1:]),
            "bounds": [0.0, 1.0],
            "weights": "float16",
        },
        "threat": None,
        "training": training,
        "measured": {"samples": len(test)} | measured,
        **made_with(),
    }
    (into / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    print(name, measured, flush=True)


def main() -> None:
    """Train or measure the chosen networks."""
    chosen = options(__doc__, PLANS)
    data, test = assay.load_data(f"idx:{chosen.data}"), assay.load_data(f"idx:{chosen.data}?part=test")
    for name in chosen.only:
        if chosen.measure:
            training = json.loads((chosen.into / f"{name}.json").read_text(encoding="utf-8"))["training"]
        else:
            train(PLANS[name], data, chosen.runs / name, chosen)
            training = write(name, PLANS[name], chosen.runs / name, chosen.into)
        write_card(name, training, data.take(TRAINED), test, chosen.into)


if __name__ == "__main__":
    main()
