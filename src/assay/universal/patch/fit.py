"""``assay.fit_patch``: one patch that decides what the model sees, wherever it lies."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from assay.errors import InputError, SettingError
from assay.evaluation import prepare
from assay.threats import Linf
from assay.universal.following import Fitting, clean_task, follow
from assay.universal.patch.artefact import UniversalPatch
from assay.universal.patch.ascent import PatchAscent
from assay.universal.patch.pasting import Pasting


def fit_patch(
    model: Any,
    data: Any,
    *,
    target: int | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    start: UniversalPatch | None = None,
    micro_batch: int | None = None,
    progress: Callable[[Fitting[UniversalPatch]], None] | None = None,
    **settings: Any,
) -> UniversalPatch:
    """Fit one patch to all images and places: put anywhere, it shall decide what the model sees.

    Fit on one set and measure on another (`assay.universal.split`, `UniversalPatch.measure`).

    Args:
        model: a module or callable that takes images within the bounds and returns logits.
        data: (x, y), a map-style Dataset, or an `assay.Data`; images `(n, c, h, w)`.
        target: the class that all images shall get; any other than before when None.
        bounds: the smallest and largest valid input value.
        seed: key of the order in which images are taken and of all places.
        start: a patch to go on from, with its own way of pasting where none is given; grey when None.
        micro_batch: rows per model call; found automatically when None.
        progress: called after every step.
        settings: settings of `Pasting` (area, shape, rotation, scale) and of `PatchAscent` (steps, batch, lr,
            scouts, scout_steps, finish, augment).

    Returns:
        The patch, with its rates on these images as `rates["fit"]`.

    Raises:
        AccessError: the model gives no gradients.
        InputError: the images cannot be used.
        ModelError: the model's output or gradient cannot be used.
        SettingError: an unknown setting, or one out of range; the patch does not fit into the images.

    Example:
        >>> import assay
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        >>> images = torch.rand(20, 1, 8, 8), torch.zeros(20).long()
        >>> found = assay.fit_patch(model, images, target=2, area=0.2, steps=5)
        >>> found.patch.shape, found.spent["backwards"]
        (torch.Size([1, 5, 5]), 56)
    """
    for now in patch_fitting(
        model, data, target=target, bounds=bounds, seed=seed, start=start, micro_batch=micro_batch, **settings
    ):
        if progress is not None:
            progress(now)
    found = now.universal
    return found.with_rates("fit", found.measure(model, data, micro_batch=micro_batch))


def patch_fitting(
    model: Any,
    data: Any,
    *,
    target: int | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    seed: int = 0,
    start: UniversalPatch | None = None,
    micro_batch: int | None = None,
    names: tuple[str | None, str | None] = (None, None),
    **settings: Any,
) -> Iterator[Fitting[UniversalPatch]]:
    """The fit of `fit_patch` step by step, for callers who want to stop it, show it or keep what it has.

    Args:
        model: as for `fit_patch`.
        data: as for `fit_patch`.
        target: as for `fit_patch`.
        bounds: as for `fit_patch`.
        seed: as for `fit_patch`.
        start: as for `fit_patch`.
        micro_batch: as for `fit_patch`.
        names: what the artefact calls model and data.
        settings: as for `fit_patch`.

    Raises:
        AssayError: as for `fit_patch`.
    """
    began = time.perf_counter()
    method = patch_method(settings, start)
    threat = Linf(bounds[1] - bounds[0], bounds=bounds)
    samples = prepare.data(data, names[1], None, threat)
    x, _ = samples[0]
    if x.ndim != 3:
        raise InputError(f"a patch needs images (channels, height, width); the samples are {tuple(x.shape)}.")
    method.pasting.check(*x.shape[-2:])
    task = clean_task(model, samples, threat, target, seed, micro_batch)
    size = method.pasting.pixels(*x.shape[-2:])
    grey = torch.full((x.shape[0], size, size), sum(threat.bounds) / 2, device=task.place, dtype=task.dtype or x.dtype)
    first = grey if start is None else start.patch.to(grey)
    if first.shape != grey.shape:
        raise InputError(f"the patch to start at has shape {tuple(first.shape)}; {tuple(grey.shape)} is needed here.")

    def made(patch: Tensor, **known: Any) -> UniversalPatch:
        return UniversalPatch(patch=patch, pasting=method.pasting, bounds=threat.bounds, **known)

    yield from follow(method, task, first[None], made, began=began, names=names, warm_start=start is not None)


def patch_method(settings: dict[str, Any], start: UniversalPatch | None = None) -> PatchAscent:
    """The method with these settings, those of `Pasting` among them.

    Raises:
        SettingError: an unknown setting, or one out of range.
    """
    of_pasting = [each.name for each in fields(Pasting)]
    known = [*of_pasting, *(each.name for each in fields(PatchAscent) if each.name != "pasting")]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise SettingError(f"a patch has no {name!r}.{hint} It takes {', '.join(known)}.")
    given = {name: value for name, value in settings.items() if name in of_pasting}
    pasting = start.pasting if start is not None and not given else Pasting(**given)
    rest = {name: value for name, value in settings.items() if name not in of_pasting}
    return PatchAscent(pasting=pasting, **rest)
