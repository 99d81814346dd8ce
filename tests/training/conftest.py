"""Small data, small networks, and what two runs are compared by."""

from __future__ import annotations

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from assay import train

SCRIPTS = Path(__file__).parents[2] / "scripts"


class Network(nn.Module):
    """A convolution, batch norm, dropout and a linear layer: 3 classes of 1x4x4 images."""

    def __init__(self, dropout=0.3):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(self.dropout(torch.relu(self.norm(self.conv(x))).flatten(1)))


@pytest.fixture(scope="session")
def samples():
    """Makes images 1x4x4, each class bright in other rows."""

    def make(count=72, seed=3):
        draw = torch.Generator().manual_seed(seed)
        y = torch.arange(count) % 3
        x = 0.2 + 0.3 * torch.rand(count, 1, 4, 4, generator=draw)
        x[torch.arange(count), 0, y] += 0.4
        return x, y

    return make


@pytest.fixture(scope="session")
def network():
    """Makes the same untrained network again and again."""

    def make(dropout=0.3):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            return Network(dropout)

    return make


@pytest.fixture(scope="session")
def linear():
    """Makes a linear classifier of 1x4x4 images, which starts at 0."""

    def make():
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        nn.init.zeros_(model[1].weight)
        nn.init.zeros_(model[1].bias)
        return model

    return make


@pytest.fixture(scope="session")
def quick():
    """Trains in silence, 2 epochs of batches of 16."""

    def run(model, data, **settings):
        return train(model, data, **{"recipe": "standard", "epochs": 2, "batch": 16, "progress": False} | settings)

    return run


def _plain(content):
    """A checkpoint without the times in it."""
    if isinstance(content, dict):
        timed = ("seconds", "total", "images_per_second")
        return {key: _plain(value) for key, value in content.items() if key not in timed}
    return [_plain(each) for each in content] if isinstance(content, (list, tuple)) else content


@pytest.fixture(scope="session")
def checkpoint():
    """Reads what a run ended with: weights, optimizer, average, what recipes carry, epochs."""
    return lambda folder: _plain(torch.load(folder / "checkpoint.pt", weights_only=True))


@pytest.fixture(scope="session")
def identical():
    """Holds that two checkpoints, or parts of them, are equal to the last bit."""

    def check(found, expected, at=""):
        assert type(found) is type(expected), at
        if isinstance(found, torch.Tensor):
            assert found.dtype == expected.dtype, at
            assert torch.equal(found, expected), at
        elif isinstance(found, dict):
            assert sorted(found, key=str) == sorted(expected, key=str), at
            for key in found:
                check(found[key], expected[key], f"{at}.{key}")
        elif isinstance(found, list):
            assert len(found) == len(expected), at
            for place, pair in enumerate(zip(found, expected, strict=True)):
                check(*pair, f"{at}[{place}]")
        else:
            assert found == expected, at

    return check


@pytest.fixture(scope="session")
def script_of():
    """Imports a script of the repository, for a while."""

    @contextmanager
    def load(name):
        sys.path.insert(0, str(SCRIPTS))
        try:
            yield importlib.import_module(name)
        finally:
            sys.path.remove(str(SCRIPTS))
            sys.modules.pop(name, None)

    return load
