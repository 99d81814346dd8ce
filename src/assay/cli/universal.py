"""``assay universal``: one perturbation for all inputs, fitted on a part of the data and measured on the rest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from assay.cli import options, terminal
from assay.errors import GrammarError, InputError, ThreatError

if TYPE_CHECKING:
    from rich.progress import Progress

    from assay.data import Data
    from assay.threats import Threat
    from assay.universal import Fitting, Rate, Rates, Universal
    from assay.universal.folder import Folder


@terminal.guarded
def universal(
    model: options.Model,
    data: options.Data,
    threat: options.Threat = None,
    method: Annotated[str | None, typer.Option(help="sgd or deepfool.", show_default="sgd")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of it, such as epochs=20.")
    ] = None,
    target: Annotated[int | None, typer.Option(min=0, help="The class that all samples shall get.")] = None,
    fit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Fit on N samples drawn at random.", show_default="half")
    ] = None,
    test_data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Measure on these; on the rest of --data when left out.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option(metavar="FILE", dir_okay=False, help="Start at this saved perturbation.")
    ] = None,
    load: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Fit nothing: measure this saved perturbation on all data."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", file_okay=False, help="Where to keep perturbation, numbers, picture.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the perturbation in --out.")] = False,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fit one perturbation to many inputs, and measure how many others it fools."""
    of_fits: dict[str, Any] = {"--threat": threat, "--method": method, "--set": settings, "--target": target}
    of_fits |= {"--fit": fit, "--test-data": test_data, "--start": start, "--out": out}
    _check(of_fits, load, overwrite=overwrite)
    if load is not None:
        _measure(model, data, load, limit=limit, device=device, as_json=as_json, quiet=quiet)
        return
    if threat is None:
        raise ThreatError("a universal perturbation needs a threat: give --threat, for instance --threat linf:10/255.")
    from assay import grammar
    from assay.data import load_data
    from assay.universal import Universal, fitting, resolve, split
    from assay.universal.folder import Folder

    allowed, chosen = grammar.threat(threat), resolve(method or "sgd", dict(_settings(settings or [])))
    begun_at = None if start is None else Universal.load(start)
    folder = None if out is None else Folder(out)
    if folder:
        folder.check(overwrite=overwrite)
    model, data = options.canonical("model", model), options.canonical("data", data)
    samples = load_data(data, limit=limit)
    if test_data is None:
        seen, unseen = split(samples, max(1, len(samples) // 2) if fit is None else fit, seed=seed)
    else:
        unseen = load_data(options.canonical("data", test_data), limit=limit)
        seen = samples if fit is None or fit == len(samples) else split(samples, fit, seed=seed)[0]
    net = options.model(model, options.device(device), samples, allowed)
    _check_alike(samples, unseen, allowed)
    steps = fitting(
        net,
        seen,
        threat=allowed,
        method=chosen,
        target=target,
        seed=seed,
        start=begun_at,
        names=(model, data),
    )
    found, interrupted = _fit(steps, folder, net, (seen, unseen), quiet=quiet)
    _tell(found, folder, interrupted=interrupted, as_json=as_json, quiet=quiet)
    if interrupted:
        kept = f"It is in {out}; go on from it with --start" if out else "Give --out to keep it"
        terminal.panel("Interrupted", f"Stopped after {found.spent['passes']} passes. {kept}.", "yellow")
        raise typer.Exit(terminal.INTERRUPTED)


def _check(of_fits: dict[str, Any], load: Path | None, *, overwrite: bool) -> None:
    """Refuse options that contradict each other before anything is loaded."""
    if overwrite and of_fits["--out"] is None:
        raise typer.BadParameter("needs --out", param_hint="--overwrite")
    for name, given in of_fits.items():
        if load is not None and given:
            raise typer.BadParameter("--load fits nothing: leave it out", param_hint=name)


def _check_alike(samples: Data, unseen: Data, threat: Threat) -> None:
    """Hold that what is fitted on some samples can be measured on the others, before the fit."""
    import torch

    from assay.inputs import check_inputs

    (x, _, _), (other, _, _) = samples.batch(0, 1), unseen.batch(0, 1)
    if x.shape != other.shape:
        raise InputError(f"--data holds inputs of shape {tuple(x.shape[1:])}, --test-data of {tuple(other.shape[1:])}.")
    check_inputs(unseen.x if isinstance(unseen.x, torch.Tensor) else other, threat.bounds)


def _settings(texts: list[str]) -> Iterator[tuple[str, Any]]:
    """The settings by name, their values read."""
    from assay import grammar

    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise GrammarError(f"a setting is written name=value, for instance epochs=20; found {text!r}.")
        yield name.strip(), grammar.value(value)


def _fit(
    steps: Iterator[Fitting],
    folder: Folder | None,
    net: Any,
    data: tuple[Data, Data],
    *,
    quiet: bool,
) -> tuple[Universal, bool]:
    """Run the fit and measure what it found; after every pass, and when it is stopped, the folder has what there is."""
    found: Universal | None = None
    kept = 0
    try:
        with terminal.running(), _progress(quiet) as progress:
            task = progress.add_task("fitting", total=None, fooled="")
            for now in steps:
                if folder and found is None:
                    folder.clear()
                found = now.universal
                progress.update(task, completed=now.done, total=now.total, fooled=f"{now.fooled:.1%} fooled")
                if folder and now.passes > kept:
                    kept = now.passes
                    folder.keep(found, "running")
            assert found is not None  # every method takes a step
            progress.update(task, description="measuring")
            found = _measured(found, net, *data)
            if folder:
                folder.keep(found, "finished")
                folder.draw(found, net, data[1])
    except KeyboardInterrupt:
        if found is None:
            terminal.panel("Interrupted", "Stopped before the first step.", "yellow")
            raise typer.Exit(terminal.INTERRUPTED) from None
        if folder:
            folder.keep(found, "interrupted")
        return found, True
    return found, False


def _measured(found: Universal, net: Any, seen: Data, unseen: Data) -> Universal:
    """With the rates on both sets, and those of a random perturbation of the same size."""
    from assay.universal import Universal

    found = found.with_rates("fit", found.measure(net, seen)).with_rates("test", found.measure(net, unseen))
    random = Universal.random(found.threat, found.perturbation, seed=found.settings["seed"])
    return found.with_rates("random", random.measure(net, unseen))


def _measure(
    model: str, data: str, load: Path, *, limit: int | None, device: options.DeviceName, as_json: bool, quiet: bool
) -> None:
    """Measure a saved perturbation on all data."""
    from assay.data import load_data
    from assay.universal import Universal

    found = Universal.load(load)
    model, data = options.canonical("model", model), options.canonical("data", data)
    samples = load_data(data, limit=limit)
    net = options.model(model, options.device(device), samples, found.threat)
    with terminal.running():
        rates = found.measure(net, samples)
    if as_json:
        known = {"kind": "universal", "model": model, "data": data, "file": str(load)}
        terminal.document(known | {"measured": rates.as_dict(), "perturbation": found.as_dict()})
    if not quiet:
        table = _table(found)
        table.add_row("model, data", f"{model}, {data}, {rates.samples} samples")
        _add_rates(table, {"": rates})
        terminal.people.print(table, soft_wrap=True)


def _tell(found: Universal, folder: Folder | None, *, interrupted: bool, as_json: bool, quiet: bool) -> None:
    files = folder.files if folder else []
    if as_json:
        terminal.document(
            {"kind": "universal", **found.as_dict(), "interrupted": interrupted, "files": [str(path) for path in files]}
        )
    if quiet:
        return
    table, spent = _table(found), found.spent
    _add_rates(table, found.rates)
    table.add_row("passes", f"{spent['passes']} over {found.settings['samples']} samples")
    table.add_row("forwards, backwards", f"{spent['forwards']}, {spent['backwards']}")
    table.add_row("seconds", f"{spent['seconds']:.1f}")
    for path in files:
        table.add_row(path.suffix[1:], str(path))
    terminal.people.print(table, soft_wrap=True)


def _progress(quiet: bool) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[fooled]}"),
        TimeElapsedColumn(),
        console=terminal.people,
        transient=True,
        disable=quiet or not terminal.people.is_terminal,
    )


def _table(found: Universal) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    settings = found.settings
    table.add_row("threat", repr(found.threat))
    table.add_row("method", settings["method"])
    if settings["target"] is not None:
        table.add_row("target", str(settings["target"]))
    if "model" in settings:
        table.add_row("fitted on", f"{settings['model']}, {settings['data']}, {settings['samples']} samples")
    return table


def _add_rates(table: Table, measured: dict[str, Rates]) -> None:
    """The lines of what was measured; the name of the samples stands behind each."""
    for name, rates in measured.items():
        where = f", {name}" if name else ""
        table.add_row(f"fooling rate{where}", _words(rates.fooling))
        if rates.target is not None:
            table.add_row(f"target reached{where}", _words(rates.target))
    for name, rates in measured.items():
        where = f", {name}" if name else ""
        table.add_row(f"accuracy{where}", f"{rates.clean_accuracy.value:.1%} before, {_words(rates.accuracy)} after")


def _words(rate: Rate) -> str:
    return f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}]"
