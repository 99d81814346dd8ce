"""``assay physical``: what is left of one attack after its images are printed and photographed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from assay.cli import options, terminal
from assay.errors import GrammarError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from assay.attacks import Attack
    from assay.data import Data
    from assay.physical import Photographed
    from assay.transformations import EOT, Transformation

Kind = Annotated[str, typer.Option(help="pgd, or the call that builds it. `assay list attacks` names them.")]


@terminal.guarded
def physical(
    model: options.Model,
    data: options.Data,
    attack: Kind = "pgd",
    threat: options.Threat = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of it, such as steps=100.")
    ] = None,
    draws: Annotated[
        int, typer.Option(min=0, help="Views through the camera that each step takes the mean of; 0 knows no camera.")
    ] = 10,
    camera: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="What happens to a print, such as [Perspective(0.1), Blur(1), JPEG(70)]."),
    ] = None,
    photos: Annotated[int, typer.Option(min=1, help="Photographs of each image.")] = 10,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    batch: Annotated[int, typer.Option(min=1, help="Images attacked at once; the results do not depend on it.")] = 64,
    device: options.Device = options.DeviceName.auto,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Attack images, print and photograph them in simulation, and count what is still classified wrongly.

    Searches that climb (PGD, APGD, Adam) do not stop at their first success, which would be the easiest to destroy.
    """
    options.has_threat(attack, threat)
    from assay import grammar
    from assay.cli import search
    from assay.data import load_data
    from assay.physical import CAMERA
    from assay.transformations import EOT

    built = grammar.attack(attack, threat, settings or ())
    steps = CAMERA if camera is None else _camera(camera)
    eot = EOT(*steps, draws=draws) if draws else None
    model, data = options.canonical("model", model), options.canonical("data", data)
    samples = load_data(data, limit=limit)
    place = options.device(device)
    target = options.model(model, place, samples, built.threat)
    search.check_access(target, built, "untargeted")

    started = time.perf_counter()
    with terminal.running():
        counts = _counts(target, samples, built, eot, steps, photos=photos, seed=seed, batch=batch, device=place)
    found = {
        "kind": "physical",
        "model": model,
        "data": data,
        "attack": repr(built),
        "eot": None if eot is None else repr(eot),
        "camera": [repr(step) for step in steps],
        "seed": seed,
        **counts.as_dict(),
        "seconds": time.perf_counter() - started,
    }
    if as_json:
        terminal.document(found)
    if not quiet:
        terminal.people.print(_table(found, draws))


def _camera(text: str) -> Sequence[Transformation]:
    """The transformations of a list.

    Raises:
        GrammarError: it is none, or holds something else.
    """
    from assay import grammar
    from assay.transformations import Transformation

    found = grammar.parse(text)
    if not isinstance(found, list) or not all(isinstance(each, Transformation) for each in found):
        raise GrammarError(
            f"a camera is a list of transformations, [Perspective(0.1), Blur(1)]; found {found!r}. "
            "`assay list transformations` names them."
        )
    return found


def _counts(
    model: Any,
    samples: Data,
    attack: Attack,
    eot: EOT | None,
    camera: Sequence[Transformation],
    *,
    photos: int,
    seed: int,
    batch: int,
    device: str,
) -> Photographed:
    """Attack in chunks, photograph each, and add up."""
    import torch

    from assay.attacks.base import evaluating
    from assay.evaluation.chunks import placement
    from assay.physical import Photographed, measure

    place, dtype = placement(model, torch.device(device))
    total = Photographed.nothing(photos)
    for start in range(0, len(samples), batch):
        x, y, index = samples.batch(start, start + batch)
        x, y, index = x.to(place, dtype or x.dtype), y.to(place), index.to(place)
        with evaluating(model):
            x_adv = attack.perturb(model, x, y, seed=seed, index=index, eot=eot)
        bounds = attack.threat.bounds
        total += measure(model, x, x_adv, y, camera, photos=photos, seed=seed, index=index, bounds=bounds)
    return total


def _table(found: dict[str, Any], draws: int) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")

    def share(name: str) -> str:
        return "-" if found[name] is None else f"{found[name]:.1%}"

    photographs = found["samples"] * found["photos"]
    table.add_row("attack", found["attack"])
    table.add_row("searched on", f"{draws} views a step through the camera" if draws else "the images themselves")
    table.add_row("model, data", f"{found['model']}, {found['data']}, {found['samples']} samples")
    table.add_row("clean images right", f"{found['clean_right'] / found['samples']:.1%}")
    table.add_row("clean photographs right", f"{found['clean_photos_right'] / photographs:.1%}")
    table.add_row("success before the camera", f"{share('success_before')} of the right ones")
    table.add_row("success after the camera", f"{share('success_after')} of the right ones")
    table.add_row("destruction rate", share("destruction_rate"))
    table.add_row("seconds", f"{found['seconds']:.1f}")
    return table
