"""What a perturbation does to a model on a set of samples: shares, with intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from assay.attacks.base import evaluating
from assay.data import Data
from assay.data.parts import chunk
from assay.errors import InputError
from assay.evaluation.chunks import placement
from assay.evaluation.stats import wilson
from assay.goals import Untargeted
from assay.inputs import check_inputs
from assay.oracle import Oracle, granted_access, rejected_output
from assay.threats import Threat


class Rate(NamedTuple):
    """A measured share and its 95 % Wilson interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, count: int, samples: int) -> Rate:
        """The share of so many out of so many."""
        return cls(count / samples, *wilson(count, samples))


@final
@dataclass(frozen=True, kw_only=True)
class Rates:
    """What was measured on a set of samples.

    Attributes:
        samples: how many.
        fooling: share whose decision changed, whether it was right or not. A rejected input is not fooled; one that was
            rejected before is where it is then given a wrong class.
        clean_accuracy: share that is classified rightly without the perturbation.
        accuracy: share that is classified rightly with it.
        target: share, among those decided otherwise before, that got the target class; None without a target (or where
            all had that class before).
    """

    samples: int
    fooling: Rate
    clean_accuracy: Rate
    accuracy: Rate
    target: Rate | None = None

    def as_dict(self) -> dict[str, Any]:
        """The same for JSON: each rate as value, low and high."""
        shares = {name: getattr(self, name) for name in ("fooling", "clean_accuracy", "accuracy", "target")}
        return {"samples": self.samples} | {
            name: None if share is None else share._asdict() for name, share in shares.items()
        }

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Rates:
        """Read what `as_dict` wrote."""
        rates = {name: Rate(**share) for name, share in content.items() if name != "samples" and share is not None}
        return cls(samples=content["samples"], **rates)


def measure(
    model: Any,
    data: Any,
    *,
    perturbation: Tensor,
    threat: Threat,
    target: int | None = None,
    micro_batch: int | None = None,
) -> Rates:
    """Measure a perturbation.

    Args:
        model: a module or callable; one that grants labels only will do.
        data: (x, y), a map-style Dataset, or an `assay.Data`.
        perturbation: what is added to every input, `(*shape)`; the sums are clipped to the threat's bounds.
        threat: the ball that it belongs to.
        target: the class that all samples shall get, if any.
        micro_batch: rows per model call; found automatically when None.

    Raises:
        InputError: inputs cannot be used, or have another shape than the perturbation.
        ModelError: the model's output cannot be used.
    """
    samples = Data.of(data)
    shape = tuple(samples[0][0].shape)
    if shape != tuple(perturbation.shape):
        raise InputError(
            f"the perturbation is made for inputs of shape {tuple(perturbation.shape)}; these are {shape}."
        )
    return measure_moves(
        model,
        samples,
        lambda x, _: perturbation.to(x).expand_as(x),
        threat=threat,
        target=target,
        micro_batch=micro_batch,
    )


def measure_moves(
    model: Any,
    data: Any,
    move: Callable[[Tensor, Tensor], Tensor],
    *,
    threat: Threat,
    target: int | None = None,
    micro_batch: int | None = None,
) -> Rates:
    """Measure what depends on the sample, too.

    Args:
        model: a module or callable; one that grants labels only will do.
        data: (x, y), a map-style Dataset, or an `assay.Data`.
        move: inputs `(b, *shape)` and sample numbers `(b,)` to the threat's moves, `(b, *m)`.
        threat: what the moves belong to.
        target: the class that all samples shall get, if any.
        micro_batch: rows per model call; found automatically when None.

    Raises:
        InputError: inputs cannot be used.
        ModelError: the model's output cannot be used.
    """
    samples = Data.of(data)
    before, after, label = [], [], []
    size = chunk(samples)
    with evaluating(model), torch.inference_mode(False), torch.no_grad():
        for start in range(0, len(samples), size):
            oracle, y, index = clean_oracle(model, samples, start, start + size, threat, micro_batch=micro_batch)
            clean = oracle.record.prediction
            moved = Oracle(
                model, oracle.x, Untargeted(clean), threat, access=granted_access(model), micro_batch=micro_batch
            )
            before.append(clean.cpu())
            after.append(moved.labels(move(oracle.x, index.to(oracle.x.device))).cpu())
            label.append(y.cpu())
        rejected = rejected_output(model, oracle.x)
    return _counted(torch.cat(before), torch.cat(after), torch.cat(label), target, rejected)


def clean_oracle(
    model: Any, data: Data, start: int, stop: int, threat: Threat, *, micro_batch: int | None = None
) -> tuple[Oracle, Tensor, Tensor]:
    """An oracle for these samples that has judged the clean inputs, and so knows the decisions; labels; sample numbers.

    Raises:
        InputError: inputs or labels cannot be used.
        ModelError: the model's output cannot be used.
    """
    x, y, index = data.batch(start, stop)
    try:
        check_inputs(x, threat.bounds)
    except InputError as error:
        raise InputError(f"samples {start} to {start + len(x) - 1} (row 0 is sample {start}): {error}") from error
    place, dtype = placement(model, x.device)
    goal = Untargeted(y.to(place))
    oracle = Oracle(
        model, x.to(place, dtype or x.dtype), goal, threat, access=granted_access(model), micro_batch=micro_batch
    )
    oracle.judge_clean()
    return oracle, y, index


def decided(prediction: Tensor, label: Tensor, rejected: int | None) -> Tensor:
    """The decisions that a perturbation shall change: of clean inputs that are rejected the right ones."""
    return prediction if rejected is None else torch.where(prediction == rejected, label.to(prediction), prediction)


def _counted(before: Tensor, after: Tensor, label: Tensor, target: int | None, rejected: int | None) -> Rates:
    n = len(before)
    goal = Untargeted(decided(before, label, rejected), rejected=rejected)
    reached = None
    if target is not None and bool((others := before != target).any()):
        reached = Rate.of(int((after[others] == target).sum()), int(others.sum()))
    return Rates(
        samples=n,
        fooling=Rate.of(int(goal.reached_labels(after).sum()), n),
        clean_accuracy=Rate.of(int((before == label).sum()), n),
        accuracy=Rate.of(int((after == label).sum()), n),
        target=reached,
    )
