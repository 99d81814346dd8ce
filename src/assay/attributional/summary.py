"""What a run found, put together from its parts: means of every metric, under attack and at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from assay.attributional.comparison import INSIDE, METRICS, mean

WEAK = (
    "The attack changed the maps less than one random move of the same size: it found nothing, and its numbers say "
    "nothing of the model. Take more steps, a random start, or the surrogate (beta above 0)."
)


def summary(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Any]:
    """Results as JSON holds them.

    Of the attack all samples that were right count, those that it left alone too; at random those whose decision the
    move leaves alone.

    Args:
        parts: the columns of each part.
    """
    asked = sum(int(part["asked"]) for part in parts)
    known = [part for part in parts if "success" in part]
    if not known:
        return {"samples": asked, "right": 0, "metrics": {}}
    names = [name for name in known[0] if not name.startswith("example_") and name != "asked"]
    whole = {name: torch.cat([part[name] for part in known]) for name in names}
    held = whole["random_kept"].bool()
    metrics: dict[str, Any] = {}
    for key in METRICS:
        if f"found_{key}" in whole:
            columns = {"attack": whole[f"found_{key}"], "random": whole[f"random_{key}"][held]}
            if key == INSIDE:
                columns["before"] = whole["before_inside"]
            means = {name: mean(values) for name, values in columns.items()}
            metrics[key] = {name: None if each is None else asdict(each) for name, each in means.items()}
    return {
        "samples": asked,
        "right": len(held),
        "changed": float(whole["success"].double().mean()),
        "kept": float(whole["found_kept"].double().mean()),
        "kept_at_random": float(held.double().mean()),
        "forwards": float(whole["forwards"].double().mean()),
        "backwards": float(whole["backwards"].double().mean()),
        "metrics": metrics,
    }


def weak(results: Mapping[str, Any]) -> bool:
    """Whether the attack did less than a random move, by the top-k intersection."""
    row = results["metrics"].get("top_k")
    return bool(row and row["attack"] and row["random"]) and row["attack"]["value"] > row["random"]["value"]
