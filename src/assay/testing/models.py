"""Small networks that the contract checks attack, and a wrapper that counts what is really asked."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn


@final
class Counting(nn.Module):
    """Counts the rows that pass through a model, forwards and, as far as gradients reach the input, backwards.

    Args:
        model: The model to watch.

    Example:
        >>> model = Counting(nn.Linear(2, 3))
        >>> model(torch.zeros(5, 2, requires_grad=True)).sum().backward()
        >>> model.forwards, model.backwards
        (5, 5)
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = 0
        self.backwards = 0

    def forward(self, x: Tensor) -> Any:
        """The model's own output."""
        self.forwards += len(x)
        return self.model(_Watch.apply(x, self))  # type: ignore[no-untyped-call]


class _Watch(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counter: Counting) -> Tensor:
        ctx.counter = counter
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        ctx.counter.backwards += len(grads[0])
        return grads[0], None


@final
class Gradientless(nn.Module):
    """A model behind a wall that autograd cannot pass, with the access that it declares."""

    def __init__(self, model: nn.Module, access: int, *, labels: bool = False) -> None:
        super().__init__()
        self.model = model
        self.access = access
        self.labels = labels

    def forward(self, x: Tensor) -> Tensor:
        """Scores, or decisions alone where only labels are granted."""
        with torch.no_grad():
            z: Tensor = self.model(x)
        return z.argmax(1) if self.labels else z


def curved(features: int, classes: int, bounds: tuple[float, float], dtype: torch.dtype = torch.float64) -> nn.Module:
    """A network with one hidden layer of sines: a curved landscape with fixed weights, in evaluation mode."""
    generator = torch.Generator().manual_seed(7)
    low, high = bounds
    first = torch.randn(24, features, generator=generator) * (3 / ((high - low) * features**0.5))
    second = torch.randn(classes, 24, generator=generator) * 0.5
    net = nn.Sequential(nn.Flatten(), nn.Linear(features, 24), _Sine(), nn.Linear(24, classes)).to(dtype)
    net.load_state_dict(
        {
            "1.weight": first,
            "1.bias": first.sum(1) * (-(low + high) / 2),
            "3.weight": second,
            "3.bias": torch.zeros(classes),
        }
    )
    return net.eval()


class _Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


@final
class Layered(nn.Module):
    """A convolutional network with two batch norms and dropout: everything whose mode an attack could disturb."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.frozen = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(4, classes)
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, x: Tensor) -> Tensor:
        """Scores (b, classes)."""
        z: Tensor = self.frozen(self.norm(self.first(x)).relu())
        return self.last(self.drop(z.mean((2, 3))))  # type: ignore[no-any-return]
