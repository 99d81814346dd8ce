"""The interface of corruptions: five severities, two tables of parameters, keyed draws, 8-bit results."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from assay.corruptions.severities import SEVERITIES, SMALL, TABLES
from assay.errors import InputError, SettingError
from assay.rng import Keyed, derive

Group = Literal["noise", "blur", "weather", "digital"]

_BLOCK = 1 << 19  # values worked on at once by a processor: what its caches hold
_ROUNDING = 1e-3  # of 255 parts: what float32 may lose of a whole number


@dataclass(frozen=True, repr=False)
class Corruption(ABC):
    """What happens to images without an adversary, at one of five severities.

    Images come in and go out in [0, 1]. What comes out is cut to 8 bits, as in the published sets, so that images
    written to a disk and read back are the same.

    Args:
        severity: from 1 to 5.
        table: "imagenet" or "cifar", whose parameters are used; None takes those of CIFAR-10-C for images whose shorter
            side has at most 64 pixels, and those of ImageNet-C for larger ones.

    Attributes:
        slug: its name in the published sets.
        group: noise, blur, weather or digital.
        extra: one of the four that the published mean leaves out.

    Raises:
        SettingError: the severity or the table is unknown.
    """

    severity: int = 1
    table: str | None = None

    slug: ClassVar[str]
    group: ClassVar[Group]
    extra: ClassVar[bool] = False

    def __post_init__(self) -> None:
        name = type(self).__name__
        if isinstance(self.severity, bool) or not isinstance(self.severity, int) or not 1 <= self.severity <= 5:
            raise SettingError(f"severity of {name} has to be a whole number from 1 to 5; got {self.severity!r}.")
        if self.table is not None and self.table not in TABLES:
            raise SettingError(f"table of {name} has to be {' or '.join(map(repr, TABLES))}; got {self.table!r}.")

    def __repr__(self) -> str:
        parts = (f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) is not None)
        return f"{type(self).__name__}({', '.join(parts)})"

    def parameters(self, shape: tuple[int, ...]) -> Any:
        """The parameters for images of this shape, `(..., height, width)`."""
        return SEVERITIES[type(self).__name__][self._table(shape)][self.severity - 1]

    def _table(self, shape: tuple[int, ...]) -> str:
        return self.table or table_of(shape)

    def __call__(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None, draw: int | Tensor = 0) -> Tensor:
        """The corrupted images.

        Args:
            x: images in [0, 1].
            seed: key of all draws.
            index: the images' own numbers; their places when None. An image's draws depend on nothing else.
            draw: which of the many corruptions of an image: one number, or one for each.

        Shapes:
            x `(b, c, height, width)` with 1 or 3 channels; index and draw `(b,)` int64.

        Raises:
            InputError: these are no images, or the numbers are not one for each.
        """
        check_images(x, type(self).__name__)
        numbers = torch.arange(len(x), device=x.device) if index is None else index.to(x.device)
        streams = torch.as_tensor(draw, device=x.device).expand(len(x)) if not isinstance(draw, Tensor) else draw
        for name, values in (("index", numbers), ("draw", streams)):
            if values.shape != (len(x),) or values.is_floating_point():
                raise InputError(f"{name} must hold a whole number for each of {len(x)} images; got {values!r}.")
        parameters, key = self.parameters(tuple(x.shape)), derive(seed, self.slug, self.severity)
        step = max(1, _BLOCK // x[0].numel()) if x.device.type == "cpu" and len(x) else max(1, len(x))
        found = torch.empty(x.shape, device=x.device)
        with torch.no_grad():
            for start in range(0, len(x), step):
                some = slice(start, start + step)
                rng = Keyed(key, numbers[some], stream=streams[some].to(x.device))
                eight_bits(self.apply(x[some].float(), parameters, rng), out=found[some])
        return found.to(x.dtype)

    @abstractmethod
    def apply(self, x: Tensor, parameters: Any, rng: Keyed) -> Tensor:
        """The images after the corruption with these parameters, not yet cut to [0, 1] and 8 bits, or 255ths in uint8.

        Shapes:
            x `(b, c, height, width)` float32, returns the same shape; rng one stream for each image.
        """


def table_of(shape: tuple[int, ...]) -> str:
    """Whose parameters images of this shape, `(..., height, width)`, have unless one is named."""
    return "cifar" if min(shape[-2:]) <= SMALL else "imagenet"


def check_images(x: Tensor, who: str) -> None:
    """Hold that these are images.

    Raises:
        InputError: they are not.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.is_floating_point():
        raise InputError(
            f"{who} is for images (b, channels, height, width) with 1 or 3 channels and values in [0, 1]; got "
            f"{x.dtype} of shape {tuple(x.shape)}."
        )
    if x.numel() and not 0 <= float(x.min()) <= float(x.max()) <= 1:
        raise InputError(f"{who} takes values in [0, 1]; got {float(x.min()):g} to {float(x.max()):g}.")


def eight_bits(x: Tensor, *, out: Tensor | None = None) -> Tensor:
    """Values cut down to whole 255ths, as files of the published sets hold them; of uint8 the 255ths as they are."""
    found = torch.empty(x.shape, device=x.device) if out is None else out
    if x.dtype == torch.uint8:
        return torch.div(x, 255, out=found)
    return torch.mul(x, 255, out=found).add_(_ROUNDING).clamp_(0, 255).floor_().div_(255)


def luminance(x: Tensor) -> Tensor:
    """How bright each pixel is, `(b, 1, height, width)`; ITU-R BT.601."""
    if x.shape[1] == 1:
        return x
    return (0.299 * x[:, :1]).add_(x[:, 1:2], alpha=0.587).add_(x[:, 2:], alpha=0.114)
