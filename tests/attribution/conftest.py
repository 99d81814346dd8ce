"""Small networks in double precision whose derivatives can be checked."""

from __future__ import annotations

import pytest
import torch
from torch import nn


@pytest.fixture
def net():
    """Makes a small convolutional network: 4 classes of 2x8x8 images."""

    def make(activation=nn.ReLU, seed=0):
        torch.manual_seed(seed)
        return (
            nn.Sequential(
                nn.Conv2d(2, 6, 3, padding=1),
                activation(),
                nn.Conv2d(6, 5, 3, stride=2),
                activation(),
                nn.Flatten(),
                nn.Linear(45, 4),
            )
            .double()
            .eval()
        )

    return make


@pytest.fixture
def images():
    """Makes images 2x8x8."""
    return lambda count=5, seed=1: torch.rand(
        count, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
