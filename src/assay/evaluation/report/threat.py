"""What the report needs to know of a threat, read from the expression in run.json alone."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass
from typing import final

from assay.evaluation.report.words import fraction, plural, quantity


@final
@dataclass(frozen=True, kw_only=True)
class Facts:
    """A threat in the report: its name, its budget (None where there is none) and the valid inputs.

    ``unit`` is what a budget of whole numbers counts; empty for others.
    """

    name: str
    eps: float | None
    bounds: tuple[float, float]
    unit: str = ""

    @property
    def measure(self) -> str:
        """What a size is measured in."""
        return f"{self.name}, {self.unit}s" if self.unit else self.name

    def sized(self, number: str) -> str:
        """A size, already in words, as it stands in a sentence."""
        return f"{self.name} {number}{f' {self.unit}s' if self.unit else ''}"

    @property
    def words(self) -> str:
        """The budget as it stands in a sentence."""
        if self.eps is None:
            return self.measure
        if self.unit:
            return f"{self.name} {plural(math.floor(self.eps), self.unit)}"
        short = fraction(self.eps) if self.name.lower() == "linf" else None
        return f"{self.name} {short} ({quantity(self.eps)})" if short else f"{self.name} {quantity(self.eps)}"


def facts(expression: str) -> Facts:
    """Read a threat's expression; a threat that holds no plain number keeps its own text as its name.

    The run is reported from its files, so the class of the threat need not be installed.

    Args:
        expression: The threat as run.json states it.

    Example:
        >>> facts("Linf(0.1, bounds=(-1.0, 1.0))")
        Facts(name='Linf', eps=0.1, bounds=(-1.0, 1.0), unit='')
        >>> facts("Flow(0.05)").words
        'Flow 0.05'
        >>> facts("L0(20.0, unit='pixel')").words
        'L0 20 pixels'
    """
    unknown = Facts(name=expression, eps=None, bounds=(0.0, 1.0))
    try:
        call = ast.parse(expression.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        return unknown
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        return unknown
    settings = {word.arg: _literal(word.value) for word in call.keywords}
    values = [_literal(value) for value in call.args]
    eps = values[0] if values else settings.get("eps")
    bounds = settings.get("bounds")
    simple = not values or isinstance(eps, (int, float))
    return Facts(
        name=call.func.id if simple else expression,
        eps=float(eps) if isinstance(eps, (int, float)) else None,
        bounds=_pair(bounds) or (0.0, 1.0),
        unit=str(settings.get("unit") or "feature") if call.func.id == "L0" and simple else "",
    )


def _literal(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _pair(value: object) -> tuple[float, float] | None:
    if not isinstance(value, tuple) or len(value) != 2:
        return None
    low, high = value
    return (float(low), float(high)) if all(isinstance(v, (int, float)) for v in value) and low < high else None
