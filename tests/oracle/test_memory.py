"""The micro-batch fits the memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import assay
from assay.goals import Untargeted
from assay.oracle import Oracle


@pytest.mark.parametrize("message", ["CUDA out of memory. Tried", "DefaultCPUAllocator: can't allocate memory"])
def test_micro_batch_is_halved_when_memory_runs_out_and_remembered(message):
    class Tight(nn.Linear):
        def forward(self, x):
            if len(x) > 3:
                raise RuntimeError(message)
            batches.append(len(x))
            return super().forward(x)

    batches: list[int] = []
    model = Tight(4, 3, bias=False, dtype=torch.float64)
    x = torch.rand(10, 4, dtype=torch.float64)
    oracle = Oracle(model, x, Untargeted(torch.zeros(10, dtype=torch.int64)), assay.Linf(0.1))
    out = oracle.scores(torch.zeros_like(x))
    assert torch.allclose(out, x @ model.weight.T)
    assert max(batches) <= 3
    assert oracle.record.forwards.tolist() == [1] * 10
    again = Oracle(model, x, Untargeted(torch.zeros(10, dtype=torch.int64)), assay.Linf(0.1))
    assert again.micro_batch <= 3
