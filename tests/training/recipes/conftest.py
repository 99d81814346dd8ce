"""A small network with batch norm and dropout, and batches for it, in float64."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn

from assay.training.recipes import Batch


class Small(nn.Module):
    """A convolution, batch norm, dropout and a linear layer: 5 classes of 1x6x6 images."""

    def __init__(self, dropout):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(64, 5)

    def forward(self, x):
        return self.head(self.dropout(torch.tanh(self.norm(self.conv(x))).flatten(1)))


@pytest.fixture
def net():
    """Makes the network: in train mode, with statistics of batch norm that are not those of any batch."""

    def make(dropout=0.3, seed=0):
        torch.manual_seed(seed)
        model = Small(dropout).double().train()
        with torch.no_grad():
            for _ in range(3):
                model(torch.rand(16, 1, 6, 6, dtype=torch.float64))
            model.norm.weight.uniform_(0.5, 1.5)
            model.head.weight.mul_(4)  # answers that are not all alike
        return model

    return make


@pytest.fixture
def batch():
    """Makes a batch of inputs that are a budget of 0.1 away from the bounds."""

    def make(size=6, **settings):
        draw = torch.Generator().manual_seed(7)
        x = 0.2 + 0.6 * torch.rand(size, 1, 6, 6, generator=draw, dtype=torch.float64)
        y = torch.randint(0, 5, (size,), generator=draw)
        made = Batch(x=x, y=y, index=torch.arange(size) * 3 + 1, seed=11)
        return replace(made, **settings)

    return make


@pytest.fixture
def agree():
    """Holds that a recipe's loss, its gradient and what it does to buffers are those of a formula."""

    def check(recipe, model, batch, views, formula):
        other = copy.deepcopy(model)
        torch.manual_seed(5)
        loss = recipe.loss(model, batch, views)
        torch.manual_seed(5)
        expected = formula(other)
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-11)
        grads = torch.autograd.grad(loss, list(model.parameters()))
        for found, wanted in zip(grads, torch.autograd.grad(expected, list(other.parameters())), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-11)
        for found, wanted in zip(model.buffers(), other.buffers(), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)

    return check


@pytest.fixture
def passes():
    """Notes each call of a network while it is open."""

    @contextmanager
    def counted(model):
        calls = []
        hook = model.register_forward_hook(lambda _, inputs, __: calls.append(inputs[0].detach()))
        yield calls
        hook.remove()

    return counted
