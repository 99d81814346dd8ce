"""What training is made of: recipes, networks, optimizers, schedules, averages and augmentations, one row each."""

from __future__ import annotations

from assay.registry.entry import Entry, Kind


def _entry(kind: Kind, module: str, name: str, summary: str, paper: str = "") -> Entry:
    return Entry(name=name, kind=kind, target=f"assay.{module}:{name}", summary=summary, paper=paper)


RECIPES: tuple[Entry, ...] = ()

NETWORKS: tuple[Entry, ...] = (
    _entry("network", "models.networks", "FashionCNN", "two convolutions and two linear layers for 1x28x28 images"),
    _entry("network", "models.networks", "DigitsMLP", "one hidden layer of 20 units for 1x8x8 digits"),
)

OPTIMIZERS: tuple[Entry, ...] = ()

SCHEDULES: tuple[Entry, ...] = ()

AVERAGES: tuple[Entry, ...] = ()

AUGMENTATIONS: tuple[Entry, ...] = ()
