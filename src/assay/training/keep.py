"""The network before training and after it: built from its name, and kept with a card that says what it is."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from assay import grammar, registry
from assay.data import Data
from assay.errors import ModelError
from assay.importing import near
from assay.models import saved, zoo
from assay.models.defended import is_defended, read_defended
from assay.models.ensemble import is_ensemble
from assay.models.limited import is_limited
from assay.models.load import load_model
from assay.rng import derive
from assay.training.folder import Folder, Row
from assay.training.settings import Settings
from assay.training.validation import STEPS


def network(model: nn.Module | str, seed: int) -> tuple[nn.Module, str | None]:
    """The network to train, and the text that builds an untrained one like it; None where it is not known.

    Args:
        model: a module, an expression of a network ("PreActResNet18(classes=10)"), or a MODEL, whose training goes on.
        seed: key of the first weights of a network that is built here.

    Raises:
        ModelError: there is no such network, or it has no parameters.
    """
    text: str | None = None
    if isinstance(model, str):
        with torch.random.fork_rng():
            torch.manual_seed(derive(seed, "weights"))
            built, text = _named(model)
    else:
        built = model
    if not any(p.requires_grad for p in built.parameters()):
        what = model if isinstance(model, str) else type(model).__name__
        raise ModelError(f"{what} has no parameters to train.")
    return built, text


def _named(spec: str) -> tuple[nn.Module, str]:
    if is_defended(spec):
        return read_defended(spec, lambda inner: _named(inner)[0]), spec
    name = spec.partition("(")[0]
    entry = registry.find("network", name)
    if entry is not None and spec not in zoo.names():
        return grammar.named(spec, nn.Module), spec if "(" in spec else f"{entry.name}()"
    if re.fullmatch(r"[\w-]+(\(.*\))?", spec) and not _is_model(spec):
        known = registry.names("network") if "(" in spec else (*registry.names("network"), *zoo.names())
        raise ModelError(
            f"no network named {name!r}.{near(name, known)} NETWORK is one such as 'PreActResNet18(classes=10)' "
            "(`assay list networks`), package.module:callable, or a MODEL whose training goes on, such as the folder "
            "of a training run."
        )
    built = load_model(spec)
    if spec in zoo.names():
        known = zoo.card(spec)["architecture"]
        settings = ", ".join(f"{key}={value!r}" for key, value in known["settings"].items())
        return built, f"{known['network']}({settings})"
    if (Path(spec) / saved.CARD).is_file():
        return built, saved.card(Path(spec))["network"]
    return built, spec


def _is_model(spec: str) -> bool:
    return spec in zoo.names() or Path(spec).exists() or is_limited(spec) or is_ensemble(spec)


def keep_model(
    folder: Folder, weights: dict[str, Tensor], text: str | None, settings: Settings, data: Data, row: Row | None
) -> None:
    """Write the network and its card.

    Args:
        folder: of the run; it is a MODEL from then on.
        weights: the state of the network.
        text: what builds an untrained one.
        settings: how it was trained.
        data: what on.
        row: what was measured of it, where anything was.

    Raises:
        StoreError: it cannot be written.
    """
    measured = None if row is None else {"clean": row["clean"], f"pgd-{STEPS}": row["robust"]}
    if settings.generative is not None and row is not None:
        measured = {settings.generative.quality: row["quality"]}
    facts = {
        "recipe": repr(settings.recipe),
        "data": data.name,
        "classes": None if data.classes is None else list(data.classes),
        "threat": " and ".join(repr(threat) for threat in settings.measured) or None,
        "epoch": None if row is None else row["epoch"],
        "held_out_accuracy" if settings.generative is None else "held_out": measured or {},
        "settings": folder.run["settings"],
        "environment": folder.run["environment"],
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    }
    saved.save(folder.path, text, weights, facts)
