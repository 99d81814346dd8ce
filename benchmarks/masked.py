"""Small networks whose gradients vanish, saturate or are masked, trained on the spot.

Each is a convolutional network for 28 x 28 images, as TorchScript, so that every library reads the same file:

    distilled   trained at temperature 100 on the answers of another one: at temperature 1 its logits are far apart
    one-hot     softmax outputs, trained to be the one-hot labels: they are 0 and 1 but for rounding
    sigmoid     sigmoid activations, whose weights were scaled up after training: gradients vanish
    quantised   inputs rounded to 16 levels: the gradient is exactly zero
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

KINDS = ("distilled", "one-hot", "sigmoid", "quantised")
_TEMPERATURE = 100.0
_SCALE = 1000.0
_LEVELS = 15
_BATCH = 128


class _Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x * _LEVELS).round() / _LEVELS


def _network(activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), activation(), nn.Conv2d(16, 32, 4, 2, 1), activation(),
        nn.Flatten(), nn.Linear(1568, 100), activation(), nn.Linear(100, 10),
    )  # fmt: skip


def _fit(network: nn.Module, x: Tensor, target: Tensor, loss, epochs: int) -> None:
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(_BATCH):
            optimizer.zero_grad()
            loss(network(x[rows]), target[rows]).backward()
            optimizer.step()


def _at_temperature(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output / _TEMPERATURE, target)


def _made(kind: str, x: Tensor, y: Tensor, epochs: int) -> nn.Module:
    torch.manual_seed(0)
    network = _network(nn.Sigmoid if kind == "sigmoid" else nn.ReLU)
    if kind == "one-hot":
        network = nn.Sequential(network, nn.Softmax(dim=1))
        _fit(network, x, F.one_hot(y, 10).float(), F.mse_loss, epochs)
    elif kind == "distilled":
        _fit(network, x, y, _at_temperature, epochs)
        with torch.no_grad():
            soft = torch.cat([(network(part) / _TEMPERATURE).softmax(dim=1) for part in x.split(1000)])
        network = _network()
        _fit(network, x, soft, _at_temperature, epochs)
    else:
        _fit(network, x, y, F.cross_entropy, epochs)
    if kind == "sigmoid":
        with torch.no_grad():
            for parameter in network[:-1].parameters():
                parameter.mul_(_SCALE)
    return nn.Sequential(_Rounded(), network) if kind == "quantised" else network


def build(kind: str, x: Tensor, y: Tensor, folder: Path, epochs: int = 3) -> Path:
    """Train a network and write it; what is there already is taken as it is."""
    path = folder / f"{kind}.pt"
    if not path.is_file():
        write(_made(kind, x, y, epochs), x[:1], path)
    return path


def write(network: nn.Module, example: Tensor, path: Path) -> None:
    """Write a network as TorchScript, without gradients of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.jit.trace(network.eval().requires_grad_(False), example).save(str(path))
