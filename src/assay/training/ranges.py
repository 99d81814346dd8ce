"""One check for the settings of training parts."""

from __future__ import annotations

import math

from assay.errors import SettingError


def check_range(
    part: object, name: str, low: float = 0.0, high: float = math.inf, *, above: bool = False, below: bool = False
) -> None:
    """Hold that a setting lies between two numbers.

    Args:
        part: whose setting it is.
        name: its name.
        low: the least that is allowed.
        high: the most.
        above: the least itself is not.
        below: the most itself is not.

    Raises:
        SettingError: it does not, or is no number.
    """
    value = getattr(part, name)
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if number and low <= value <= high and not (above and value == low) and not (below and value == high):
        return
    open_above = below or math.isinf(high)
    wanted = f"{'(' if above else '['}{low:g}, {high:g}{')' if open_above else ']'}"
    raise SettingError(f"{name} of {type(part).__name__} must be a number in {wanted}; got {value!r}.")
