"""Gaussian noise: on the input, and inside the network before each convolution."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from assay.corruptions import draws
from assay.defenses.base import Defense, InputDefense, Model
from assay.errors import ModelError
from assay.rng import given, stream
from assay.transformations.base import check_range

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@final
class InputNoise(InputDefense):
    """Noise on every input value: `x + sigma n` with n standard normal, not cut off at the bounds.

    Args:
        sigma: its standard deviation.

    Raises:
        SettingError: it is negative.

    References:
        Cohen, Rosenfeld, Kolter, "Certified adversarial robustness via randomized smoothing", ICML 2019,
        https://arxiv.org/abs/1902.02918

    Example:
        >>> InputNoise(0.25)(lambda x: x, torch.zeros(2, 3)).shape
        torch.Size([2, 3])
    """

    stochastic = True

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = check_range("InputNoise", "sigma", sigma, 0, float("inf"))

    def transform(self, x: Tensor) -> Tensor:
        """The inputs with noise."""
        return x + self.sigma * stream(x).normal(*x.shape[1:]).to(x)


@final
class NoiseLayers(Defense):
    """Gaussian noise before every convolution of the network, in the order in which it holds them.

    `h <- h + first n` before the first, `h <- h + inner n` before each other one, with n standard normal and fresh for
    every value. It acts inside the network, so that it stands last where there are several defenses. A network that was
    trained with the noise too (`insert_noise`, or `assay train "Defended('SmallCNN()', NoiseLayers())"`) keeps its
    accuracy under it.

    Args:
        first: standard deviation before the first convolution.
        inner: before the others.

    Raises:
        SettingError: a deviation is negative.
        ModelError: on a call, what is defended is no network with convolutions.

    Deviations:
        Numbers that are keyed are rounded to 65,536 quantiles of the normal distribution, the outermost at 4.3.

    References:
        Liu, Cheng, Zhang, Hsieh, "Towards robust neural networks via random self-ensemble", ECCV 2018,
        https://arxiv.org/abs/1712.00673

    Example:
        >>> NoiseLayers()(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), torch.zeros(4, 1, 3, 3)).shape
        torch.Size([4, 2])
    """

    stochastic = True

    def __init__(self, first: float = 0.2, inner: float = 0.1) -> None:
        super().__init__()
        self.first = check_range("NoiseLayers", "first", first, 0, float("inf"))
        self.inner = check_range("NoiseLayers", "inner", inner, 0, float("inf"))

    def forward(self, model: Model, x: Tensor) -> Any:
        """The network's answer with noise in it."""
        with _noisy(model, self.first, self.inner):
            return model(x)


def insert_noise(network: nn.Module, first: float = 0.2, inner: float = 0.1) -> nn.Module:
    """Have noise added before every convolution of a network from now on, in training too.

    Its parameters and their names stay as they are: weights that were trained so are read into the plain network.

    Args:
        network: changed in place, and returned.
        first: standard deviation before the first convolution.
        inner: before the others.

    Raises:
        SettingError: a deviation is negative.
        ModelError: there is no convolution.

    Example:
        >>> network = insert_noise(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()))
        >>> x = torch.zeros(1, 1, 3, 3)
        >>> bool((network(x) == network(x)).all()), list(network.state_dict())
        (False, ['0.weight', '0.bias'])
    """
    settings = NoiseLayers(first, inner)
    _insert(network, settings.first, settings.inner)
    return network


@contextmanager
def _noisy(network: Model, first: float, inner: float) -> Iterator[None]:
    """Noise before the convolutions for the time of a call."""
    handles = _insert(network, first, inner)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _insert(network: Model, first: float, inner: float) -> list[RemovableHandle]:
    parts = list(network.modules()) if isinstance(network, nn.Module) else []
    found = [part for part in parts if isinstance(part, _CONVOLUTIONS)]
    if not found:
        raise ModelError(
            f"NoiseLayers acts inside a network with convolutions, and finds none in this {type(network).__name__}: "
            "name it last of several defenses, around the network itself."
        )
    return [part.register_forward_pre_hook(_Noise(first if place == 0 else inner)) for place, part in enumerate(found)]


class _Noise:
    """Adds noise to what goes into a module."""

    def __init__(self, std: float) -> None:
        self.std = std

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        h, *rest = inputs
        rng = given(h)
        noise = torch.randn_like(h) if rng is None else draws.normal(rng, *h.shape[1:]).to(h)
        return (h + self.std * noise, *rest)
