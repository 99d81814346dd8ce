"""The networks that purifiers and detectors bring: what each kind answers, and how a setting names one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar, final

from torch import Tensor, nn

from assay import registry
from assay.defenses.base import through
from assay.defenses.logistic_mixture import LEVELS, LogisticMixture
from assay.errors import ModelError, SettingError
from assay.threats.additive import widened


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
    """A network that knows how likely an image of 256 levels is, pixel by pixel in raster order.

    Attributes:
        channels: of the images.
    """

    channels: int

    @abstractmethod
    def numbers(self, levels: Tensor) -> Tensor:
        """The numbers of a `LogisticMixture` for each pixel, which depend on the pixels before it alone.

        Shapes:
            `(b, c, h, w)` whole numbers from 0 to 255 -> `(b, n, h, w)`
        """

    def log_likelihood(self, x: Tensor) -> Tensor:
        """The logarithm of the probability of each image, values in [0, 1] rounded to 256 levels; `(b,)`, in nats."""
        levels = as_levels(x)
        mixture = LogisticMixture(widened(self.numbers(levels)), self.channels)
        return mixture.log_prob(levels).flatten(1).sum(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """As `log_likelihood`."""
        return self.log_likelihood(x)

    def bits(self, x: Tensor) -> Tensor:
        """Bits that a code of this density spends on a value: `-log2 p(x) / d`, `(b,)`."""
        return -self.log_likelihood(x) / (x[0].numel() * math.log(2))

    def scan(self, levels: Tensor) -> Scan:
        """Images that are gone through pixel by pixel, and changed on the way; a whole evaluation for each pixel.

        Args:
            levels: `(b, c, h, w)`, whole numbers from 0 to 255.
        """
        return WholeScan(self, levels)


class Scan(ABC):
    """Images of which each pixel is asked about, and then set, in raster order."""

    @abstractmethod
    def at(self, row: int, column: int) -> LogisticMixture:
        """The distribution of the next pixel, given those that were set."""

    @abstractmethod
    def put(self, row: int, column: int, levels: Tensor) -> None:
        """Set this pixel of each image, `(b, c)`."""


@final
class WholeScan(Scan):
    """A scan that evaluates the whole network for each pixel: slow, and right for every density.

    Args:
        density: the network.
        levels: the images.
    """

    def __init__(self, density: Density, levels: Tensor) -> None:
        self.density, self.levels = density, levels.clone()

    def at(self, row: int, column: int) -> LogisticMixture:
        """The distribution there, of all that the network answers."""
        return LogisticMixture(self.density.numbers(self.levels)[:, :, row, column], self.density.channels)

    def put(self, row: int, column: int, levels: Tensor) -> None:
        """Set the pixel."""
        self.levels[:, :, row, column] = levels


def as_levels(x: Tensor) -> Tensor:
    """Values in [0, 1] as the nearest of 256 levels, whole numbers of the same type; gradients pass the rounding."""
    wide = x * (LEVELS - 1)
    return through(wide.round().clamp(0, LEVELS - 1), wide)


def called(call: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The answer of a network, or of one of its methods, which is asked in the type of its own weights."""
    network: Any = getattr(call, "__self__", call)
    return call(x.to(next(network.parameters()).dtype)).to(x.dtype)


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


def name_of(given: str | nn.Module) -> str:
    """The text of a setting that names a network, which a defense is written with."""
    return given if isinstance(given, str) else repr(given)
