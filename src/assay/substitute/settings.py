"""The settings of a substitute's training."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import final

from assay.errors import SettingError


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `fit_substitute` takes, checked.

    Raises:
        SettingError: a setting is out of range.
    """

    max_queries: int
    rounds: int
    initial: int
    doublings: int
    reservoir: int
    lam: float
    period: int
    epochs: int
    batch: int
    lr: float
    held_out: int

    def __post_init__(self) -> None:
        least = {"rounds": 0, "doublings": 0, "period": 0, "held_out": 0}
        for each in fields(self):
            name, value = each.name, getattr(self, each.name)
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise SettingError(f"{name} must be a number; got {value!r}.")
            if each.type == "int" and (not isinstance(value, int) or value < least.get(name, 1)):
                raise SettingError(f"{name} must be a whole number, at least {least.get(name, 1)}; got {value!r}.")
            if not 0 <= value < math.inf or (each.type == "float" and value == 0):
                raise SettingError(f"{name} must be a positive number; got {value!r}.")
        if self.held_out >= self.max_queries:
            raise SettingError(
                f"held_out ({self.held_out}) is a part of max_queries ({self.max_queries}) and has to leave some."
            )
