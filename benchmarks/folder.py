"""Networks and images from a folder that brings its own reader.

The reader is its file `load.py`, with `net(name)`, `cifar10("exact")`, `mnist()` and `truths(name)`.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import torch


def reader(folder: str | os.PathLike[str]) -> ModuleType:
    path = Path(folder) / "load.py"
    if not path.is_file():
        raise SystemExit(f"{folder} has no load.py: give a folder of networks and images with their reader")
    spec = importlib.util.spec_from_file_location("load", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def network(load: ModuleType, name: str) -> torch.nn.Module:
    """A network of the folder, or the TorchScript file of this name."""
    return (torch.jit.load(name) if name.endswith(".pt") else load.net(name)).eval()


def images(load: ModuleType, data: str, count: int):
    """The first `count` images of a set, with their labels: test images (of CIFAR-10 byte-exact ones) or as named."""
    readers = {
        "cifar10": lambda: load.cifar10("exact"),
        "cifar10-test": lambda: load.cifar10("test"),
        "cifar10-train": lambda: load.cifar10("train"),
        "mnist": lambda: load.mnist("test"),
        "fashion": lambda: load.fashion_mnist("test"),
    }
    x, y = readers[data]()
    return x[:count], y[:count]


def right_images(load: ModuleType, data: str, count: int, network: torch.nn.Module):
    """Those of the first `count` test images that the network has right, with their labels."""
    x, y = images(load, data, count)
    with torch.no_grad():
        right = network(x).argmax(1) == y
    return x[right], y[right]
