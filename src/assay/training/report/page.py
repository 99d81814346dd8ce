"""Put the page of a training run together from its folder, and write it there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay.evaluation.report.environment import fill
from assay.files import write_atomically
from assay.training.folder import Folder, Row, read_metrics
from assay.training.report.charts import charts
from assay.training.report.text import command, cut, epochs_table, state_note, tiles, verdict

FILE = "report.html"


def render(run: str | Path) -> Path:
    """Write `report.html` into the folder of a training run: one page that needs no network and no other file.

    It is made of `train.json` and `metrics.csv` alone, so that it can be made again at any time, also while the run
    goes on.

    Args:
        run: the folder.

    Raises:
        StoreError: it holds no training run, or cannot be written.
    """
    folder = Folder.open(Path(run))
    record, history = folder.run, read_metrics(folder.path)
    kept = _kept(record, history)
    page = fill(
        "training.html.j2",
        "assay.training.report",
        run=record,
        settings=record["settings"],
        results=record.get("results", {}),
        evaluation=record.get("results", {}).get("evaluation"),
        recipe=cut(record["settings"]["recipe"]),
        verdict=verdict(record, kept),
        note=state_note(record, history),
        tiles=tiles(record, history, kept),
        charts=charts(history, None if kept is None else kept["epoch"], record.get("quality")),
        measured=[record["quality"]] if record.get("quality") else ["Clean", "PGD-10"],
        table=epochs_table(history, kept, record.get("quality")),
        command=command(record["settings"], record["environment"].get("processes", 1)),
    )
    path = folder.path / FILE
    write_atomically(path, page.encode("utf-8"))
    return path


def _kept(run: dict[str, Any], history: list[Row]) -> Row | None:
    """The epoch whose network is in the folder; None where nothing was measured."""
    measured = [row for row in history if row["clean"] is not None or row["quality"] is not None]
    if "results" in run:
        best: Row | None = run["results"]["best"]
        return best
    if not measured:
        return None
    if run["settings"]["keep"] == "last":
        return measured[-1]
    if run.get("quality"):
        return min(measured, key=lambda row: row["quality"])
    return max(measured, key=lambda row: row["clean"] if row["robust"] is None else row["robust"])
