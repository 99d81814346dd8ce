"""The axis of perturbation sizes, which the chart of accuracy and the chart of distances share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from assay.evaluation.report.words import fraction, quantity, size


@final
@dataclass(frozen=True, kw_only=True)
class Tick:
    """One labelled place on the axis; ``below`` is the second line of its label."""

    at: float
    text: str
    below: str


@final
@dataclass(frozen=True, kw_only=True)
class Axis:
    """Sizes from ``start`` to ``end``, laid out from ``left`` to ``right`` on the page.

    ``pixels`` labels them as fractions of 255, ``whole`` at whole numbers only.
    """

    start: float
    end: float
    left: float
    right: float
    pixels: bool = False
    whole: bool = False

    def place(self, value: float) -> float:
        """Where a size lies."""
        return round(self.left + (value - self.start) / (self.end - self.start) * (self.right - self.left), 2)

    def ticks(self, most: int) -> list[Tick]:
        """Round places between start and end: multiples of a pixel step where sizes are fractions of 255.

        Example:
            >>> axis = Axis(start=0.0, end=40.0, left=0.0, right=100.0, whole=True)
            >>> [(tick.text, tick.at) for tick in axis.ticks(5)]
            [('0', 0.0), ('10', 25.0), ('20', 50.0), ('30', 75.0), ('40', 100.0)]
        """
        length = self.end - self.start
        unit = 1 / 255 if self.pixels else 10.0 ** math.floor(math.log10(length)) / 10
        steps = (factor * 10**power for power in range(9) for factor in (1, 2, 5))
        if self.pixels:
            steps = (2**power for power in range(9))
        elif self.whole:
            unit = max(unit, 1.0)
        step = next((s * unit for s in steps if length / (s * unit) <= most), length)
        ticks = []
        for k in range(math.ceil(self.start / step - 1e-6), math.floor(self.end / step + 1e-6) + 1):
            value = k * step
            if self.pixels:
                text, below = f"{round(value * 255)}/255" if k else "0", quantity(value) if k else ""
            else:
                text, below = size(round(value, 12)) if k else "0", ""
            ticks.append(Tick(at=self.place(value), text=text, below=below))
        return ticks


def eps_words(eps: float, linf: bool) -> str:
    """A budget in words, with its fraction of 255 where it is one."""
    short = fraction(eps) if linf else None
    return f"{short} ({quantity(eps)})" if short else size(eps)
