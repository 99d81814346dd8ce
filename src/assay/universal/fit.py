"""``assay.fit_universal``: one perturbation that changes the decision on as many samples as it can."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from assay.data import Data
from assay.errors import InputError, SettingError, ThreatError
from assay.evaluation import prepare
from assay.threats import L2, Linf, Threat
from assay.threats.base import need_budget
from assay.universal.artefact import Universal
from assay.universal.ascent import StochasticAscent
from assay.universal.deepfool import DeepFoolPasses
from assay.universal.following import Fitting, clean_task, follow
from assay.universal.method import Ball, Method, Task

METHODS: dict[str, type[Method]] = {"sgd": StochasticAscent, "deepfool": DeepFoolPasses}


def fit_universal(
    model: Any,
    data: Any,
    *,
    threat: Threat | str,
    method: str | Method = "sgd",
    target: int | None = None,
    seed: int = 0,
    start: Universal | Tensor | None = None,
    micro_batch: int | None = None,
    progress: Callable[[Fitting[Universal]], None] | None = None,
    **settings: Any,
) -> Universal:
    """Fit one perturbation to all samples: it shall change the model's decision on as many as it can.

    The decisions on the clean samples are what counts, not the labels. Fit on one set and measure on another
    (`assay.universal.split`, `Universal.fooling_rate`): on the samples of the fit the rate flatters.

    Args:
        model: a module or callable that takes inputs within the threat's bounds and returns logits.
        data: (x, y), a map-style Dataset, or an `assay.Data`.
        threat: the ball: `Linf` or `L2` with a budget, as an object or as text ("linf:10/255").
        method: "sgd", "deepfool", or one of `StochasticAscent` and `DeepFoolPasses`.
        target: the class that all samples shall get; any other than before when None.
        seed: key of the order in which samples are taken.
        start: where to start; no perturbation when None.
        micro_batch: rows per model call, which changes no result; found automatically when None.
        progress: called after every step.
        settings: settings of the method, such as `epochs=20`.

    Returns:
        The perturbation, with its rates on these samples as `rates["fit"]`.

    Raises:
        AccessError: the model gives no gradients.
        InputError: the samples cannot be used.
        ModelError: the model's output or gradient cannot be used.
        SettingError: an unknown method or setting, or one out of range.
        ThreatError: a threat other than `Linf` and `L2`, or one without a budget.

    Example:
        >>> import torch, assay
        >>> model, x = torch.nn.Linear(4, 3), torch.rand(20, 4)
        >>> found = assay.fit_universal(model, (x, torch.zeros(20, dtype=torch.int64)), threat="l2:2", epochs=3)
        >>> found.spent["passes"], 0 <= found.fooling_rate(model, (x, torch.zeros(20).long())).value <= 1
        (3, True)
    """
    for now in fitting(
        model,
        data,
        threat=threat,
        method=method,
        target=target,
        seed=seed,
        start=start,
        micro_batch=micro_batch,
        **settings,
    ):
        if progress is not None:
            progress(now)
    found = now.universal
    return found.with_rates("fit", found.measure(model, data, micro_batch=micro_batch))


def fitting(
    model: Any,
    data: Any,
    *,
    threat: Threat | str,
    method: str | Method = "sgd",
    target: int | None = None,
    seed: int = 0,
    start: Universal | Tensor | None = None,
    micro_batch: int | None = None,
    names: tuple[str | None, str | None] = (None, None),
    **settings: Any,
) -> Iterator[Fitting[Universal]]:
    """The fit of `fit_universal` step by step, for callers who want to stop it, show it or keep what it has.

    What it takes, and what it raises, is as there; `names` are what the artefact calls model and data.
    """
    began = time.perf_counter()
    allowed, chosen = _threat(threat), resolve(method, settings)
    samples = prepare.data(data, names[1], None, allowed)
    task = clean_task(model, samples, allowed, target, seed, micro_batch)

    def made(v: Tensor, **known: Any) -> Universal:
        return Universal(perturbation=v, threat=allowed, **known)

    v = _start(start, samples, task)
    yield from follow(chosen, task, v, made, began=began, names=names, warm_start=start is not None)


def resolve(method: str | Method, settings: dict[str, Any]) -> Method:
    """The method of this name with these settings; a `Method` passes.

    Raises:
        SettingError: an unknown method or setting, one out of range, or settings beside a `Method`.
    """
    if isinstance(method, Method):
        if settings:
            raise SettingError(f"{', '.join(settings)}: the method is given as an object, put its settings there.")
        return method
    if method not in METHODS:
        raise SettingError(f"unknown method {method!r}; there are {', '.join(METHODS)}.")
    known = [each.name for each in fields(METHODS[method])]  # type: ignore[arg-type]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise SettingError(f"the method {method} has no {name!r}.{hint} It takes {', '.join(known)}.")
    return METHODS[method](**settings)


def _threat(threat: Threat | str) -> Threat:
    found = prepare.threat(threat)
    if not isinstance(found, (L2, Linf)):
        raise ThreatError(f"universal perturbations are fitted in Linf and L2; got {found!r}.")
    need_budget(found, "a universal perturbation")
    return found


def _start(start: Universal | Tensor | None, samples: Data, task: Task) -> Tensor:
    """The perturbation to start at, `(1, *shape)`, inside the ball, where and as the model wants its inputs."""
    x, _ = samples[0]
    zero = torch.zeros_like(x, device=task.place, dtype=task.dtype or x.dtype)[None]
    if start is None:
        return zero
    v = start.perturbation if isinstance(start, Universal) else start
    if v.shape != x.shape:
        raise InputError(f"the start has shape {tuple(v.shape)}; the inputs are {tuple(x.shape)}.")
    return Ball(task.threat, zero).project(v.to(zero)[None])
