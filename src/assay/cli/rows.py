"""The rows of a run, one per sample and stage that asked about it, as CSV or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from assay.evaluation.store import Store

COLUMNS = (
    "index",
    "label",
    "stage",
    "attack",
    "prediction",
    "adv_prediction",
    "success",
    "distance",
    "forwards",
    "backwards",
)


def rows(store: Store) -> Iterator[dict[str, Any]]:
    """Every row, stage by stage and in the order of the data.

    The stage ``clean`` has no attack: its success says that the unchanged input is wrong already, at distance 0.

    Raises:
        StoreError: a shard is missing or damaged.
    """
    attacks = {stage["name"]: stage["attack"] for stage in store.run["settings"]["suite"]["stages"]}
    for stage in store.stages:
        for start, _ in store.chunks:
            columns = {name: column.tolist() for name, column in store.read_shard(stage, start).columns.items()}
            for values in zip(*columns.values(), strict=True):
                row = dict(zip(columns, values, strict=True))
                if stage not in attacks:
                    wrong = row["prediction"] != row["label"]
                    row |= {"adv_prediction": row["prediction"], "success": wrong, "forwards": 1, "backwards": 0}
                    row["distance"] = 0.0 if wrong else float("inf")
                row |= {"stage": stage, "attack": attacks.get(stage, ""), "success": bool(row["success"])}
                yield {name: row[name] for name in COLUMNS}


def write_csv(run: Path, out: Path) -> int:
    """Write all rows to a CSV file; returns how many.

    Raises:
        StoreError: the run cannot be read, or the file cannot be written.
    """
    from assay.evaluation.store import Store
    from assay.files import write_atomically

    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    count = 0
    for count, row in enumerate(rows(Store.open(run)), start=1):  # noqa: B007  (the last count is used)
        writer.writerow(row)
    write_atomically(out, text.getvalue().encode())
    return count


def write_parquet(run: Path, out: Path) -> int:
    """Write all rows to a Parquet file; returns how many.

    Raises:
        MissingExtraError: pyarrow is not installed.
        StoreError: the run cannot be read, or the file cannot be written.
    """
    from assay.evaluation.store import Store
    from assay.files import write_atomically
    from assay.importing import optional

    arrow = optional("pyarrow", "parquet", "Parquet")
    parquet = optional("pyarrow.parquet", "parquet", "Parquet")
    table = arrow.Table.from_pylist(list(rows(Store.open(run))))
    buffer = io.BytesIO()
    parquet.write_table(table, buffer)
    write_atomically(out, buffer.getvalue())
    return int(table.num_rows)
