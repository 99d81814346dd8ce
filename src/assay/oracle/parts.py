"""One micro-batch of questions, and where its answers belong in the logical batch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor


@final
@dataclass(frozen=True)
class Part:
    """One micro-batch of questions.

    Attributes:
        move: which of the flat moves `(b * k, ...)`; a slice where they stand together, which copies nothing.
        sample: which samples they are about.
        rows: the same as indices.
    """

    move: slice | Tensor
    sample: slice | Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, pairs: Tensor | None, start: int, stop: int, k: int, x: Tensor) -> Part:
        """Questions start to stop of these pairs (row * k + candidate), or of all."""
        numbers = torch.arange(start, stop, device=x.device) if pairs is None else pairs[start:stop]
        move = slice(start, stop) if pairs is None else numbers
        return cls(move, move if k == 1 else numbers // k, numbers if k == 1 else numbers // k)

    def scatter(self, answers: dict[str, Any], found: dict[str, Any], total: int) -> None:
        """Write this micro-batch's answers to their places among the answers to all moves."""
        for name, value in found.items():
            if len(self) == total:
                answers[name] = value
            else:
                missing = 0.0 if name == "grad" else math.nan
                answers[name] = self._placed(answers.get(name), value, total, missing=missing)

    def _placed(self, whole: Any, value: Any, total: int, *, missing: float) -> Any:
        """All answers of one kind, with these in their places; made where there are none yet."""
        if isinstance(value, tuple):
            known = [None] * len(value) if whole is None else whole
            parts = (self._placed(one, part, total, missing=missing) for one, part in zip(known, value, strict=True))
            return type(value)(*parts)
        if isinstance(value, Tensor):
            if whole is None:
                whole = value.new_full((total, *value.shape[1:]), missing if value.is_floating_point() else -1)
            whole[self.move] = value
            return whole
        whole = [None] * total if whole is None else whole
        places = range(total)[self.move] if isinstance(self.move, slice) else self.move.tolist()
        for place, one in zip(places, value, strict=True):
            whole[place] = one
        return whole


def shaped(value: Any, shape: tuple[int, ...]) -> Any:
    """Answers `(b * k, ...)` as `(b, k, ...)` where there were candidates."""
    if len(shape) == 1:
        return value
    b, k = shape
    if isinstance(value, tuple):
        return type(value)(*(shaped(part, shape) for part in value))
    if isinstance(value, Tensor):
        return value.reshape(b, k, *value.shape[1:])
    return [value[i * k : (i + 1) * k] for i in range(b)]
