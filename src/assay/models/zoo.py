"""The models that ship with the package: a card (JSON) and the weights (safetensors) of each.

A card says how to build the network and what is known about it: data, architecture, training recipe, threat,
measured accuracies, versions and date.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

WEIGHTS = Path(__file__).resolve().parent / "weights"


def names() -> list[str]:
    """Names of the shipped models, sorted."""
    return sorted(path.stem for path in WEIGHTS.glob("*.json"))


def card(name: str) -> dict[str, Any]:
    """What is known about a shipped model.

    Args:
        name: one of ``names()``.

    Example:
        >>> card("digits-mlp")["architecture"]["network"]
        'DigitsMLP'
    """
    content: dict[str, Any] = json.loads((WEIGHTS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def load(name: str) -> nn.Module:
    """Build a shipped model and read its weights.

    Args:
        name: one of ``names()``.
    """
    from safetensors.torch import load_file

    from assay.models import networks

    architecture = card(name)["architecture"]
    model: nn.Module = getattr(networks, architecture["network"])(**architecture["settings"])
    model.load_state_dict(load_file(WEIGHTS / f"{name}.safetensors"))
    return model
