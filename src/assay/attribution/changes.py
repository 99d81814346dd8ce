"""What may be done to an explanation: the loss that leads there, and how far it went."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, final

import torch
from torch import Tensor

from assay.attribution.similarity import centre, centre_shift, largest, places, top_k
from assay.errors import InputError, SettingError


class Change(ABC):
    """A change of maps `(b, h, w)` or `(b, d)`, whose values are shares. Subclasses are frozen dataclasses.

    Attributes:
        towards: whether it leads to a map that has to be given.
    """

    towards: ClassVar[bool] = False

    @abstractmethod
    def loss(self, maps: Tensor, before: Tensor, target: Tensor | None) -> Tensor:
        """What grows with the change, `(b,)`, with a gradient.

        Args:
            maps: now.
            before: at the clean inputs.
            target: where they shall go, for changes that lead to a map.
        """

    @abstractmethod
    def amount(self, maps: Tensor, before: Tensor, target: Tensor | None) -> Tensor:
        """How far the change went, `(b,)` float64: 0 where nothing changed; the largest one is looked for."""


@final
@dataclass(frozen=True, kw_only=True)
class TopK(Change):
    r"""The k most important places lose their importance: $-\sum_{p \in B} h_p$, B the k largest places before.

    The amount is the share of these places that are no longer among the k largest.

    Args:
        k: how many places; one in eight, rounded up, when None.

    Raises:
        SettingError: k is not positive, or on a call larger than the map.

    References:
        Ghorbani, Abid, Zou, "Interpretation of neural networks is fragile", AAAI 2019,
        https://arxiv.org/abs/1710.10547

    Example:
        >>> before, now = torch.tensor([[0.6, 0.4, 0.0]]), torch.tensor([[0.6, 0.0, 0.4]])
        >>> float(TopK(k=2).amount(now, before, None))
        0.5
    """

    k: int | None = None

    def __post_init__(self) -> None:
        if self.k is not None and self.k < 1:
            raise SettingError(f"k must be at least 1; got {self.k}.")

    def loss(self, maps: Tensor, before: Tensor, target: Tensor | None) -> Tensor:
        """Minus what is left in the places that were the largest."""
        flat = before.flatten(1)
        chosen = largest(flat, places(flat.shape[1], self.k))
        return -torch.where(chosen, maps.flatten(1), 0).sum(dim=1)

    def amount(self, maps: Tensor, before: Tensor, target: Tensor | None) -> Tensor:
        """One minus the top-k intersection."""
        return 1 - top_k(maps, before, self.k)


@final
@dataclass(frozen=True)
class MassCentre(Change):
    r"""The centre of the map moves: $\|C(h) - C(h_0)\|_2^2$. The amount is how far, in pixels.

    References:
        Ghorbani, Abid, Zou, "Interpretation of neural networks is fragile", AAAI 2019,
        https://arxiv.org/abs/1710.10547

    Example:
        >>> before, now = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, 1.0]])
        >>> float(MassCentre().amount(now, before, None))
        2.0
    """

    def loss(self, maps: Tensor, before: Tensor, target: Tensor | None) -> Tensor:
        """The squared shift."""
        return (centre(maps) - centre(before)).square().sum(dim=1)

    def amount(self, maps: Tensor, before: Tensor, target: Tensor | None) -> Tensor:
        """The shift."""
        return centre_shift(maps, before)


@final
@dataclass(frozen=True, kw_only=True)
class Region(Change):
    r"""A chosen rectangle becomes important: $\sum_{p \in R} h_p$. The amount is by how much its share grows.

    Args:
        top: where it begins, as a share of the height.
        left: where it begins, as a share of the width (of all features of maps `(b, d)`).
        height: its share of the height.
        width: its share of the width.

    Raises:
        SettingError: it does not lie inside the image; on a call, it holds no pixel.

    References:
        Ghorbani, Abid, Zou, "Interpretation of neural networks is fragile", AAAI 2019,
        https://arxiv.org/abs/1710.10547 (the targeted attack)

    Example:
        >>> before, now = torch.full((1, 2, 2), 0.25), torch.tensor([[[0.5, 0.5], [0.0, 0.0]]])
        >>> float(Region(height=0.5, width=1.0).amount(now, before, None))
        0.5
    """

    top: float = 0.0
    left: float = 0.0
    height: float = 0.25
    width: float = 0.25

    def __post_init__(self) -> None:
        spans = (self.top, self.height, "top and height"), (self.left, self.width, "left and width")
        for start, size, names in spans:
            if not (0 <= start < 1 and 0 < size <= 1 and start + size <= 1 + 1e-9):
                raise SettingError(f"{names} are shares of the image that must lie inside it; got {start} and {size}.")

    def loss(self, maps: Tensor, before: Tensor, target: Tensor | None) -> Tensor:
        """The share of the rectangle."""
        return self._share(maps)

    def amount(self, maps: Tensor, before: Tensor, target: Tensor | None) -> Tensor:
        """What its share gained."""
        return (self._share(maps) - self._share(before)).double()

    def _share(self, maps: Tensor) -> Tensor:
        across = _between(maps.shape[-1], self.left, self.width)
        found = maps[..., across] if maps.ndim == 2 else maps[:, _between(maps.shape[1], self.top, self.height), across]
        if not found.shape[1:].numel():
            raise SettingError(f"{self!r} holds no pixel of maps of shape {tuple(maps.shape[1:])}: make it larger.")
        return found.flatten(1).sum(dim=1)


def _between(count: int, start: float, size: float) -> slice:
    return slice(round(start * count), round((start + size) * count))


@final
@dataclass(frozen=True)
class Manipulation(Change):
    r"""The map becomes another one that is given: $-\|h - t\|_2^2 / \|h_0 - t\|_2^2$.

    The amount is the share of the squared distance to the target that is gone.

    Deviations:
        The paper adds the distance of the outputs to the loss, limits no norm of the perturbation and lets beta of the
        softplus grow from 10 to 100 during the search; here the goal keeps the decision at one beta, inside a threat.

    References:
        Dombrowski, Alber, Anders, Ackermann, Mueller, Kessel, "Explanations can be manipulated and geometry is to
        blame", NeurIPS 2019, https://arxiv.org/abs/1906.07983

    Example:
        >>> before, now, target = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]), torch.tensor([[0.0, 1.0]])
        >>> float(Manipulation().amount(now, before, target))
        0.75
    """

    towards: ClassVar[bool] = True

    def loss(self, maps: Tensor, before: Tensor, target: Tensor | None) -> Tensor:
        """Minus the squared distance that is left, as a share."""
        return -_left(maps, before, target)

    def amount(self, maps: Tensor, before: Tensor, target: Tensor | None) -> Tensor:
        """The share of the squared distance that is gone."""
        return (1 - _left(maps, before, target)).double()


def _left(maps: Tensor, before: Tensor, target: Tensor | None) -> Tensor:
    if target is None:
        raise InputError("Manipulation leads to a map: give the goal a target.")
    whole = (before - target).flatten(1).square().sum(dim=1)
    whole = torch.where(whole > 0, whole, torch.ones_like(whole))
    return (maps - target).flatten(1).square().sum(dim=1) / whole
