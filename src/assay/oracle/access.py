"""How much of a model may be seen."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import torch
from torch import Tensor, nn

from assay.rng import Keyed, drawing


class Access(IntEnum):
    """What a model grants, or an attack needs; each level includes those before."""

    LABELS = 1
    SCORES = 2
    GRADIENTS = 3


def granted_access(model: Any) -> Access:
    """The access that a model grants: its attribute `access`, or gradients."""
    return Access(getattr(model, "access", Access.GRADIENTS))


def is_stochastic(model: Any) -> bool:
    """Whether a module in the model says that it draws random numbers (`stochastic`), by keys where there are some."""
    return isinstance(model, nn.Module) and any(getattr(part, "stochastic", False) for part in model.modules())


def rejected_output(model: Any, x: Tensor) -> int | None:
    """The output that stands for a rejected input, the last of a model that `rejects`, from a look at one input.

    Args:
        model: a module or callable.
        x: inputs; only the first is looked at, and what the model draws then is taken from nobody.

    Returns:
        None where nothing is rejected.
    """
    parts = model.modules() if isinstance(model, nn.Module) else ()
    found = next((part for part in parts if getattr(part, "rejects", False)), None)
    if found is None:
        return None
    scored = found if granted_access(model) is Access.LABELS else model
    with torch.no_grad(), drawing(Keyed(0, torch.zeros(1, dtype=torch.int64, device=x.device))):
        return int(scored(x[:1]).shape[1]) - 1
