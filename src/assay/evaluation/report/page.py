"""Put the page together: read the run, lay out each part, fill the template, write the file."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from assay.evaluation.report import distances, words
from assay.evaluation.report.classes import failures
from assay.evaluation.report.curve import draw
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
    style, script = _file("style.css"), _file("script.js")
    curve = draw(results["curve"], threat, results["distances"]["median"]) if results["samples"] else None
    page = _environment().get_template("template.html.j2").render(
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
        style=Markup(style),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
    )  # fmt: skip
    path = folder / FILE
    write_atomically(path, page.encode("utf-8"))
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("assay.evaluation.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for function in (words.percent, words.interval, words.count, words.rate, words.size, words.duration):
        environment.filters[function.__name__] = function
    environment.filters["breakable"] = _breakable
    environment.filters["date"] = words.date
    environment.globals["plural"] = words.plural
    environment.tests["web_address"] = _is_web_address
    return environment


def _breakable(name: str) -> Markup:
    """A long name, escaped, that may go on in the next line after its punctuation."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[._:/-])", name))


def _is_web_address(link: str) -> bool:
    """Whether a link may be followed: nothing but http and https, so that a run cannot smuggle in a script."""
    try:
        return urlsplit(link).scheme in {"http", "https"}
    except ValueError:
        return False


def _file(name: str) -> str:
    return resources.files("assay.evaluation.report").joinpath(name).read_text(encoding="utf-8")
