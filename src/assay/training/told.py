"""What people are told of a run beside its table: what would make it worthless, and that it learns nothing."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from assay.data import Data
from assay.evaluation.checks import PROBE, budget, log_probabilities, probabilities
from assay.threats import Threat
from assay.training.folder import Row
from assay.training.recipes.base import mode
from assay.training.validation import STEPS
from assay.training.workers import Workers

_FIRST = 2  # epochs after which a network should know something
_STILL = 1e-3  # relative change of the loss below which it is the same
_CURE = (
    "Look at the learning rate (--optimizer 'AdamW(lr=5e-4)'), at the unit of eps (8/255 and not 8 for images in "
    "[0, 1]) and at the network, which normalises its inputs itself; --warmup lets a large eps grow."
)


def beforehand(model: nn.Module, data: Data, threats: Sequence[Threat], workers: Workers) -> list[str]:
    """Lines on what would make the whole run worthless, and on what is measured where there is more than one threat.

    Args:
        model: the network, on the device.
        data: what it is trained on.
        threats: what robust accuracy is measured under.
        workers: device and precision.
    """
    x = data.batch(0, PROBE)[0]
    with mode(model, train=False), torch.no_grad():
        output = model(x.to(workers.device, workers.dtype))
    flags = [flag for threat in threats for flag in budget(threat, x.shape[1:])]
    flags += probabilities(output) + log_probabilities(output)
    lines = [f"{flag.severity}: {flag.message} {flag.cure}" for flag in flags]
    if len(threats) > 1:
        lines.append(f"robust accuracy is what PGD-{STEPS} leaves within all of {', '.join(map(repr, threats))}.")
    return lines


def stuck(history: Sequence[Row], epochs: int, held: Data | None, classes: int) -> str:
    """A warning once the first epochs are over in which a network has learnt nothing; empty otherwise.

    That is so where its clean accuracy was never above what always answering the same class gives, or where the loss
    has not changed.

    Args:
        history: the epochs done so far.
        epochs: how many there will be.
        held: the samples that are measured; None where nothing is.
        classes: how many the network knows.

    Example:
        >>> stuck([{"loss": 2.3026, "clean": None}, {"loss": 2.3025, "clean": None}], 9, None, 10)[:35]
        'warning: the loss is still 2.3025 a'
    """
    if len(history) != min(_FIRST, epochs):
        return ""
    last = history[-1]
    after = f"after {len(history)} epoch{'s' * (len(history) > 1)}"
    if held is not None:
        share = 1 / classes if held.y is None else float(held.y.bincount().max()) / len(held)
        if all(row["clean"] <= share for row in history):
            same = f"always answering the same class gives {share:.1%}"
            return f"warning: clean accuracy is {last['clean']:.1%} {after}, and {same}. {_CURE}"
    if len(history) > 1 and abs(last["loss"] - history[0]["loss"]) <= _STILL * abs(history[0]["loss"]):
        return f"warning: the loss is still {last['loss']:.4f} {after}: the network learns nothing. {_CURE}"
    return ""
