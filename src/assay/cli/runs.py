"""``assay report`` and ``assay export``: what can be made of a run directory afterwards."""

from __future__ import annotations

import webbrowser
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from assay.cli import terminal
from assay.cli.rows import write_csv, write_parquet

Run = Annotated[
    Path,
    typer.Argument(metavar="RUN", exists=True, file_okay=False, help="A folder of evaluate, corrupt, train or study."),
]


class Format(str, Enum):
    """Formats of ``assay export``."""

    csv = "csv"
    parquet = "parquet"


@terminal.guarded
def report(
    run: Run,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write the report of a run again, as one HTML file."""
    from assay.evaluation import folder
    from assay.evaluation.corrupted.results import KIND

    if (run / "train.json").is_file():
        from assay.training.report import render
    elif (run / "study.json").is_file():
        from assay.training.study.page import render
    elif folder.read(run).get("kind") == KIND.name:
        from assay.evaluation.corrupted.page import render
    elif folder.read(run).get("kind") == "attributions":
        from assay.attributional.page import render
    elif folder.read(run).get("kind") == "certification":
        from assay.certification.page import render
    else:
        from assay.evaluation.report import render
    path = Path(render(run))
    if as_json:
        terminal.document({"report": str(path)})
    else:
        terminal.people.print(f"report  {path}", soft_wrap=True)
    if open_:
        webbrowser.open(path.resolve().as_uri())


@terminal.guarded
def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="The file to write.")],
    format_: Annotated[
        Format | None, typer.Option("--format", help="That of the file name when left out, otherwise csv.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Write one row per sample and stage of a run: predictions, success, distance, passes."""
    chosen = format_ or (Format.parquet if out.suffix == ".parquet" else Format.csv)
    count = write_parquet(run, out) if chosen is Format.parquet else write_csv(run, out)
    if as_json:
        terminal.document({"file": str(out), "format": chosen.value, "rows": count})
    else:
        terminal.people.print(f"{count} rows  {out}", soft_wrap=True)
