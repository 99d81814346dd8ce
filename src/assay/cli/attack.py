"""``assay attack``: one attack on one model."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from assay.cli import options, terminal
from assay.errors import AssayError, QueriesSpent, SettingError, StoreError

if TYPE_CHECKING:
    from assay.cli import search
    from assay.cli.pictures import Picture
    from assay.data import Data
    from assay.models import Metered
    from assay.threats import Threat as AnyThreat

_SEARCH_FORMS = "pgd, or the call that builds it: PGD(threat=Linf(8/255), steps=100)"


@terminal.guarded
def attack(
    model: options.Model,
    data: options.Data,
    attack: Annotated[str, typer.Option(help=f"{_SEARCH_FORMS}. `assay list attacks` names them.")],
    threat: options.Threat = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of it, such as steps=100.")
    ] = None,
    targeted: options.Targeted = None,
    eot: Annotated[
        str | None,
        typer.Option(
            metavar="EOT", help="Random views to search and judge on: EOT(Rotate(20), Noise(0.05), draws=10)."
        ),
    ] = None,
    access: options.Access = None,
    top_k: options.TopK = None,
    decimals: options.Decimals = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    max_queries: Annotated[int | None, typer.Option(min=1, help="Forward passes allowed per sample.")] = None,
    total_queries: options.TotalQueries = None,
    batch: Annotated[int, typer.Option(min=1, help="Samples in a chunk; the results do not depend on it.")] = 256,
    device: options.Device = options.DeviceName.auto,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE.npz", dir_okay=False, help="Where to save the adversarial inputs.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", dir_okay=False, help="Where to draw the first moves that succeed."),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run one attack on a model and show what it finds."""
    goal = _checked(attack, threat, targeted, save, picture)
    from assay import grammar
    from assay.cli import search
    from assay.data import load_data
    from assay.evaluation import aims
    from assay.models import Metered
    from assay.models.load import recorded

    aims.check(goal)
    built = grammar.attack(attack, threat, settings or ())
    views = None if eot is None else grammar.eot(eot)
    model = options.view(options.canonical("model", model), access, top_k, decimals)
    data = options.canonical("data", data)
    samples = load_data(data, limit=limit)
    shown = _shown(picture, built.threat, samples)
    place = options.device(device)
    target = Metered(options.unasked(model, place, samples, built.threat), total_queries)
    options.tried(target, model, place, samples)
    search.check_access(target, built, goal)

    started = time.perf_counter()
    steps = search.search(
        target,
        samples,
        built,
        goal=goal,
        seed=seed,
        max_queries=max_queries,
        batch=batch,
        device=place,
        eot=views,
        keep_moves=shown is not None,
    )
    chunks, ended = _gathered(steps, target, samples, type(built).__name__, shown, quiet=quiet)
    if not chunks:
        _nothing(ended is not None, goal)
    columns = search.joined(chunks)
    unsaved = _written(save, "--save", lambda: search.save(save, columns)) if save else None
    undrawn = _written(picture, "--picture", shown.write) if picture and shown and shown.moved else None
    found = {
        "kind": "attack",
        "model": recorded(model),
        "data": data,
        "attack": repr(built),
        "eot": None if views is None else repr(views),
        "goal": goal,
        "seed": seed,
        **search.summary(columns),
        "queries": None if built.threat.eps is None else search.queries(columns, max_queries),
        "asked": target.spent,
        "stopped": target.exhausted,
        "seconds": time.perf_counter() - started,
        "interrupted": isinstance(ended, KeyboardInterrupt),
        "saved": str(save) if save and not unsaved else None,
        "picture": str(picture) if shown and shown.moved and not undrawn else None,
    }
    if as_json:
        terminal.document(found)
    if not quiet:
        terminal.people.print(_table(found))
        if shown and not shown.moved:
            terminal.people.print(f"No picture: no sample was moved, so {picture} was not written.")
    if problem := unsaved or undrawn:
        raise problem
    _end(ended, target, len(samples), found["samples"], save)


def _gathered(
    steps: Iterator[search.Columns], target: Metered, samples: Data, name: str, shown: Picture | None, *, quiet: bool
) -> tuple[list[search.Columns], BaseException | None]:
    """What the search gives, chunk by chunk, and what ended it before its time; nothing is lost with the error."""
    chunks: list[search.Columns] = []
    ended: BaseException | None = None
    with terminal.running(), terminal.bar("{task.fields[won]}", quiet=quiet, elapsed=True, left=True) as progress:
        task = progress.add_task(name, total=len(samples), won="")
        try:
            for columns in steps:
                if shown:
                    shown.take(columns)
                chunks.append(columns)
                done = sum(len(chunk["y"]) for chunk in chunks)
                won = sum(int((chunk["success"] & chunk["begun"]).sum()) for chunk in chunks)
                progress.update(task, completed=done, won=f"{won} succeeded")
                if target.exhausted:
                    break
        except KeyboardInterrupt as error:
            ended = error
        except AssayError as error:
            if not chunks:
                raise
            ended = error
    return chunks, ended


def _end(ended: BaseException | None, target: Metered, every: int, begun: int, save: Path | None) -> None:
    """Say why the search ended before its time, where it did."""
    kept = f"their adversarial inputs are in {save}" if save else "give --save to keep adversarial inputs"
    if target.exhausted:
        words = f"{target.spent:,} queries were asked; one more would exceed --total-queries."
        terminal.panel("Stopped", f"{words} {begun} of {every} samples were begun.", "yellow")
    if ended is None or isinstance(ended, QueriesSpent):
        return
    how = "Interrupted" if isinstance(ended, KeyboardInterrupt) else "Stopped"
    terminal.panel(how, f"Stopped after {begun} of {every} samples; {kept}.", "yellow")
    if isinstance(ended, AssayError):
        raise terminal.RunError(ended)
    raise typer.Exit(terminal.INTERRUPTED)


def _checked(attack: str, threat: str | None, targeted: str | None, save: Path | None, picture: Path | None) -> str:
    """Find out what is cheap to find out before torch is imported; returns the goal."""
    options.has_threat(attack, threat)
    for path, ending, option in ((save, ".npz", "--save"), (picture, ".png", "--picture")):
        if path and path.suffix != ending:
            raise typer.BadParameter(f"{path} must end in {ending}", param_hint=option)
        if path:
            options.writable(path, option)
    return targeted or "untargeted"


def _shown(path: Path | None, threat: AnyThreat, samples: Data) -> Picture | None:
    """What collects samples for the picture, where one is asked for."""
    if path is None:
        return None
    from assay.cli.pictures import Picture

    return Picture(path, threat, samples)


def _written(path: Path, option: str, write: Callable[[], object]) -> StoreError | None:
    """Write the file of an option; what hinders it is returned, so that the numbers are shown before it."""
    try:
        write()
    except StoreError as error:
        reason = getattr(error.__cause__, "strerror", None) or error
        return StoreError(
            f"{path} could not be written ({reason}): only the numbers above are left. Free some space or choose "
            f"another {option}, and run it again."
        )
    return None


def _nothing(interrupted: bool, goal: str) -> None:
    if interrupted:
        terminal.panel("Interrupted", "Stopped before the first chunk was done; a smaller --batch helps.", "yellow")
        raise typer.Exit(terminal.INTERRUPTED)
    raise SettingError(f"nothing to attack: every sample is of the class {goal} already.")


def _table(found: dict[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rate = "-" if found["success_rate"] is None else f"{found['success_rate']:.1%}"
    median, mean = found["distance"]["median"], found["distance"]["mean"]
    table.add_row("attack", found["attack"])
    if found["eot"]:
        table.add_row("on views", found["eot"])
    table.add_row("model, data", f"{found['model']}, {found['data']}, {found['samples']} samples")
    table.add_row("goal", found["goal"])
    table.add_row("accuracy before", f"{found['clean_accuracy']:.1%}")
    table.add_row("accuracy after", f"{found['accuracy']:.1%}")
    table.add_row("success rate", f"{rate} ({found['succeeded']} of {found['begun']})")
    table.add_row("distance", "-" if median is None else f"median {median:.4g}, mean {mean:.4g}")
    table.add_row("forwards a sample", f"{found['forwards']:.1f}")
    table.add_row("backwards a sample", f"{found['backwards']:.1f}")
    if found["queries"]:
        from assay.evaluation.text import queries

        table.add_row("queries", queries("successes", found["queries"]))
    table.add_row("seconds", f"{found['seconds']:.1f}")
    if found["saved"]:
        table.add_row("saved", found["saved"])
    if found["picture"]:
        table.add_row("picture", found["picture"])
    return table
