"""What people are told where the device has too little memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from assay.errors import TrainingError


@contextmanager
def enough_memory(what: str) -> Iterator[None]:
    """Say what helps where the device has too little memory.

    Args:
        what: what it was for.

    Raises:
        TrainingError: in place of torch's own error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the device has too little memory for {what}: take a smaller --batch or --precision bf16-mixed. "
            f"({str(error).splitlines()[0]})"
        ) from error
