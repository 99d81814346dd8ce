"""The command ``assay``."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from assay import __version__
from assay.cli import (
    attack,
    attribute,
    calibrate,
    catalog,
    certify,
    corrupt,
    evaluate,
    patch,
    physical,
    runs,
    study,
    substitute,
    terminal,
    train,
    universal,
)

app = typer.Typer(
    name="assay",
    help="Measure the adversarial robustness of neural networks.",
    epilog="Exit codes: 0 done, 1 below --fail-under, 2 usage, 3 the run failed, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("evaluate")(evaluate.evaluate)
app.command("calibrate")(calibrate.calibrate)
app.command("certify")(certify.certify)
app.command("attack")(attack.attack)
app.command("corrupt")(corrupt.corrupt)
app.command("train")(train.train)
app.command("study")(study.study)
app.command("universal")(universal.universal)
app.command("patch")(patch.patch)
app.command("physical")(physical.physical)
app.command("attribute")(attribute.attribute)
app.command("substitute")(substitute.substitute)
app.command("list")(catalog.list_)
app.command("show")(catalog.show)
app.command("report")(runs.report)
app.command("export")(runs.export)


def _version(wanted: bool) -> None:
    if wanted:
        terminal.result(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Measure the adversarial robustness of neural networks."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: those of the command line when None.

    Returns:
        The exit code: 0 done, 1 below ``--fail-under``, 2 usage, 3 the run failed, 130 interrupted.
    """
    # Read when torch is loaded, which no command has done yet. Threads that wait by spinning make torch many times
    # slower as soon as anything else runs on the machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app(arguments, prog_name="assay", obj=sys.argv[1:] if arguments is None else arguments)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 3
    return 0
