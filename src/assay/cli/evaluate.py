"""``assay evaluate``: a suite of attacks on one model, and its robust accuracy."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli import options, terminal
from assay.cli.required import Required

if TYPE_CHECKING:
    from assay.attacks import Attack
    from assay.evaluation import Evaluation
    from assay.threats import Threat


@terminal.guarded
def evaluate(
    model: options.Model,
    data: options.Data,
    threat: options.Threat,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="SUITE",
            help="A suite by name or a .toml file.",
            show_default="standard; minimal where the threat has no number",
        ),
    ] = None,
    attack: Annotated[
        list[str] | None,
        typer.Option(metavar="ATTACK", help="In place of a suite: an attack; may be repeated, in this order."),
    ] = None,
    targeted: options.Targeted = None,
    defense: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DEFENSE",
            help="A defense to put around the model, such as 'RandomResizePad()'; every attack is then run without and "
            "with knowledge of it. May be repeated: the first is nearest to the input.",
        ),
    ] = None,
    surrogate: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="With --defense: what attacks attack that do not know of it; else the bare model."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", file_okay=False, help="Run directory: settings, rows and report.")
    ] = None,
    access: options.Access = None,
    top_k: options.TopK = None,
    decimals: options.Decimals = None,
    limit: options.Limit = None,
    max_queries: options.MaxQueries = None,
    total_queries: options.TotalQueries = None,
    budget: Annotated[
        float,
        typer.Option(
            metavar="TIMES",
            help="How many times its usual passes the suite may spend: 0.1 for a quick look, 10 for a paper.",
        ),
    ] = 1.0,
    seed: options.Seed = 0,
    chunk: Annotated[int | None, typer.Option(min=1, help="Samples in a shard; no influence on results.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="Processes, each with a device of its own.")] = 1,
    device: options.Device = options.DeviceName.auto,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    save_adv: Annotated[bool, typer.Option("--save-adv", help="Keep the adversarial inputs in --out.")] = False,
    fail_under: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE[@EPS]",
            help="Exit with 1 when robust accuracy is below this share; without a budget: the accuracy at this eps.",
        ),
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure the robust accuracy of a model under a suite of attacks.

    With a threat without a number (linf) every attack looks for the smallest perturbation of every sample: the result
    is their distribution, which is robust accuracy at every eps.
    """
    _check(suite, attack, out, resume=resume, overwrite=overwrite, save_adv=save_adv)
    from assay import grammar
    from assay.data import load_data
    from assay.evaluation import evaluate as run
    from assay.evaluation import folder, load_suite, suites
    from assay.evaluation.ranks import Group
    from assay.models.defended import read_defense, written
    from assay.models.load import recorded
    from assay.oracle import granted_access

    assert threat is not None  # typer requires it
    allowed = grammar.threat(threat)
    required = Required.read(fail_under, allowed) if fail_under is not None else None
    stages: str | list[tuple[str, Attack]] = (
        _stages(attack, allowed) if attack else suite or suites.default_suite(allowed)
    )
    known = load_suite(stages, allowed, budget)
    defenses = [read_defense(each) for each in defense or ()]
    if out is not None and Group.here().rank == 0:  # before anything is loaded; other ranks come to a run that began
        folder.check(out, resume=resume, overwrite=overwrite)
    model = options.view(options.canonical("model", model), access, top_k, decimals)
    data = options.canonical("data", data)
    samples: Any = load_data(data, limit=limit)
    place = options.device(device)
    counted = devices == 1 and total_queries is not None  # the run's own look at the model is all that it may cost
    ready = options.unasked if counted else options.model
    target: Any = ready(written(model, defenses) if defenses else model, place, samples, allowed)
    suites.fit(known, classes=sys.maxsize, access=granted_access(target))  # a usage error when nothing is left
    target = target.model if defenses else target  # `run` puts them around it
    if devices > 1:  # every process loads its own; here they were only tried
        _check_devices(device)
        target, samples = model, data
    with terminal.kept(out), terminal.running():
        evaluation = run(
            target,
            samples,
            threat=allowed,
            suite=stages,
            targeted=targeted,
            defense=defenses or None,
            surrogate=surrogate,
            out=out,
            limit=limit,
            max_queries=max_queries,
            total_queries=total_queries,
            budget=budget,
            seed=seed,
            chunk=chunk,
            devices=devices,
            device=None if devices > 1 or device is options.DeviceName.auto else place,
            resume=resume,
            overwrite=overwrite,
            save_adv=save_adv,
            progress=not quiet,
            model_name=recorded(model),
            data_name=data,
        )
    if Group.here().rank == 0:
        _tell(evaluation, out, as_json=as_json, quiet=quiet)
    if required is not None:
        required.check(evaluation)


def _check(
    suite: str | None, attack: list[str] | None, out: Path | None, *, resume: bool, overwrite: bool, save_adv: bool
) -> None:
    """Refuse options that contradict each other before anything is loaded."""
    if suite is not None and attack:
        raise typer.BadParameter("give a suite or attacks, not both", param_hint="--attack")
    if resume and overwrite:
        raise typer.BadParameter("--resume continues a run, --overwrite replaces it: give one of them")
    for name, given in (("--resume", resume), ("--overwrite", overwrite), ("--save-adv", save_adv)):
        if given and out is None:
            raise typer.BadParameter("needs --out", param_hint=name)


def _stages(attacks: list[str], threat: Threat) -> list[tuple[str, Attack]]:
    """A stage for each attack, named after it; the same name again is numbered."""
    from assay import grammar

    found: list[tuple[str, Attack]] = []
    for text in attacks:
        built = grammar.attack(text, threat)
        name = type(built).__name__.lower()
        taken = {other for other, _ in found}
        number = 2
        while name in taken:
            name, number = f"{type(built).__name__.lower()}-{number}", number + 1
        found.append((name, built))
    return found


def _check_devices(device: options.DeviceName) -> None:
    import torch

    if device is options.DeviceName.cpu and torch.cuda.is_available():
        raise typer.BadParameter("several processes take the graphics cards; leave it out", param_hint="--device cpu")


def _tell(evaluation: Evaluation, out: Path | None, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        settings = evaluation.store.run["settings"]
        terminal.document({"path": str(out) if out else None, "settings": settings, **evaluation.results})
    if not quiet:
        terminal.people.print(evaluation.table(), soft_wrap=True)
    if evaluation.store.run["state"] == "stopped":
        spent = evaluation.store.run["queries"]["spent"]
        kept = "With --out DIR a run can go on later." if out is None else f"All that was found is kept in {out}."
        words = f"{spent:,} queries were asked; one more would exceed --total-queries. {kept}"
        terminal.panel("Stopped", f"{words} Continue with --resume and a larger total.", "yellow")
    if out is not None and not quiet:
        for path in (out / "run.json", out / "report.html"):
            terminal.people.print(f"{path.name:<12} {path}", soft_wrap=True)
