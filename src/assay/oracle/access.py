"""How much of a model may be seen."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from torch import nn


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
