"""The interface of random transformations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from assay.errors import InputError, SettingError
from assay.rng import Keyed

Drawn = Any  # what one transformation drew for n inputs: a tensor (n, ...), or a tuple of what parts of it drew


@dataclass(frozen=True, repr=False)
class Transformation(ABC):
    """A random change of an image that its maker does not control: of pose, light, camera or storage.

    `t(x; p) with p ~ draw`. Inputs lie in [0, 1] and so do the results. Every input has parameters of its own, so that
    nothing depends on how inputs are batched. Concrete classes are frozen dataclasses: their `repr` builds them again.
    """

    def __repr__(self) -> str:
        parts = []
        for position, field in enumerate(fields(self)):
            value = getattr(self, field.name)
            if value != field.default:
                parts.append(repr(value) if position == 0 else f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"

    @abstractmethod
    def draw(self, rng: Keyed, shape: tuple[int, ...]) -> Drawn:
        """Parameters for one input of this shape per stream of `rng`, `(n, ...)`."""

    @abstractmethod
    def apply(self, x: Tensor, drawn: Drawn) -> Tensor:
        """The transformed inputs, `(n, *shape)`; differentiable in x.

        Raises:
            InputError: it is for images and these are none.
        """


def draw_each(transformations: Sequence[Transformation], rng: Keyed, shape: tuple[int, ...]) -> tuple[Drawn, ...]:
    """Parameters of several transformations, one after the other."""
    return tuple(transformation.draw(rng, shape) for transformation in transformations)


def apply_each(transformations: Sequence[Transformation], x: Tensor, drawn: tuple[Drawn, ...]) -> Tensor:
    """Several transformations in their order."""
    for transformation, parameters in zip(transformations, drawn, strict=True):
        x = transformation.apply(x, parameters)
    return x


def check_images(x: Tensor, who: object, channels: tuple[int, ...] = ()) -> None:
    """Hold that these are images `(n, channels, height, width)`.

    Raises:
        InputError: they are not.
    """
    if x.ndim != 4 or (channels and x.shape[1] not in channels):
        wanted = " or ".join(str(c) for c in channels) or "any number of"
        raise InputError(
            f"{who!r} is for images (n, channels, height, width) with {wanted} channels; got shape {tuple(x.shape)}."
        )


def check_range(who: str, name: str, value: object, low: float, high: float) -> float:
    """The value as a number in [low, high].

    Raises:
        SettingError: it is none, or outside.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        limits = f"of at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise SettingError(f"{name} of {who} has to be a number {limits}; got {value!r}.")
    return float(value)


def column(drawn: Tensor, x: Tensor) -> Tensor:
    """Parameters `(n,)` in x's dtype, ready to be combined with `(n, *shape)`."""
    return drawn.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def nothing(rng: Keyed) -> Tensor:
    """The parameters of a transformation that has none."""
    return torch.zeros(len(rng.index), 0, dtype=rng.dtype, device=rng.index.device)
