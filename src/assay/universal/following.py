"""What every fit does around its method: the clean decisions, the model's mode, and the record of what was spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final

import torch
from torch import Tensor

from assay.attacks.base import evaluating
from assay.data import Data
from assay.data.parts import chunk
from assay.errors import AccessError, SettingError
from assay.evaluation import prepare
from assay.evaluation.chunks import placement
from assay.oracle import Access, granted_access, rejected_output
from assay.threats import Threat
from assay.universal.fitted import Fitted
from assay.universal.method import Method, Task
from assay.universal.rates import clean_oracle, decided

F = TypeVar("F", bound=Fitted)


@final
@dataclass(frozen=True, kw_only=True)
class Fitting(Generic[F]):
    """Where a fit is.

    Attributes:
        universal: what is fitted as it is now; its rates are measured at the end only.
        done: samples visited in all passes together.
        total: samples that are visited at most.
        fooled: share of the samples fooled when they were last visited.
    """

    universal: F
    done: int
    total: int
    fooled: float

    @property
    def passes(self) -> int:
        """Finished passes over the samples."""
        return int(self.universal.spent["passes"])


@contextmanager
def asking(model: Any) -> Iterator[None]:
    """Around everything that asks the model, and never across a yield, where the caller goes on in between."""
    with evaluating(model), torch.inference_mode(False), torch.no_grad():
        yield


def clean_task(
    model: Any, samples: Data, threat: Threat, target: int | None, seed: int, micro_batch: int | None
) -> Task:
    """The task, for which all clean samples are checked and asked about once.

    Raises:
        AccessError: the model gives no gradients.
        InputError: the samples cannot be used.
        SettingError: the model does not know the target.
    """
    if granted_access(model) < Access.GRADIENTS:
        raise AccessError(
            f"fitting needs gradients, the model grants {granted_access(model).name.lower()}. Fit on another model, "
            "and measure what was found on this one."
        )
    labels, classes, size = [], 0, chunk(samples)
    with asking(model):
        for start in range(0, len(samples), size):
            oracle, y, _ = clean_oracle(model, samples, start, start + size, threat, micro_batch=micro_batch)
            labels.append(decided(oracle.record.prediction.cpu(), y, rejected_output(model, oracle.x)))
            classes = oracle.clean().shape[1]
    rejected = rejected_output(model, oracle.x)
    classes = classes if rejected is None else rejected
    if target is not None and not 0 <= target < classes:
        raise SettingError(f"there is no class {target}: the model knows 0 to {classes - 1}.")
    place, dtype = placement(model, oracle.x.device)
    return Task(
        model=model,
        data=samples,
        labels=torch.cat(labels),
        classes=classes,
        rejected=rejected,
        threat=threat,
        target=target,
        seed=seed,
        place=place,
        dtype=dtype,
        micro_batch=micro_batch,
    )


def follow(
    method: Method,
    task: Task,
    v: Tensor,
    make: Callable[..., F],
    *,
    began: float,
    names: tuple[str | None, str | None],
    warm_start: bool,
) -> Iterator[Fitting[F]]:
    """The method's steps, each as the artefact that it has led to.

    Args:
        method: what fits.
        task: the samples and the model.
        v: where to start.
        make: the artefact of a tensor and of what is known about it, by the names of the fields of `Fitted`.
        began: when, on the clock of `time.perf_counter`.
        names: what the artefact calls model and data.
        warm_start: whether v was fitted before.
    """
    told = {
        "method": repr(method),
        "target": task.target,
        "seed": task.seed,
        "model": names[0] or type(task.model).__name__,
        "model_digest": prepare.digest(task.model),
        "data": task.data.name,
        "data_digest": task.data.fingerprint(),
        "samples": len(task),
        "warm_start": warm_start,
    }
    environment = dict(prepare.environment(task.place))
    forwards, backwards = len(task), 0
    steps = method.fit(task, v)
    while True:
        with asking(task.model):
            step = next(steps, None)
        if step is None:
            return
        forwards, backwards = forwards + step.forwards, backwards + step.backwards
        spent = {
            "passes": step.passes,
            "forwards": forwards,
            "backwards": backwards,
            "seconds": time.perf_counter() - began,
        }
        found = make(step.v[0].detach().cpu(), settings=told, spent=spent, environment=environment)
        yield Fitting(universal=found, done=step.done, total=step.total, fooled=step.fooled)
