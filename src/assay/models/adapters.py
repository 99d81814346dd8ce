"""Small modules that make a foreign model look like ours: inputs in [0, 1], logits out, any batch size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from typing_extensions import Self


@final
class Normalized(nn.Module):
    """A model behind the normalisation that it was trained with, so that its inputs lie in [0, 1].

    Args:
        model: takes ``(x - mean) / std``.
        mean: one value per channel.
        std: one value per channel.

    Shapes:
        (b, c, H, W) -> what the model returns; ``.logits`` of it where it has them.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, x: Tensor) -> Any:
        """Output of the model on the normalised input."""
        output = self.model((x - self.mean) / self.std)
        return getattr(output, "logits", output)


@final
class Exported(nn.Module):
    """A program of ``torch.export``, which has no train or eval mode of its own and may have a fixed batch size.

    Args:
        program: the module that runs it.
        batch: the batch size it was exported with; None when it takes any.
    """

    file_digest: str

    def __init__(self, program: nn.Module, batch: int | None) -> None:
        super().__init__()
        self.program = program
        self.batch = batch
        for module in program.modules():
            module.training = False

    def forward(self, x: Tensor) -> Any:
        """Output of the program."""
        return self.program(x) if self.batch is None else in_batches(self.program, x, self.batch)

    def train(self, mode: bool = True) -> Self:
        """Set the flag of this module only: the program's behaviour was fixed when it was exported."""
        self.training = mode
        return self


def in_batches(call: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """Call a function that takes exactly ``size`` rows; the last batch is filled up with its own first row.

    Args:
        call: from ``size`` rows to ``size`` rows.
        x: any number of rows, at least one.
        size: rows per call.

    Example:
        >>> in_batches(lambda rows: rows * len(rows), torch.arange(3), 2)
        tensor([0, 2, 4])
    """
    outputs = []
    for rows in torch.split(x, size):
        missing = size - len(rows)
        full = torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])]) if missing else rows
        outputs.append(call(full)[: len(rows)])
    return torch.cat(outputs)
