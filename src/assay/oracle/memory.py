"""How many rows go to the model at once."""

from __future__ import annotations

import gc
from typing import Any, final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

# A micro-batch that was found by halving is remembered for the model.
_REMEMBERED: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
_VALUES_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 25}  # input values in the first micro-batch that is tried
_ROWS_AT_ONCE = {"cpu": 256, "cuda": 8192}


@final
class MicroBatch:
    """Rows per model call: as the caller says, or large at first and halved whenever memory runs out.

    Args:
        model: what is called.
        x: the clean inputs.
        fixed: rows as the caller wants them, or None.
    """

    def __init__(self, model: Any, x: Tensor, fixed: int | None) -> None:
        self._model, self._fixed = model, fixed
        kind = x.device.type if x.device.type in _ROWS_AT_ONCE else "cuda"
        fitting = max(1, _VALUES_AT_ONCE[kind] // max(1, x.shape[1:].numel()))
        self._first = min(_ROWS_AT_ONCE[kind], 1 << (fitting.bit_length() - 1))
        self._cuda = x.is_cuda

    @property
    def rows(self) -> int:
        """Rows per model call now."""
        if self._fixed is not None:
            return self._fixed
        known = _REMEMBERED.get(self._model) if isinstance(self._model, nn.Module) else None
        return self._first if known is None else known

    def shrink(self, rows: int) -> None:
        """Memory ran out: so many rows from now on, for this model."""
        if self._fixed is None and isinstance(self._model, nn.Module):
            _REMEMBERED[self._model] = rows
        else:
            self._fixed = rows
        gc.collect()
        if self._cuda:
            torch.cuda.empty_cache()


def out_of_memory(error: RuntimeError) -> bool:
    """Whether this is how torch says that memory ran out."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text
