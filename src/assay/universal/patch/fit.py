"""``assay.fit_patch``: one patch that decides what the model sees, wherever it lies."""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, final

import torch
from torch import Tensor

from assay.errors import InputError, SettingError
from assay.evaluation import prepare
from assay.losses import cross_entropy
from assay.rng import Keyed, derive
from assay.threats import Linf
from assay.universal.following import Fitting, clean_task, follow
from assay.universal.method import Method, Step, Task, number, whole
from assay.universal.patch.artefact import UniversalPatch
from assay.universal.patch.pasting import Pasting

_FLOOR = 1e-16  # of Adam's denominator: the usual 1e-8 would stop it where the model is very sure of itself


@final
@dataclass(frozen=True, kw_only=True)
class PatchAscent(Method):
    r"""Adam on the patch, one step for each mini-batch of images, each with the patch at a place drawn anew.

    $p \leftarrow clip(p + Adam(g))$, where g is the gradient of the mean over images x and their places (l, t) of
    $\log P(target | A(p, x, l, t))$, or without a target of $\min(-\log P(c | A(p, x, l, t)), \log K)$ with c the
    model's decision on the clean image and K the number of classes: an image whose loss has reached the logarithm of K
    is fooled for certain and no longer pulls. The step falls from `lr` to 0 in a straight line. It starts from grey.

    Args:
        pasting: shape and area of the patch, and how places are drawn.
        steps: steps of Adam.
        batch: images in a mini-batch.
        lr: length of the first step as a share of the range of valid values.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        The paper fits towards a target only, and names no optimiser. Its patch lies in images of a fixed size and may
        reach beyond their edge; here all of it lies inside.

    References:
        Brown, Mane, Roy, Abadi, Gilmer, "Adversarial patch", NeurIPS workshop 2017, https://arxiv.org/abs/1712.09665
        Shafahi, Najibi, Xu, Dickerson, Davis, Goldstein, "Universal adversarial training", AAAI 2020,
        https://arxiv.org/abs/1811.11304 (the clipped loss).

    Example:
        >>> PatchAscent(steps=100).batch
        16
    """

    pasting: Pasting = field(default_factory=Pasting)
    steps: int = 1000
    batch: int = 16
    lr: float = 0.2

    def __post_init__(self) -> None:
        whole("steps", self.steps, 1)
        whole("batch", self.batch, 1)
        number("lr", self.lr)

    def fit(self, task: Task, v: Tensor) -> Iterator[Step]:
        """A step for each mini-batch."""
        low, high = task.threat.bounds
        patch = v[0].clone().requires_grad_()
        optimiser = torch.optim.Adam([patch], lr=self.lr * (high - low), eps=_FLOOR)
        seen, fooled = 0, torch.zeros(0, dtype=torch.bool)
        for step, positions in zip(range(self.steps), _batches(task, self.batch), strict=False):
            optimiser.param_groups[0]["lr"] = self.lr * (high - low) * (1 - step / self.steps)
            slope, won = self._slope(task, patch, positions, step)
            patch.grad = -slope
            optimiser.step()
            with torch.no_grad():
                patch.clamp_(low, high)
            seen += len(positions)
            fooled = torch.cat([fooled, won])[-len(task) :]
            yield Step(
                v=patch.detach()[None].clone(),
                passes=seen // len(task),
                done=seen,
                total=max(seen, self.steps * min(self.batch, len(task))),
                fooled=float(fooled.double().mean()),
                forwards=len(positions),
                backwards=len(positions),
            )

    def _slope(self, task: Task, patch: Tensor, positions: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The mean loss's gradient in the patch, and which of the images are fooled."""
        oracle = task.about(positions)
        rng = Keyed(derive(task.seed, "places", step), positions.to(oracle.x.device))
        places = self.pasting.draw(rng, *oracle.x.shape[-2:])
        with torch.enable_grad():
            moved = self.pasting.paste(oracle.x, patch, places)
        clip = math.log(task.classes)

        def loss(output: Any, goal: Any) -> Tensor:
            return (
                cross_entropy(output, goal) if task.target is not None else cross_entropy(output, goal).clamp(max=clip)
            )

        _, grad, _ = oracle.gradient(moved.detach() - oracle.x, loss)
        (slope,) = torch.autograd.grad(moved, patch, grad / len(positions))
        return slope, oracle.record.success.cpu()


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
        settings: settings of `Pasting` (area, shape, rotation, scale) and of `PatchAscent` (steps, batch, lr).

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
        >>> found = assay.fit_patch(model, (torch.rand(20, 1, 8, 8), torch.zeros(20).long()), area=0.2, steps=5)
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


def _batches(task: Task, size: int) -> Iterator[Tensor]:
    """Mini-batches of one pass after the other, without end."""
    number = 0
    while True:
        yield from torch.split(task.order(number), size)
        number += 1
