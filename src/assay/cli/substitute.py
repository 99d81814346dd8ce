"""``assay substitute``: a network trained on what a model answers, to be attacked in its place."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from assay.cli import fits, options, terminal
from assay.errors import StoreError

if TYPE_CHECKING:
    from assay.substitute import Substitute


@terminal.guarded
def substitute(
    model: options.Model,
    data: options.Data,
    out: Annotated[Path, typer.Option(metavar="DIR", file_okay=False, help="Where to keep it: a MODEL from then on.")],
    max_queries: Annotated[
        int, typer.Option("--max-queries", min=1, metavar="N", help="Inputs that the model may be asked about, in all.")
    ],
    network: Annotated[
        str | None,
        typer.Option(
            metavar="NETWORK", help="What is trained, such as FashionCNN(channels=16).", show_default="by size"
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=0, help="How often inputs are made along the substitute's slopes.")] = 6,
    held_out: Annotated[
        int, typer.Option("--held-out", min=0, metavar="N", help="Queries that measure how far both agree.")
    ] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of it, such as lam=0.05.")
    ] = None,
    bounds: Annotated[
        tuple[float, float], typer.Option(metavar="LOW HIGH", help="Smallest and largest valid input value.")
    ] = (0.0, 1.0),
    overwrite: fits.Overwrite = False,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a network on a model's decisions, within a number of queries: a surrogate for --attack Transfer."""
    _check(out, overwrite=overwrite)
    from assay.data import load_data
    from assay.models import load_model
    from assay.substitute import fit_substitute
    from assay.substitute.fit import starting_network

    given = fits.settings(settings)
    of_options = {"target", "data", "max_queries", "network", "rounds", "held_out", "bounds", "seed", "progress"}
    known = [name for name in inspect.signature(fit_substitute).parameters if name not in of_options]
    if unknown := [name for name in given if name not in known]:
        raise typer.BadParameter(f"there is no {unknown[0]!r}; there are {', '.join(known)}", param_hint="--set")
    model, data = options.canonical("model", model), options.canonical("data", data)
    samples = load_data(data, limit=limit)
    target = load_model(model, device=options.device(device))
    starting_network(network, samples.batch(0, 1)[0], seed)  # before a question is asked
    last: Substitute | None = None
    with terminal.running(), terminal.bar("queries, {task.fields[agreement]}", quiet=quiet, elapsed=True) as progress:
        task = progress.add_task("training", total=max_queries, agreement="")

        def told(now: Substitute) -> None:
            nonlocal last
            last = now
            now.save(out)
            agreement = f"agrees on {now.rounds[-1]['agreement']:.1%} of what it knows"
            progress.update(task, completed=now.queries, agreement=agreement)

        try:
            found = fit_substitute(
                target,
                samples,
                max_queries=max_queries,
                network=network,
                rounds=rounds,
                held_out=held_out,
                bounds=bounds,
                seed=seed,
                progress=told,
                **given,
            )
        except KeyboardInterrupt:
            kept = f"The substitute of the last round is in {out}" if last else "Nothing was trained"
            terminal.panel("Interrupted", f"{kept}.", "yellow")
            raise typer.Exit(terminal.INTERRUPTED) from None
        found.settings["target"] = model
        found.save(out)
    if as_json:
        terminal.document({**found.as_dict(), "network": found.network, "folder": str(out)})
    if not quiet:
        terminal.people.print(_table(found, out), soft_wrap=True)


def _check(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder with something else in it, before a question is asked.

    Raises:
        StoreError: it holds other files, holds a network and is not to be replaced, or cannot be written.
    """
    names = {path.name for path in out.iterdir() if not path.name.startswith(".")} if out.is_dir() else set()
    if names - {"model.json", "model.safetensors"}:
        raise StoreError(f"{out} holds other files than a network. Choose another --out.")
    if names and not overwrite:
        raise StoreError(f"{out} holds a network already. Replace it with --overwrite, or choose another --out.")
    options.writable(out / "model.json", "--out")


def _table(found: Substitute, out: Path) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    last = found.rounds[-1]
    table.add_row("network", str(found.network))
    table.add_row("target, data", f"{found.settings['target']}, {found.settings['data']}")
    table.add_row("queries", f"{found.queries} of {found.settings['max_queries']}")
    table.add_row("agreement", f"{last['agreement']:.1%} on the {last['samples']} inputs that it learned")
    if found.agreement is not None:
        table.add_row("", f"{found.agreement:.1%} on {found.settings['held_out']} others")
    table.add_row("folder", str(out))
    return table
