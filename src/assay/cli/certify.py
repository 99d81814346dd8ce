"""``assay certify``: randomized smoothing, and the accuracy that it proves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import TimeRemainingColumn
from rich.table import Table

from assay.cli import options, terminal


@terminal.guarded
def certify(
    model: options.Model,
    data: options.Data,
    sigma: Annotated[float, typer.Option(help="Standard deviation of the noise, in the unit of the inputs.")] = 0.25,
    draws: Annotated[int, typer.Option(min=1, help="Noisy copies of each sample that its bound is computed from.")] = (
        10_000
    ),
    selection: Annotated[int, typer.Option(min=1, help="Others that choose its class.")] = 100,
    alpha: Annotated[float, typer.Option(help="Chance that the certificate of a sample is wrong.")] = 0.001,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", file_okay=False, help="Run directory: settings, rows, results.")
    ] = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    batch: Annotated[int, typer.Option(min=1, help="Samples in a part; no influence on results.")] = 32,
    device: options.Device = options.DeviceName.auto,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Smooth a model with Gaussian noise, and prove within which L2 radius each decision stays."""
    if (resume or overwrite) and out is None:
        raise typer.BadParameter("--resume and --overwrite need --out", param_hint="--out")
    from assay.certification import certify as run
    from assay.data import load_data
    from assay.evaluation import folder
    from assay.evaluation.bar import Bar
    from assay.threats import L2

    if out is not None:
        folder.check(out, resume=resume, overwrite=overwrite)
    model, data = options.canonical("model", model), options.canonical("data", data)
    place = options.device(device)
    samples: Any = load_data(data, limit=limit)
    target: Any = options.model(model, place, samples, L2(0.0))
    bar = Bar("now", TimeRemainingColumn(), total=len(samples), show=not quiet, description="certificates")
    with terminal.kept(out), terminal.running(), bar:

        def step(done: int, total: int, results: dict[str, Any]) -> None:
            now = f"right {results['accuracy']['value']:.1%}, abstained {results['abstained']['value']:.1%}"
            bar.update(done, "certificates", f"{done} of {total} samples: {now}", now=now)

        found = run(
            target if out is None else model,  # a run is named after the MODEL
            samples,
            sigma=sigma,
            draws=draws,
            selection=selection,
            alpha=alpha,
            out=out,
            batch=batch,
            seed=seed,
            device=place,
            resume=resume,
            overwrite=overwrite,
            step=step,
        )
    if as_json:
        terminal.document({"kind": "certification", "model": model, "data": data, **found.results})
    if not quiet:
        terminal.people.print(_table(found.results))
        if found.path:
            for name in ("run.json", "report.html"):
                terminal.people.print(f"{name:<12} {found.path / name}", soft_wrap=True)


def _table(results: dict[str, Any]) -> Table:
    """Certified accuracy by radius."""
    table = Table(box=None, pad_edge=False)
    for heading in ("L2 radius", "certified accuracy", "95 % interval"):
        table.add_column(heading, justify="right")
    for row in results["certified"]:
        table.add_row(f"{row['radius']:g}", f"{row['value']:.1%}", f"{row['low']:.1%} to {row['high']:.1%}")
    table.caption = (
        f"{results['samples']} samples, {results['abstained']['value']:.1%} abstained; mean certified radius "
        f"{results['mean_radius']:.4g}, 0 for those that are wrong"
    )
    table.caption_justify = "left"
    return table
