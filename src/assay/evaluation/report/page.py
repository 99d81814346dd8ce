"""Put the page together: read the run, lay out each part, fill the template, write the file."""

from __future__ import annotations

from pathlib import Path

from assay.evaluation.report import distances
from assay.evaluation.report.classes import failures
from assay.evaluation.report.curve import draw
from assay.evaluation.report.environment import fill
from assay.evaluation.report.gallery import gallery
from assay.evaluation.report.histogram import histogram
from assay.evaluation.report.queries import query_chart
from assay.evaluation.report.source import read
from assay.evaluation.report.summary import command, fate, results_of, state_note, tiles, verdict
from assay.evaluation.report.threat import facts
from assay.files import write_atomically

FILE = "report.html"


def render(run: str | Path) -> Path:
    """Write ``report.html`` into a run directory: one page that needs no network and no other file.

    The page is made from ``run.json`` and the shards alone, so it can be rendered again at any time and for runs
    that are still going on or were interrupted. All of run.json stands in it too, as JSON in the element
    ``assay-run``.

    Args:
        run: The run directory.

    Raises:
        StoreError: When the folder holds no readable run.json of this schema, or cannot be written.
    """
    folder = Path(run)
    record = read(folder)
    threat = facts(str(record.run["settings"]["threat"]))
    results = results_of(record)
    pictures = gallery(record, threat.bounds)
    noun = "image" if pictures.images else "sample"
    curve = draw(results["curve"], threat, results["distances"]["median"]) if results["samples"] else None
    page = fill(
        "template.html.j2",
        script=True,
        run=record.run,
        results=results,
        stages=results["stages"],
        finished=bool(record.run.get("results")),
        threat=threat,
        noun=noun,
        minimal=record.minimal,
        verdict=(distances.verdict if record.minimal else verdict)(record, results, threat, noun),
        state_note=state_note(record, noun),
        notes=record.notes,
        tiles=distances.tiles(record, results, threat, noun) if record.minimal else tiles(record, results),
        fate=distances.origins(record, results) if record.minimal else fate(results),
        curve=curve,
        histogram=histogram(record, curve.end) if record.minimal and curve else None,
        queries=query_chart(results["stages"]),
        failures=failures(record),
        gallery=pictures,
        command=command(record.run["settings"]),
    )  # fmt: skip
    path = folder / FILE
    write_atomically(path, page.encode("utf-8"))
    return path
