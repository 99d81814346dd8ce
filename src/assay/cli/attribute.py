"""``assay attribute``: how much explanations change under attack while decisions stay."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import TimeRemainingColumn
from rich.table import Table

from assay.cli import options, terminal
from assay.errors import DataError, ThreatError

if TYPE_CHECKING:
    from torch import Tensor


@terminal.guarded
def attribute(
    model: options.Model,
    data: options.Data,
    threat: options.Threat = None,
    attribution: Annotated[
        str, typer.Option(help="How decisions are explained. `assay list attributions` names the ways.")
    ] = "Gradient",
    attack: Annotated[
        str | None, typer.Option(help="The search, or the call that builds it.", show_default="PGD(steps=50)")
    ] = None,
    change: Annotated[
        str, typer.Option(help="What it does to the explanation. `assay list changes` names the ways.")
    ] = "TopK",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the attack, such as steps=100."),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option("--top-k", min=1, help="Places of the top-k intersection.", show_default="one in eight"),
    ] = None,
    beta: Annotated[
        float, typer.Option(min=0, help="Of the softplus that gradients are taken of; 0 follows the model as it is.")
    ] = 50.0,
    masks: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", exists=True, dir_okay=False, help="Where maps should lie, (n, h, w)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the numbers and the page.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    fail_under: Annotated[
        float | None, typer.Option(min=0, max=1, help="Least mean top-k intersection; below it the exit code is 1.")
    ] = None,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    batch: Annotated[int, typer.Option(min=1, help="Samples of a part; the results do not depend on it.")] = 64,
    device: options.Device = options.DeviceName.auto,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Attack the explanations of right decisions, and measure them beside random moves of the same size."""
    if threat is None and (attack is None or "(" not in attack):
        raise ThreatError("explanations are attacked under a threat: give --threat, for instance --threat linf:8/255.")
    if out is None and (resume or overwrite):
        raise typer.BadParameter("there is no folder to continue or replace: give --out")
    from assay import grammar
    from assay.attributional import attribute as run
    from assay.attributional.attribute import STEPS, changed_by, explained_by
    from assay.attributional.summary import WEAK, weak
    from assay.data import load_data
    from assay.evaluation import folder
    from assay.evaluation.bar import Bar

    if out is not None:  # before anything is loaded
        folder.check(out, resume=resume, overwrite=overwrite)
    given = list(settings or ())
    if attack is None and not any(each.partition("=")[0].strip() == "steps" for each in given):
        given.append(f"steps={STEPS}")
    search = grammar.attack(attack or "pgd", threat, given)
    explained, wanted = explained_by(attribution), changed_by(change)
    shown = None if masks is None else _masks(masks)
    model, data = options.canonical("model", model), options.canonical("data", data)
    samples, place = load_data(data, limit=limit), options.device(device)
    options.model(model, place, samples, search.threat)
    bar = Bar("now", TimeRemainingColumn(), total=len(samples), show=not quiet, description="explanations")
    with terminal.kept(out), terminal.running(), bar:

        def step(done: int, total: int, results: dict[str, Any]) -> None:
            left = results["metrics"].get("top_k", {}).get("attack")
            now = f"top-k intersection {left['value']:.1%}" if left else "none classified rightly"
            bar.update(done, "explanations", f"{done} of {total} samples: {now}", now=now)

        found = run(
            model,
            samples,
            attack=search,
            attribution=explained,
            change=wanted,
            k=k,
            beta=beta or None,
            masks=shown,
            out=out,
            batch=batch,
            seed=seed,
            device=place,
            resume=resume,
            overwrite=overwrite,
            step=step,
        )
    if as_json:
        terminal.document(
            {"kind": "attributions", "model": model, "data": data, "out": out and str(out), **found.results}
        )
    if not quiet:
        terminal.people.print(_table(found.results))
        terminal.people.print(_words(found.results))
        if weak(found.results):
            terminal.panel("Weak attack", WEAK, "yellow")
        if found.path:
            for name in ("run.json", "report.html"):
                terminal.people.print(f"{name:<12} {found.path / name}", soft_wrap=True)
    _judge(found.results, fail_under)


def _judge(results: dict[str, Any], least: float | None) -> None:
    """End with exit code 1 where the maps hold less than is required."""
    held = results["metrics"].get("top_k", {}).get("attack")
    if least is not None and held is not None and held["value"] < least:
        terminal.panel("Below --fail-under", f"The top-k intersection is {held['value']:.4f}; {least:g} is required.")
        raise typer.Exit(terminal.BELOW)


def _masks(path: Path) -> Tensor:
    """The masks of a file.

    Raises:
        DataError: it holds none.
    """
    import numpy as np
    import torch

    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no .npy file of masks: {error}") from error
    if not isinstance(found, np.ndarray) or found.ndim != 3:
        raise DataError(f"masks are (n, h, w), one for each sample; {path} holds something else.")
    return torch.from_numpy(found.astype(bool))


def _table(results: dict[str, Any]) -> Table:
    from assay.attributional.comparison import METRICS

    table = Table(box=None, pad_edge=False)
    for heading in ("metric", "unchanged", "attack", "95 % interval", "random"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for key, row in results["metrics"].items():
        attack, random = row["attack"], row["random"]
        plain = row["before"]["value"] if row.get("before") else METRICS[key].unchanged
        between = f"{attack['low']:.3f} to {attack['high']:.3f}" if attack and attack["low"] is not None else "-"
        cells = [f"{each['value']:.3f}" if each else "-" for each in (attack, random)]
        table.add_row(METRICS[key].name, f"{plain:.3f}", cells[0], between, cells[1])
    return table


def _words(results: dict[str, Any]) -> str:
    """What the table is of."""
    begun = f"{results['right']} of {results['samples']} samples are classified rightly"
    if not results["right"]:
        return f"{begun}: there is nothing to explain."
    return (
        f"{begun}. Decisions kept: {results['kept']:.1%} under attack, {results['kept_at_random']:.1%} at random; the "
        f"others do not count. Passes a sample: {results['forwards']:.0f} forward, {results['backwards']:.0f} backward."
    )
