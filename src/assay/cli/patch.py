"""``assay patch``: one printable patch for all images and places, fitted on some of them and measured on the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from assay.cli import fits, options, terminal

if TYPE_CHECKING:
    from rich.table import Table

    from assay.universal import UniversalPatch


@terminal.guarded
def patch(
    model: options.Model,
    data: options.Data,
    area: Annotated[
        float | None, typer.Option(metavar="SHARE", help="Share of the image, at scale 1.", show_default="0.1")
    ] = None,
    shape: Annotated[str | None, typer.Option(help="circle or square.", show_default="circle")] = None,
    rotation: Annotated[
        float | None,
        typer.Option(metavar="DEGREES", help="Turned by up to so much to either side.", show_default="22.5"),
    ] = None,
    scale: Annotated[
        tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Range of scales.", show_default="0.8 1.2")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the fit, such as steps=3000.")
    ] = None,
    target: fits.Target = None,
    fit: fits.Fit = None,
    test_data: fits.TestData = None,
    start: fits.Start = None,
    load: fits.Load = None,
    out: fits.Out = None,
    overwrite: fits.Overwrite = False,
    bounds: Annotated[
        tuple[float, float], typer.Option(metavar="LOW HIGH", help="Smallest and largest valid input value.")
    ] = (0.0, 1.0),
    limit: options.Limit = None,
    seed: options.Seed = 0,
    device: options.Device = options.DeviceName.auto,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Fit one patch that, put anywhere into an image, changes the decision; measure it on other images."""
    pasting = {"area": area, "shape": shape, "rotation": rotation, "scale": scale}
    of_fits = {f"--{name}": value for name, value in pasting.items()} | {"--set": settings, "--target": target}
    fits.check(
        of_fits | {"--fit": fit, "--test-data": test_data, "--start": start, "--out": out}, load, overwrite=overwrite
    )
    from assay.threats import Linf
    from assay.universal import UniversalPatch, patch_fitting, patch_method

    if load is not None:
        saved = UniversalPatch.load(load)
        fits.measure_saved(saved, load, model, data, _describe, limit, device, as_json=as_json, quiet=quiet)
        return

    given: dict[str, Any] = {name: value for name, value in pasting.items() if value is not None}
    given |= fits.settings(settings)
    begun_at = None if start is None else UniversalPatch.load(start)
    patch_method(given, begun_at)
    kept = fits.folder(out, UniversalPatch, overwrite=overwrite)
    model, data = options.canonical("model", model), options.canonical("data", data)
    every, seen, unseen = fits.samples(data, test_data, fit, limit, seed)
    anything = Linf(bounds[1] - bounds[0], bounds=bounds)
    net = options.model(model, options.device(device), every, anything)
    fits.check_alike(every, unseen, bounds)
    names = (model, data)
    steps = patch_fitting(net, seen, target=target, bounds=bounds, seed=seed, start=begun_at, names=names, **given)
    found, interrupted = fits.run(steps, kept, net, (seen, unseen), quiet=quiet)
    fits.end(found, interrupted, kept, _describe, as_json=as_json, quiet=quiet)


def _describe(table: Table, found: UniversalPatch) -> None:
    how = found.pasting
    table.add_row("patch", f"{how.shape}, {how.area:.3g} of the image, {'x'.join(map(str, found.patch.shape))} values")
    table.add_row("places", f"turned by up to {how.rotation:g} degrees, scaled by {how.scale[0]:g} to {how.scale[1]:g}")
