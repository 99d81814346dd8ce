"""``assay study``: one network by several recipes, over training eps and numbers of samples."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from assay.cli import options, steps, terminal


@terminal.guarded
def study(
    model: Annotated[
        str, typer.Argument(metavar="NETWORK", help="A network such as 'SmallCNN()' (`assay list networks`).")
    ],
    data: options.Data,
    threat: Annotated[
        str, typer.Option(metavar="THREAT", help="What robust accuracy is measured under: linf:8/255, l2:0.5.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", file_okay=False, help="Folder of the study.")],
    recipes: Annotated[str, typer.Option(help="Recipes, with commas between them.")] = "standard,pgdat,trades",
    eps: Annotated[
        str | None, typer.Option(metavar="LIST", help="Training eps: 0,4/255,8/255.", show_default="0, half, all of it")
    ] = None,
    samples: Annotated[
        str | None, typer.Option(metavar="LIST", help="Training samples: 500,2000,all.", show_default="1/16, 1/4, all")
    ] = None,
    epochs: Annotated[
        int, typer.Option(min=1, help="Passes over all samples; smaller sets are gone through more often.")
    ] = 10,
    batch: steps.Batch = 128,
    optimizer: steps.Optimizer = None,
    schedule: steps.Schedule = None,
    average: steps.Average = None,
    augment: steps.Augment = None,
    test: Annotated[
        str | None,
        typer.Option(
            metavar="DATA", help="Test data.", show_default="a fifth of the data", rich_help_panel=steps.MEASURED
        ),
    ] = None,
    test_limit: steps.TestLimit = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="The attacks that measure: quick, standard.", show_default="PGD-20", rich_help_panel=steps.MEASURED
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the study in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the study in --out.")] = False,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train by several recipes over training eps and numbers of samples, and draw the trade-off."""
    if resume and overwrite:
        raise typer.BadParameter("--resume continues a study, --overwrite replaces it: give one of them")
    from assay.training.study import study as run

    given: dict[str, Any] = {"optimizer": optimizer, "schedule": schedule, "average": average, "augment": augment}
    found = run(
        model,
        options.canonical("data", data),
        threat=threat,
        out=out,
        recipes=options.listed(recipes),
        eps=None if eps is None else [_number(each) for each in options.listed(eps)],
        samples=None if samples is None else list(options.listed(samples)),
        epochs=epochs,
        test=None if test is None else options.canonical("data", test),
        test_limit=test_limit,
        suite=suite,
        limit=limit,
        batch=batch,
        seed=seed,
        device=None if device is options.DeviceName.auto else options.device(device),
        resume=resume,
        overwrite=overwrite,
        progress=not quiet,
        **{name: value for name, value in given.items() if value},
    )
    if as_json:
        terminal.document({"runs": found.rows, "out": str(found.path)})
    if not quiet:
        for name in ("study.csv", "study.svg", "report.html"):
            terminal.people.print(f"{name:<12} {found.path / name}", soft_wrap=True)


def _number(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise typer.BadParameter(f"{text!r} is no number", param_hint="--eps") from None
