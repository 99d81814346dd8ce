"""What ``assay universal`` and ``assay patch`` share: samples to fit and to measure on, the run, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.table import Table

from assay.cli import options, terminal
from assay.errors import GrammarError, InputError

if TYPE_CHECKING:
    from assay.data import Data
    from assay.universal import Fitting, Rate, Rates
    from assay.universal.fitted import Fitted
    from assay.universal.folder import Folder

Target = Annotated[int | None, typer.Option(min=0, help="The class that all samples shall get.")]
Fit = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Fit on N samples drawn at random.", show_default="half")
]
TestData = Annotated[
    str | None, typer.Option(metavar="DATA", help="Measure on these; on the rest of --data when left out.")
]
Start = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Start at this saved one: its file, or the folder of its run.")
]
Load = Annotated[
    Path | None,
    typer.Option(metavar="PATH", help="Fit nothing: measure this saved one (file or folder) on all data."),
]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", file_okay=False, help="Where to keep what is fitted, numbers, pictures.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what --out holds.")]

F = TypeVar("F", bound="Fitted")


def check(of_fits: dict[str, Any], load: Path | None, *, overwrite: bool) -> None:
    """Refuse options that contradict each other before anything is loaded."""
    if overwrite and of_fits["--out"] is None:
        raise typer.BadParameter("needs --out", param_hint="--overwrite")
    for name, given in of_fits.items():
        if load is not None and given:
            raise typer.BadParameter("--load fits nothing: leave it out", param_hint=name)


def settings(texts: list[str] | None) -> dict[str, Any]:
    """The settings by name, their values read.

    Raises:
        GrammarError: one is not written as name=value.
    """
    from assay import grammar

    found = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise GrammarError(f"a setting is written name=value, for instance batch=20; found {text!r}.")
        found[name.strip()] = grammar.value(value)
    return found


def folder(out: Path | None, kind: type[Fitted], *, overwrite: bool) -> Folder | None:
    """The folder of --out, checked."""
    from assay.universal.folder import Folder

    if out is None:
        return None
    found = Folder(out, kind)
    found.check(overwrite=overwrite)
    return found


def samples(data: str, test_data: str | None, fit: int | None, limit: int | None, seed: int) -> tuple[Data, Data, Data]:
    """All samples of --data, those to fit on, and those to measure on."""
    from assay.data import load_data
    from assay.universal import split

    every = load_data(data, limit=limit)
    if test_data is None:
        return every, *split(every, max(1, len(every) // 2) if fit is None else fit, seed=seed)
    unseen = load_data(options.canonical("data", test_data), limit=limit)
    return every, every if fit is None or fit == len(every) else split(every, fit, seed=seed)[0], unseen


def check_alike(every: Data, unseen: Data, bounds: tuple[float, float]) -> None:
    """Hold that what is fitted on some samples can be measured on the others, before the fit.

    Raises:
        InputError: it cannot.
    """
    import torch

    from assay.inputs import check_inputs

    (x, _, _), (other, _, _) = every.batch(0, 1), unseen.batch(0, 1)
    if x.shape != other.shape:
        raise InputError(f"--data holds inputs of shape {tuple(x.shape[1:])}, --test-data of {tuple(other.shape[1:])}.")
    check_inputs(unseen.x if isinstance(unseen.x, torch.Tensor) else other, bounds)


def run(
    steps: Iterator[Fitting[F]], kept: Folder | None, net: Any, data: tuple[Data, Data], *, quiet: bool
) -> tuple[F, bool]:
    """Run the fit and measure what it found; after every pass, and when it is stopped, the folder has what there is."""
    found: F | None = None
    passes = 0
    try:
        with terminal.running(), terminal.bar("{task.fields[fooled]}", quiet=quiet, elapsed=True) as progress:
            task = progress.add_task("fitting", total=None, fooled="")
            for now in steps:
                if kept and found is None:
                    kept.clear()
                found = now.universal
                progress.update(task, completed=now.done, total=now.total, fooled=f"{now.fooled:.1%} fooled")
                if kept and now.passes > passes:
                    passes = now.passes
                    kept.keep(found, "running")
            assert found is not None  # every method takes a step
            progress.update(task, description="measuring")
            found = measured(found, net, *data)
            if kept:
                kept.keep(found, "finished")
                kept.draw(found, net, data[1])
    except KeyboardInterrupt:
        if found is None:
            terminal.panel("Interrupted", "Stopped before the first step.", "yellow")
            raise typer.Exit(terminal.INTERRUPTED) from None
        if kept:
            kept.keep(found, "interrupted")
        return found, True
    return found, False


def measured(found: F, net: Any, seen: Data, unseen: Data) -> F:
    """With the rates on both sets, and those of a random one of the same size."""
    found = found.with_rates("fit", found.measure(net, seen)).with_rates("test", found.measure(net, unseen))
    return found.with_rates("random", found.baseline().measure(net, unseen))


def end(
    found: F,
    interrupted: bool,
    kept: Folder | None,
    describe: Callable[[Table, F], None],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Say what was found, and end as it came to its end."""
    files = kept.files if kept else []
    if as_json:
        told = {"interrupted": interrupted, "files": [str(path) for path in files]}
        terminal.document({"kind": found.kind, **found.as_dict(), **told})
    if not quiet:
        table, spent = _table(found, describe), found.spent
        _add_rates(table, found.rates)
        table.add_row("passes", f"{spent['passes']} over {found.settings['samples']} samples")
        table.add_row("forwards, backwards", f"{spent['forwards']}, {spent['backwards']}")
        table.add_row("seconds", f"{spent['seconds']:.1f}")
        for path in files:
            table.add_row(path.suffix[1:], str(path))
        terminal.people.print(table, soft_wrap=True)
    if interrupted:
        where = f"It is in {kept.path}; go on from it with --start" if kept else "Give --out to keep it"
        terminal.panel("Interrupted", f"Stopped after {found.spent['passes']} passes. {where}.", "yellow")
        raise typer.Exit(terminal.INTERRUPTED)


def measure_saved(
    found: F,
    path: Path,
    model: str,
    data: str,
    describe: Callable[[Table, F], None],
    limit: int | None,
    device: options.DeviceName,
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure a saved one on all of --data."""
    from assay.data import load_data

    known = {"model": options.canonical("model", model), "data": options.canonical("data", data), "file": str(path)}
    samples = load_data(known["data"], limit=limit)
    net = options.model(known["model"], options.device(device), samples, found.allowed)
    with terminal.running():
        rates = found.measure(net, samples)
    if as_json:
        told = {"measured": rates.as_dict(), found.part: found.as_dict()}
        terminal.document({"kind": found.kind, **known, **told})
    if not quiet:
        table = _table(found, describe)
        table.add_row("model, data", f"{known['model']}, {known['data']}, {rates.samples} samples")
        _add_rates(table, {"": rates})
        terminal.people.print(table, soft_wrap=True)


def _table(found: F, describe: Callable[[Table, F], None]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    settings = found.settings
    describe(table, found)
    table.add_row("method", settings["method"])
    if settings["target"] is not None:
        table.add_row("target", str(settings["target"]))
    if "model" in settings:
        table.add_row("fitted on", f"{settings['model']}, {settings['data']}, {settings['samples']} samples")
    return table


def _add_rates(table: Table, rates: dict[str, Rates]) -> None:
    """The lines of what was measured; the name of the samples stands behind each."""
    for name, each in rates.items():
        where = f", {name}" if name else ""
        table.add_row(f"fooling rate{where}", _words(each.fooling))
        if each.target is not None:
            table.add_row(f"target reached{where}", _words(each.target))
    for name, each in rates.items():
        where = f", {name}" if name else ""
        table.add_row(f"accuracy{where}", f"{each.clean_accuracy.value:.1%} before, {_words(each.accuracy)} after")


def _words(rate: Rate) -> str:
    return f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}]"
