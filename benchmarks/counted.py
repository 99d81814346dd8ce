"""Count model passes by watching the model itself, so that every library is counted the same way."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Counted(nn.Module):
    """A network that counts the rows it pushes forward and the rows whose gradient it pulls back."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.reset()

    def reset(self) -> None:
        self.forwards = 0
        self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        rows = len(x)
        self.forwards += rows
        output = self.network(x)
        if torch.is_grad_enabled() and output.requires_grad:
            output.register_hook(lambda _: self._pulled_back(rows))
        return output

    def _pulled_back(self, rows: int) -> None:
        self.backwards += rows
