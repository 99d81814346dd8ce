"""The networks that purifiers and detectors bring: what each kind answers, and how a setting names one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TypeVar

import torch
from torch import Tensor, nn

from assay import registry
from assay.errors import ModelError, SettingError


class Autoencoder(nn.Module, ABC):
    """A network that answers with images of the shape of its inputs.

    Shapes:
        `(b, c, h, w)` -> the same
    """

    @abstractmethod
    def activations(self, x: Tensor) -> list[Tensor]:
        """What each layer gives, the last of them the reconstruction."""

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction."""
        return self.activations(x)[-1]


class Density(nn.Module, ABC):
    """A network that knows how likely an image of 256 levels is."""

    @abstractmethod
    def log_likelihood(self, x: Tensor) -> Tensor:
        """The logarithm of the probability of each image, values in [0, 1] rounded to 256 levels; `(b,)`, in nats."""

    def forward(self, x: Tensor) -> Tensor:
        """As `log_likelihood`."""
        return self.log_likelihood(x)

    def bits(self, x: Tensor) -> Tensor:
        """Bits that a code of this density spends on a value: `-log2 p(x) / d`, `(b,)`."""
        return -self.log_likelihood(x) / (x[0].numel() * torch.log(x.new_tensor(2.0)))


class Generator(nn.Module, ABC):
    """A network that makes images of normal latents.

    Attributes:
        latent: numbers of a latent.

    Shapes:
        `(b, latent)` -> `(b, c, h, w)` in [0, 1]
    """

    latent: int


Kind = TypeVar("Kind", bound=nn.Module)


def trained(who: str, name: str, given: str | nn.Module, kind: type[Kind]) -> Kind:
    """The network that a setting names, in eval mode; its parameters take no gradients.

    Args:
        who: the defense.
        name: the setting.
        given: a shipped model, the folder of a training run, whatever else `load_model` reads, or the network itself.
        kind: what it has to be: `Autoencoder`, `Density` or `Generator`, or `nn.Module` for any.

    Raises:
        ModelError: it cannot be loaded.
        SettingError: it is something else.
    """
    try:
        found = registry.reader("model")(given) if isinstance(given, str) else given
    except ModelError as error:
        raise ModelError(f"{name} of {who}: {error}") from error
    if not isinstance(found, kind):
        what = f"{given!r}, which is a {type(found).__name__}" if isinstance(given, str) else repr(given)
        lead = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise SettingError(
            f"{name} of {who} has to be {lead} {kind.__name__} that was trained, by the name of a shipped one or the "
            f"folder of its training; got {what}."
        )
    return found.eval().requires_grad_(False)
