"""Any Python function as a model that answers with labels or scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from torch import Tensor

from assay.errors import SettingError
from assay.models.target import Target, as_labels, as_scores
from assay.oracle import Access


@final
class Function(Target):
    """A function on NumPy arrays or torch tensors: its answers may be asked for, nothing else.

    Args:
        call: from a batch of inputs to scores `(b, classes)` or labels `(b,)`, as arrays or tensors.
        access: "scores" or "labels".
        takes: "numpy" or "torch".

    Shapes:
        (b, *shape) -> (b, classes) scores in the type of x, or (b,) int64

    Raises:
        SettingError: another access or kind of array.
        ModelError: on a call, an answer that is neither.

    Example:
        >>> import numpy, torch
        >>> model = Function(lambda x: (x.mean(axis=(1, 2, 3)) > 0.5).astype(numpy.int64), access="labels")
        >>> model(torch.ones(2, 1, 4, 4))
        tensor([1, 1])
    """

    def __init__(self, call: Callable[[Any], Any], *, access: Access | str = "scores", takes: str = "numpy") -> None:
        super().__init__(access)
        if takes not in ("numpy", "torch"):
            raise SettingError(f"takes is 'numpy' or 'torch'; got {takes!r}.")
        self.call, self.takes = call, takes
        self.file_digest = f"{getattr(call, '__module__', '')}.{getattr(call, '__qualname__', type(call).__qualname__)}"

    def answer(self, x: Tensor) -> Tensor:
        """What the function says."""
        found = self.call(x.cpu().numpy() if self.takes == "numpy" else x)
        return (as_labels if self.access is Access.LABELS else as_scores)(found, x, "the function")
