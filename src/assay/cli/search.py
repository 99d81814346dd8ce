"""One attack over a data set, chunk by chunk: what ``assay attack`` runs, saves and sums up."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from assay.errors import AccessError
from assay.evaluation import aims
from assay.evaluation.chunks import placement
from assay.evaluation.queries import numbers
from assay.evaluation.schema import Queries
from assay.goals import Goal, Targeted, Untargeted
from assay.oracle import Access, Oracle, granted_access, rejected_output

if TYPE_CHECKING:
    from assay.attacks import Attack
    from assay.data import Data
    from assay.transformations import EOT

SAVED = ("x_adv", "x", "y", "success", "distance", "prediction", "forwards", "backwards", "index")

Columns = dict[str, Tensor]


def check_access(model: Any, attack: Attack, goal: str) -> None:
    """Refuse a search that asks more of the model than it grants, before it is begun.

    Raises:
        AccessError: it does.
    """
    granted = granted_access(model)
    aims.check_access(goal, granted)
    if attack.access > granted:
        raise AccessError(
            f"{type(attack).__name__} asks for {attack.access.name.lower()}, the model grants {granted.name.lower()}. "
            "`assay list attacks` tells what each asks for; Square gets by with scores."
        )


def search(
    model: Any,
    data: Data,
    attack: Attack,
    *,
    goal: str = aims.UNTARGETED,
    seed: int = 0,
    max_queries: int | None = None,
    batch: int = 256,
    device: str = "cpu",
    eot: EOT | None = None,
    keep_moves: bool = False,
) -> Iterator[Columns]:
    """Attack the data in chunks; yields the columns of `SAVED`, ``correct``, ``begun`` and ``before`` for each.

    ``correct`` tells whether the clean input is classified rightly, ``begun`` whether there was something to do:
    the clean input had not reached the goal yet. ``before`` is the decision on it. With one class as the
    target its own samples are left out.

    Args:
        model: as for an attack.
        data: the samples.
        attack: the search.
        goal: untargeted; random, next or least-likely; or the number of a class.
        seed: key of all draws, those of random targets too.
        max_queries: forward passes allowed per sample.
        batch: samples in a chunk; the results do not depend on it.
        device: where to compute if the model does not say.
        eot: search and judge on means over random views, also of the clean inputs.
        keep_moves: yield the moves too, as ``theta``.
    """
    place, dtype = placement(model, torch.device(device))
    for start in range(0, len(data), batch):
        x, y, index = data.batch(start, start + batch)
        if not bool((keep := aims.led_astray(goal, y)).all()):
            x, y, index = x[keep], y[keep], index[keep]
        if len(y) == 0:
            continue
        x_on, y_on, index_on = x.to(place, dtype or x.dtype), y.to(place), index.to(place)
        rejected = rejected_output(model, x_on)
        wanted: Goal = Untargeted(y_on, rejected=rejected)
        clean = None
        if goal != aims.UNTARGETED or rejected is not None:
            oracle = _clean(model, x_on, y_on, attack, eot=eot, seed=seed, index=index_on)
            clean = oracle.record.prediction
        if goal != aims.UNTARGETED:
            chosen = aims.targets(goal, y_on, index_on, oracle.clean()[:, :rejected], seed, data.name)
            wanted = Targeted(chosen, away=y_on)
        result = attack(
            model, x_on, wanted, seed=seed, index=index_on, max_queries=max_queries, eot=eot, keep_moves=keep_moves
        )
        begun = ~(result.success & (result.distance == 0))
        columns = {
            "x_adv": result.x_adv,
            "x": x,
            "y": y,
            "success": result.success,
            "distance": result.distance,
            "prediction": result.prediction,
            "forwards": result.forwards,
            "backwards": result.backwards,
            "index": index,
            "correct": begun if clean is None else clean == y_on,
            "begun": begun,
            "before": torch.where(begun, y_on, result.prediction) if clean is None else clean,
        }
        if result.theta is not None:
            columns["theta"] = result.theta
        yield {name: column.cpu() for name, column in columns.items()}


def _clean(model: Any, x: Tensor, y: Tensor, attack: Attack, *, eot: EOT | None, seed: int, index: Tensor) -> Oracle:
    """An oracle that has judged the clean inputs, and so knows the decisions and outputs."""
    access = min(granted_access(model), Access.SCORES)
    oracle = Oracle(model, x, Untargeted(y), attack.threat, access=access, eot=eot, seed=seed, index=index)
    oracle.judge_clean()
    return oracle


def joined(chunks: list[Columns]) -> Columns:
    """The columns of all chunks in one."""
    return {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}


def save(path: Path, columns: Columns) -> None:
    """Write the columns of `SAVED` to an npz file, whole or not at all.

    Raises:
        StoreError: the file cannot be written.
    """
    from assay.files import write_atomically

    buffer = io.BytesIO()
    known = {name: column.float() if column.dtype == torch.bfloat16 else column for name, column in columns.items()}
    arrays: dict[str, Any] = {name: known[name].numpy() for name in SAVED}  # NumPy has no bfloat16
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())


def summary(columns: Columns) -> dict[str, Any]:
    """The numbers that are reported: shares of all samples, success and distances of those begun."""
    begun, won = columns["begun"], columns["success"] & columns["begun"]
    distance = columns["distance"][won].double()
    samples = len(begun)
    return {
        "samples": samples,
        "clean_accuracy": int(columns["correct"].sum()) / samples,
        "accuracy": int((columns["prediction"] == columns["y"]).sum()) / samples,
        "begun": int(begun.sum()),
        "succeeded": int(won.sum()),
        "success_rate": int(won.sum()) / int(begun.sum()) if bool(begun.any()) else None,
        "distance": {
            "median": float(distance.quantile(0.5)) if len(distance) else None,
            "mean": float(distance.mean()) if len(distance) else None,
        },
        "forwards": float(columns["forwards"].double().mean()),
        "backwards": float(columns["backwards"].double().mean()),
    }


def queries(columns: Columns, max_queries: int | None) -> Queries | None:
    """What successes cost in queries; None where gradients were used or there was nothing to do."""
    begun = columns["begun"]
    if bool(columns["backwards"].any()) or not bool(begun.any()):
        return None
    return numbers(columns["forwards"][begun].long(), columns["success"][begun], max_queries)
