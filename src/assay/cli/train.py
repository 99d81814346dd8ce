"""``assay train``: a network trained by a recipe, on one device or many, in a folder that can be continued."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import options, processes, steps, terminal

if TYPE_CHECKING:
    from assay.training import Training


@terminal.guarded
def train(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="NETWORK",
            help="A network such as 'PreActResNet18(classes=10)' (`assay list networks`), package.module:callable, or "
            "a MODEL whose training goes on.",
        ),
    ],
    data: options.Data,
    recipe: Annotated[str, typer.Option(metavar="RECIPE", help="standard, pgdat, trades: `assay list recipes`.")],
    threat: Annotated[
        str | None,
        typer.Option(metavar="THREAT", help="What to defend against, and to measure under: linf:8/255, l2:0.5."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the recipe: beta=6, attack.steps=7."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data.")] = 10,
    batch: steps.Batch = 128,
    optimizer: steps.Optimizer = None,
    schedule: steps.Schedule = None,
    average: steps.Average = None,
    augment: steps.Augment = None,
    label_smoothing: Annotated[
        float, typer.Option(help="Share of each target spread over all classes.", rich_help_panel=steps.STEPS)
    ] = 0.0,
    clip: Annotated[
        float | None,
        typer.Option(help="Largest norm of the gradient.", show_default="none", rich_help_panel=steps.STEPS),
    ] = None,
    warmup: Annotated[
        float,
        typer.Option(metavar="EPOCHS", help="Epochs over which eps grows to its size.", rich_help_panel=steps.STEPS),
    ] = 0.0,
    extra: Annotated[
        str | None,
        typer.Option(metavar="DATA", help="Further data, for instance synthetic.", rich_help_panel=steps.STEPS),
    ] = None,
    extra_share: Annotated[
        float, typer.Option(metavar="SHARE", help="Their share of each batch.", rich_help_panel=steps.STEPS)
    ] = 0.0,
    precision: Annotated[
        str, typer.Option(help="32-true, bf16-mixed or 64-true.", rich_help_panel=steps.SPEED)
    ] = "32-true",
    channels_last: Annotated[
        bool,
        typer.Option("--channels-last", help="Faster convolutions on many devices.", rich_help_panel=steps.SPEED),
    ] = False,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the network first.", rich_help_panel=steps.SPEED)
    ] = False,
    devices: Annotated[
        int, typer.Option(min=1, help="Processes, each with a device of its own.", rich_help_panel=steps.SPEED)
    ] = 1,
    validation: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Samples held out for measuring.",
            show_default="1,000, at most a tenth of the data",
            rich_help_panel=steps.MEASURED,
        ),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            metavar="EPOCHS", help="Stop when no epoch was better for so long.", rich_help_panel=steps.MEASURED
        ),
    ] = None,
    guard: Annotated[
        bool,
        typer.Option(
            "--guard/--no-guard",
            help="Stop when robust accuracy collapses by more than 20 points.",
            rich_help_panel=steps.MEASURED,
        ),
    ] = True,
    keep: Annotated[
        str, typer.Option(help="Weights of the best epoch or of the last.", rich_help_panel=steps.MEASURED)
    ] = "best",
    test: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Evaluate the network on these in the end.",
            show_default="none",
            rich_help_panel=steps.MEASURED,
        ),
    ] = None,
    test_limit: steps.TestLimit = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="The attacks of that evaluation: quick, standard.",
            show_default="standard",
            rich_help_panel=steps.MEASURED,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", file_okay=False, help="Folder of the run, a MODEL afterwards.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in --out.")] = False,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a network for robustness."""
    _check(out, resume=resume, overwrite=overwrite)
    if devices > 1:
        processes.launch(devices, context.obj, out, quiet=quiet)
    from assay import grammar
    from assay.training import train as run
    from assay.training.workers import Workers

    if out is None and not quiet and Workers.here() == 0:
        terminal.people.print("no --out: the network is measured and then forgotten; --out DIR keeps it")
    with processes.told_once():
        allowed = None if threat is None else grammar.threat(threat)
        place: str | None = None if device is options.DeviceName.auto else options.device(device)
        found = run(
            model,
            options.canonical("data", data),
            recipe=grammar.recipe(recipe, allowed, settings or ()),
            threat=allowed,
            epochs=epochs,
            out=out,
            batch=batch,
            optimizer=optimizer,
            schedule=schedule,
            average=average,
            augment=augment or (),
            label_smoothing=label_smoothing,
            clip=clip,
            precision=precision,
            channels_last=channels_last,
            compile=compile_,
            warmup=warmup,
            extra=extra,
            extra_share=extra_share,
            validation=validation,
            patience=patience,
            guard=0.2 if guard else None,
            keep=keep,
            limit=limit,
            test=None if test is None else options.canonical("data", test),
            test_limit=test_limit,
            suite=suite,
            seed=seed,
            device=place,
            resume=resume,
            overwrite=overwrite,
            progress=not quiet,
        )
    if Workers.here() == 0:
        _tell(found, threat, as_json=as_json, quiet=quiet)
    processes.end()


def _check(out: Path | None, *, resume: bool, overwrite: bool) -> None:
    """Refuse options that contradict each other before anything is loaded."""
    if resume and overwrite:
        raise typer.BadParameter("--resume continues a run, --overwrite replaces it: give one of them")
    for name, given in (("--resume", resume), ("--overwrite", overwrite)):
        if given and out is None:
            raise typer.BadParameter("needs --out", param_hint=name)


def _tell(found: Training, threat: str | None, *, as_json: bool, quiet: bool) -> None:
    """What came out."""
    best, last = found.best, found.history[-1]
    if as_json:
        terminal.document(
            {
                "clean_accuracy": found.clean_accuracy,
                "robust_accuracy": found.robust_accuracy,
                "quality": found.quality,
                "epochs": last["epoch"],
                "kept_epoch": None if best is None else best["epoch"],
                "stopped": found.stopped,
                "evaluation": None if found.evaluation is None else found.evaluation.results,
                "out": None if found.path is None else str(found.path),
            }
        )
    if quiet:
        return
    if found.quality is not None:
        terminal.people.print(f"kept epoch {last['epoch'] if best is None else best['epoch']}: {found.quality:.5g}")
    elif best is not None:
        from assay.training.validation import STEPS

        robust = "" if best["robust"] is None else f", {best['robust']:.1%} under PGD-{STEPS}"
        terminal.people.print(f"kept epoch {best['epoch']}: {best['clean']:.1%} clean{robust} on held-out samples")
    if found.evaluation is not None:
        terminal.people.print(found.evaluation.table(), soft_wrap=True)
    if found.path is not None:
        terminal.people.print(f"report.html  {found.path / 'report.html'}", soft_wrap=True)
        if found.evaluation is None and found.quality is None:
            known = shlex.quote(threat or "THREAT")
            hint = f"evaluate it: assay evaluate {shlex.quote(str(found.path))} --data DATA --threat {known}"
            terminal.people.print(hint, soft_wrap=True)
