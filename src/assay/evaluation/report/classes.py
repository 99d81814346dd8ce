"""Where the model fails: accuracy per class, and where the inputs of each class end up under attack."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from assay.evaluation.report.source import ROBUST, WRONG, Array, Record
from assay.evaluation.smallest import finite, median

MOST_CLASSES = 20
"""More classes than this are reported by their weakest, and confusions as a list instead of a map."""


@final
@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """How one class fares; ``median`` is of the distances of its samples that are right at first."""

    name: str
    samples: int
    clean: float
    robust: float
    median: float | None


@final
@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of the confusion map: inputs of a class that the model calls something under attack."""

    count: int
    share: float
    kept: bool
    column: str


@final
@dataclass(frozen=True, kw_only=True)
class Failures:
    """The per-class part of the report.

    ``rows`` are the classes, weakest first (without a budget by their median distance, of which ``farthest`` is the
    largest); ``matrix`` holds one (name, cells) per class, or nothing where there are
    more than 20; ``pairs`` are the most frequent (true, said, count) among the failures.
    """

    classes: int
    rows: list[ClassRow]
    farthest: float
    columns: list[str]
    matrix: list[tuple[str, list[Cell]]]
    pairs: list[tuple[str, str, int]]


def class_name(record: Record, label: int) -> str:
    """A class by its name where run.json gives one, else by its number."""
    if label == record.run["settings"].get("rejected"):
        return "rejected"
    names = record.run["settings"].get("classes") or ()
    return str(names[label]) if 0 <= label < len(names) else str(label)


def failures(record: Record) -> Failures | None:
    """Accuracy per class and the confusions under attack; None where nothing was judged.

    A sample that some stage broke counts where its adversarial prediction lies, one that was wrong on the clean
    input where that prediction lies, any other on the diagonal.
    """
    if not len(record.label):
        return None
    present = np.unique(record.label)
    rows = []
    for label in present:
        mine = record.label == label
        outcome = record.outcome[mine]
        right = torch.from_numpy(record.distance[mine & (record.outcome != WRONG)])
        rows.append(
            ClassRow(
                name=class_name(record, int(label)),
                samples=len(outcome),
                clean=float((outcome != WRONG).mean()),
                robust=float((outcome == ROBUST).mean()),
                median=finite(median(right)),
            )
        )
    if record.minimal:
        rows.sort(key=lambda row: (math.inf if row.median is None else row.median, -row.samples))
    else:
        rows.sort(key=lambda row: (row.robust, -row.samples, row.clean))
    seen = np.union1d(present, record.final)
    small = len(seen) <= MOST_CLASSES
    return Failures(
        classes=len(present),
        rows=rows[:MOST_CLASSES],
        farthest=max((row.median for row in rows[:MOST_CLASSES] if row.median is not None), default=0.0),
        columns=[class_name(record, int(label)) for label in seen] if small else [],
        matrix=_matrix(record, seen) if small else [],
        pairs=_pairs(record),
    )


def _matrix(record: Record, seen: Array) -> list[tuple[str, list[Cell]]]:
    place = np.searchsorted(seen, record.label), np.searchsorted(seen, record.final)
    counts = np.zeros((len(seen), len(seen)), dtype=np.int64)
    np.add.at(counts, place, 1)
    matrix = []
    for row, label in enumerate(seen):
        total = int(counts[row].sum())
        if not total:
            continue
        cells = [
            Cell(
                count=int(number),
                share=round(float(number) / total, 3),
                kept=row == column,
                column=class_name(record, int(seen[column])),
            )
            for column, number in enumerate(counts[row])
        ]
        matrix.append((class_name(record, int(label)), cells))
    return matrix


def _pairs(record: Record) -> list[tuple[str, str, int]]:
    lost = record.final != record.label
    both = np.stack([record.label[lost], record.final[lost]], axis=1)
    pairs, counts = np.unique(both, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:10]
    return [(class_name(record, int(pairs[i][0])), class_name(record, int(pairs[i][1])), int(counts[i])) for i in order]
