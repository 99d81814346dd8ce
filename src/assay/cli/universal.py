"""``assay universal``: one perturbation for all inputs, fitted on a part of the data and measured on the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from assay.cli import fits, options, terminal
from assay.errors import ThreatError

if TYPE_CHECKING:
    from rich.table import Table

    from assay.universal import Universal


@terminal.guarded
def universal(
    model: options.Model,
    data: options.Data,
    threat: options.Threat = None,
    method: Annotated[str | None, typer.Option(help="sgd or deepfool.", show_default="sgd")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of it, such as epochs=20.")
    ] = None,
    target: fits.Target = None,
    fit: fits.Fit = None,
    test_data: fits.TestData = None,
    start: fits.Start = None,
    load: fits.Load = None,
    out: fits.Out = None,
    overwrite: fits.Overwrite = False,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fit one perturbation to many inputs, and measure how many others it fools."""
    of_fits = {"--threat": threat, "--method": method, "--set": settings, "--target": target}
    fits.check(
        of_fits | {"--fit": fit, "--test-data": test_data, "--start": start, "--out": out}, load, overwrite=overwrite
    )
    from assay import grammar
    from assay.universal import Universal, fitting, resolve

    if load is not None:
        saved = Universal.load(load)
        fits.measure_saved(saved, load, model, data, _describe, limit, device, as_json=as_json, quiet=quiet)
        return
    if threat is None:
        raise ThreatError("a universal perturbation needs a threat: give --threat, for instance --threat linf:10/255.")

    allowed, chosen = grammar.threat(threat), resolve(method or "sgd", fits.settings(settings))
    begun_at = None if start is None else Universal.load(start)
    kept = fits.folder(out, Universal, overwrite=overwrite)
    model, data = options.canonical("model", model), options.canonical("data", data)
    every, seen, unseen = fits.samples(data, test_data, fit, limit, seed)
    net = options.model(model, options.device(device), every, allowed)
    fits.check_alike(every, unseen, allowed.bounds)
    names = (model, data)
    steps = fitting(net, seen, threat=allowed, method=chosen, target=target, seed=seed, start=begun_at, names=names)
    found, interrupted = fits.run(steps, kept, net, (seen, unseen), quiet=quiet)
    fits.end(found, interrupted, kept, _describe, as_json=as_json, quiet=quiet)


def _describe(table: Table, found: Universal) -> None:
    table.add_row("threat", repr(found.threat))
