"""Read a run directory for the report, as far as it got: run.json and every usable shard, joined per sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from assay.errors import StoreError
from assay.evaluation.merge import worst_case
from assay.evaluation.schema import StageRecord
from assay.evaluation.shards import CLEAN, Shard
from assay.evaluation.store import Store

Array = np.ndarray[Any, np.dtype[Any]]
ROBUST, WRONG = -1, 0
"""Outcomes of a sample: no stage broke it (yet), or wrong on the clean input; k >= 1 is broken by stage k."""


@final
@dataclass(frozen=True, kw_only=True)
class Example:
    """One adversarial input kept for the gallery, with what the model said before and after, and its move if kept."""

    index: int
    label: int
    before: int
    after: int
    distance: float
    stage: str
    clean: Array
    adversarial: Array
    move: Array | None


@final
@dataclass(frozen=True, kw_only=True)
class Record:
    """A run as far as it got: one entry per judged sample.

    ``final`` is the prediction at the worst input found: the adversarial one where a stage broke the sample, the
    clean one elsewhere. ``outcome`` is the number of the stage that broke it, without a budget of the one that came
    nearest; ``distance`` is 0 where the clean input was wrong, inf where nothing was found. ``shards`` holds the
    usable ones of each stage; ``notes`` says in sentences what could not be used.
    """

    run: Mapping[str, Any]
    index: Array
    label: Array
    clean: Array
    final: Array
    outcome: Array
    distance: Array
    shards: list[list[Shard]]
    examples: list[Example]
    notes: list[str]

    @property
    def minimal(self) -> bool:
        """Whether the run looks for the smallest perturbations."""
        return bool(self.run["settings"].get("minimal", False))

    @property
    def stages(self) -> list[StageRecord]:
        """The suite's stages: name and expression."""
        return list(self.run["settings"]["suite"]["stages"])


def read(folder: Path) -> Record:
    """Read run.json and the shards; a chunk counts as far as its stages follow on one another.

    Without a budget a chunk counts once an attack has looked at it, since nothing is known of its distances before.

    Args:
        folder: The run directory.

    Raises:
        StoreError: When run.json is missing, cannot be read or is of a newer schema.
    """
    store = Store.open(folder)
    notes: list[str] = []
    rows: list[dict[str, torch.Tensor]] = []
    names = store.stages[1:]
    used: list[list[Shard]] = [[] for _ in names]
    shards = {
        (stage, start): _shard(store, stage, start, notes) for stage in store.stages for start in store.done(stage)
    }
    begun = any(stage != CLEAN for stage, _ in shards)
    for start, _ in store.chunks:
        clean = shards.get((CLEAN, start))
        if clean is None:
            continue
        stages: list[Shard] = []
        for name in names:
            shard = shards.get((name, start))
            if shard is None:
                break
            stages.append(shard)
        if store.minimal and not stages and begun:
            continue
        try:
            rows.append(worst_case(clean, stages, minimal=store.minimal, goal=store.run["settings"]["goal"]))
        except ValueError as error:
            notes.append(f"{store.shard_path(str(error), start)} does not fit the stages before it.")
            continue
        for number, shard in enumerate(stages):
            used[number].append(shard)
    return Record(
        run=store.run,
        index=_column(rows, "index"),
        label=_column(rows, "label"),
        clean=_column(rows, "prediction"),
        final=_column(rows, "adv_prediction"),
        outcome=_column(rows, "stage"),
        distance=_column(rows, "distance"),
        shards=used,
        examples=[example for stage in used for shard in stage for example in _examples(shard)],
        notes=notes,
    )


def _shard(store: Store, stage: str, start: int, notes: list[str]) -> Shard | None:
    try:
        return store.read_shard(stage, start)
    except StoreError as error:
        notes.append(str(error))
        return None


def _column(rows: list[dict[str, torch.Tensor]], name: str) -> Array:
    return np.concatenate([row[name].numpy() for row in rows]) if rows else np.zeros(0, dtype=np.int64)


def _examples(shard: Shard) -> list[Example]:
    """The adversarial inputs that a shard kept, looked up among its rows."""
    found = []
    moves = shard.examples.get("example_move")
    for position, index in enumerate(shard.examples.get("example_index", torch.zeros(0)).tolist()):
        row = int((shard.columns["index"] == index).nonzero()[0])
        label, before, after = (int(shard.columns[n][row]) for n in ("label", "prediction", "adv_prediction"))
        found.append(
            Example(
                index=index,
                label=label,
                before=before,
                after=after,
                distance=float(shard.columns["distance"][row]),
                stage=shard.stage,
                clean=shard.examples["example_x"][position].double().numpy(),
                adversarial=shard.examples["example_adv"][position].double().numpy(),
                move=None if moves is None else moves[position].double().numpy(),
            )
        )
    return found
