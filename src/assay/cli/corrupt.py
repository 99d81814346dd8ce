"""``assay corrupt``: accuracy on corrupted images, and corrupted copies of a data set."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import TimeRemainingColumn

from assay.cli import options, terminal
from assay.cli.options import listed

_EVERY = "1,2,3,4,5"


class Layout(str, Enum):
    """How copies lie on a disk."""

    npy = "npy"
    folders = "folders"


class Table(str, Enum):
    """Whose parameters corruptions have."""

    imagenet = "imagenet"
    cifar = "cifar"


@terminal.guarded
def corrupt(
    model: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help="As of `assay evaluate`; none where only copies are wanted.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Clean images, as of `assay evaluate`; may be left out with --copies."),
    ] = None,
    copies: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Read images that were corrupted before: as CIFAR-10-C or ImageNet-C lie."),
    ] = None,
    corruptions: Annotated[
        str | None,
        typer.Option(
            metavar="LIST", help="Names or groups: common, extra, all, noise, blur, ...", show_default="common"
        ),
    ] = None,
    severities: Annotated[str, typer.Option(metavar="LIST", help="From 1 to 5.")] = _EVERY,
    table: Annotated[
        Table | None, typer.Option(help="Whose parameters.", show_default="by the size of the images")
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Errors are divided by these for mCE: alexnet, or another run's folder."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Run directory: settings, rows, pictures, report."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", file_okay=False, help="Write corrupted copies of the data here.")
    ] = None,
    layout: Annotated[
        Layout, typer.Option(help="How: arrays as CIFAR-10-C, or image folders as ImageNet-C.")
    ] = Layout.npy,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    chunk: Annotated[int | None, typer.Option(min=1, help="Images in a part; no influence on results.")] = None,
    device: options.Device = options.DeviceName.auto,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    fail_under: Annotated[
        float | None, typer.Option(min=0, max=1, metavar="SHARE", help="Exit with 1 when the mean accuracy is below.")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure accuracy on corrupted images by corruption and severity, with mCE beside a baseline; or write copies."""
    _check(model, data, copies, save, out, table, severities, resume=resume, overwrite=overwrite)
    from assay.data import load_data

    names = None if corruptions is None else listed(corruptions)
    data = None if data is None else options.canonical("data", data)
    place = options.device(device)
    samples: Any = None if data is None else load_data(data, limit=limit)
    chosen = None if table is None else table.value
    if save is not None:
        _save(samples, save, names, layout, chosen, seed, place, quiet=quiet)
    if model is None:
        return
    from assay.evaluation import folder
    from assay.evaluation.corrupted import corrupt as run
    from assay.models.load import recorded
    from assay.threats import Linf

    if out is not None:  # before anything is loaded
        folder.check(out, resume=resume, overwrite=overwrite)
    model = options.canonical("model", model)
    target: Any = model if samples is None else options.model(model, place, samples, Linf(0.0))
    with terminal.kept(out):
        found = run(
            target,
            samples,
            copies=copies,
            corruptions=names,
            severities=[_severity(each) for each in listed(severities)],
            table=chosen,
            baseline=baseline,
            out=out,
            limit=limit,
            seed=seed,
            chunk=chunk,
            device=None if device is options.DeviceName.auto else place,
            resume=resume,
            overwrite=overwrite,
            progress=not quiet,
            model_name=recorded(model),
            data_name=data,
        )
    if as_json:
        terminal.document({"kind": "corruptions", "path": str(out) if out else None, "model": model, **found.results})
    if not quiet:
        terminal.people.print(found.table(), soft_wrap=True)
        for name in ("run.json", "corruptions.png", "report.html") if out else ():
            terminal.people.print(f"{name:<15} {Path(str(out)) / name}", soft_wrap=True)
    if fail_under is not None and found.mean_accuracy < fail_under:
        terminal.panel("Below", f"The mean accuracy {found.mean_accuracy:.4f} is below {fail_under:g}.")
        raise typer.Exit(terminal.BELOW)


def _check(
    model: str | None,
    data: str | None,
    copies: Path | None,
    save: Path | None,
    out: Path | None,
    table: Table | None,
    severities: str,
    *,
    resume: bool,
    overwrite: bool,
) -> None:
    """Refuse options that contradict each other before anything is loaded."""
    if model is None and save is None:
        raise typer.BadParameter("give a MODEL to measure, or --save DIR to write copies", param_hint="MODEL")
    if data is None and (copies is None or save is not None):
        raise typer.BadParameter("needs clean images to corrupt", param_hint="--data")
    if copies is not None and table is not None and save is None:
        raise typer.BadParameter("copies are as they are: their parameters cannot be chosen", param_hint="--table")
    if model is None and out is not None:
        raise typer.BadParameter("keeps what is measured of a MODEL; copies go where --save says", param_hint="--out")
    if model is None and severities != _EVERY:
        raise typer.BadParameter("copies are always of all five", param_hint="--severities")
    if resume and overwrite:
        raise typer.BadParameter("--resume continues a run, --overwrite replaces it: give one of them")
    for name, given in (("--resume", resume), ("--overwrite", overwrite)):
        if given and out is None:
            raise typer.BadParameter("needs --out", param_hint=name)


def _severity(text: str) -> int:
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is no whole number", param_hint="--severities")
    return int(text)


def _save(
    samples: Any,
    path: Path,
    names: list[str] | None,
    layout: Layout,
    table: str | None,
    seed: int,
    device: str,
    *,
    quiet: bool,
) -> None:
    """Write copies, with a bar."""
    from assay.corruptions import select
    from assay.data.copying import write_copies
    from assay.evaluation.bar import Bar

    kinds = select("common" if names is None else names)
    total, done = 5 * len(kinds) * len(samples), 0
    bar = Bar(TimeRemainingColumn(), total=total, show=not quiet, description="writing")

    def told(name: str, count: int) -> None:
        nonlocal done
        done += count
        bar.update(done, name, f"{name}: {done} of {total} images")

    try:
        with terminal.running(), bar:
            write_copies(samples, path, kinds, layout=layout.value, table=table, seed=seed, device=device, told=told)
    except KeyboardInterrupt:
        terminal.panel("Interrupted", f"What is whole is kept in {path}. The same command again goes on.", "yellow")
        raise typer.Exit(terminal.INTERRUPTED) from None
    if not quiet:
        terminal.people.print(f"copies          {path}", soft_wrap=True)
