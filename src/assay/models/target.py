"""What all models have in common that answer questions and give no gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from assay.errors import AccessError, ModelError, SettingError
from assay.oracle import Access

_SMALLEST = 1e-30  # a probability of 0, as a score


class Target(nn.Module, ABC):
    """A model that answers with labels or with scores, and with nothing else.

    Args:
        access: "labels" or "scores".

    Raises:
        SettingError: it is neither.
    """

    remote: ClassVar[bool] = False  # whether its answers are too dear to be asked for twice

    def __init__(self, access: Access | str) -> None:
        super().__init__()
        self.access = _level(access)
        self.training = False  # it has no mode of its own

    def forward(self, x: Tensor) -> Tensor:
        """Scores `(b, classes)`, of labels `(b,)` where that is all there is.

        Args:
            x: inputs, on any device.

        Raises:
            AccessError: a gradient would be needed.
            ModelError: the answer is none.
        """
        if x.requires_grad and torch.is_grad_enabled():
            raise AccessError(
                f"{type(self).__name__} gives {self.access.name.lower()}, no gradients: use an attack that gets by "
                "without them (`assay list attacks` tells), such as Square for scores or HopSkipJump for labels."
            )
        return self.answer(x.detach())

    @abstractmethod
    def answer(self, x: Tensor) -> Tensor:
        """Scores or labels of inputs, as `access` says."""

    def labels(self, x: Tensor) -> Tensor:
        """Decisions alone, `(b,)` int64."""
        return decisions(self(x))


def decisions(output: Tensor) -> Tensor:
    """The classes of an output: itself where it is one, otherwise the highest score."""
    return output.argmax(dim=1) if output.is_floating_point() else output


def as_scores(found: Any, x: Tensor, who: str) -> Tensor:
    """An array as scores on x's device, of x's type.

    Raises:
        ModelError: it is not `(b, classes)` numbers.
    """
    scores = _array(found, who)
    if scores.ndim != 2 or len(scores) != len(x) or scores.shape[1] < 2:
        raise ModelError(
            f"{who} answered {len(x)} inputs with scores of shape {tuple(scores.shape)}; one row for each input with "
            "a score for each of two or more classes is needed."
        )
    return scores.to(x.device, x.dtype)


def as_labels(found: Any, x: Tensor, who: str) -> Tensor:
    """An array as labels, `(b,)` int64 on x's device.

    Raises:
        ModelError: it is not one whole number for each input.
    """
    labels = _array(found, who)
    if labels.shape != (len(x),) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ModelError(
            f"{who} answered {len(x)} inputs with labels of shape {tuple(labels.shape)} ({labels.dtype}); one whole "
            "number for each input is needed, from 0 on."
        )
    return labels.to(x.device, torch.int64)


def log_probabilities(found: Tensor) -> Tensor:
    """Probabilities as logits: their softmax is what they were."""
    return found.clamp_min(_SMALLEST).log()


def _array(found: Any, who: str) -> Tensor:
    try:
        return found.detach() if isinstance(found, Tensor) else torch.from_numpy(np.ascontiguousarray(found))
    except (TypeError, ValueError) as wrong:
        raise ModelError(
            f"{who} answered with a {type(found).__name__} that is no array of numbers: {wrong}"
        ) from wrong


def _level(access: Access | str) -> Access:
    known = {level.name.lower(): level for level in (Access.LABELS, Access.SCORES)}
    found = known.get(access) if isinstance(access, str) else access
    if found is None or found not in known.values():
        raise SettingError(f"access is 'labels' or 'scores' for a model without gradients; got {access!r}.")
    return Access(found)
