"""Gradients that hold for other models too: looked up ahead, averaged over views and neighbours, and smoothed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import final

import torch
from torch import Tensor

from assay.attacks.diverse import draw, resized_and_padded
from assay.attacks.images import image_shape
from assay.errors import SettingError, ThreatError
from assay.losses import Loss
from assay.oracle import Oracle, View
from assay.rng import Keyed
from assay.threats import Flow, Threat
from assay.threats.additive import Additive, widened

_SPREAD = 3.0  # standard deviations from the middle of a kernel to its edge


@final
@dataclass(frozen=True, kw_only=True)
class Transferable:
    """What is done to a gradient so that the model it comes from matters less; nothing by default.

    Args:
        nesterov: take it where the momentum would lead.
        diverse: the probability with which an image is resized and padded before the model sees it.
        scales: over how many copies of the input, each half as bright as the one before, it is averaged.
        neighbours: how many random moves nearby tell how it varies.
        reach: how far away these are, as a multiple of eps.
        kernel_radius: pixels over which it is smoothed to every side.

    Raises:
        SettingError: a setting is out of range.
    """

    nesterov: bool = False
    diverse: float = 0.0
    scales: int = 1
    neighbours: int = 0
    reach: float = 1.5
    kernel_radius: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.diverse <= 1:
            raise SettingError(f"diverse is a probability, from 0 to 1; got {self.diverse}.")
        for name, value, least in (
            ("scales", self.scales, 1),
            ("neighbours", self.neighbours, 0),
            ("kernel_radius", self.kernel_radius, 0),
        ):
            if value < least:
                raise SettingError(f"{name} must be at least {least}; got {value}.")
        if not self.reach > 0:
            raise SettingError(f"reach must be positive; got {self.reach}.")

    @property
    def plain(self) -> bool:
        """Whether gradients are left as they are."""
        return not (self.nesterov or self.diverse or self.scales > 1 or self.neighbours or self.kernel_radius)

    def check(self, threat: Threat) -> None:
        """Hold that the moves of this threat can be treated so.

        Raises:
            ThreatError: they are no images, and cannot be smoothed.
        """
        if self.kernel_radius and not isinstance(threat, Additive | Flow):
            raise ThreatError(f"kernel_radius smooths perturbations and flows; the moves of {threat!r} are no images.")


@final
class Gradients:
    """The gradients of one climb.

    With tuned variance (`neighbours` n) a gradient at theta is `g(theta) + v`, v the mean of `g(theta_i) - g(theta)`
    over the n neighbours of the step before. g is the mean over the scales `low + (x - low) / 2^i` of the gradient
    through a view drawn anew each time; smoothing comes last.

    Args:
        settings: what is done to them.
        oracle: answers.
        x: clean inputs, `(b, *shape)`.
        threat: which moves are allowed.
        loss: the loss to climb.
        rng: keyed random numbers.
    """

    def __init__(
        self, settings: Transferable, oracle: Oracle, x: Tensor, threat: Threat, loss: Loss | None, rng: Keyed
    ) -> None:
        self._settings, self._oracle, self._x, self._threat = settings, oracle, x, threat
        self._loss, self._rng = loss, rng
        self._around = (
            threat.with_eps(settings.reach * threat.eps) if settings.neighbours and threat.eps is not None else None
        )
        self._variance = torch.zeros_like(threat.identity(x))

    def at(self, theta: Tensor, direction: Tensor, jump: Tensor) -> Tensor:
        """The gradient to follow from these moves.

        Args:
            theta: moves, `(b, *m)`.
            direction: the running sum of gradients.
            jump: how far momentum carries a sum of length 1 (as the sum of its absolute values), `(b,)`.
        """
        if self._settings.nesterov or self._settings.diverse:
            self._oracle.judge(theta)  # the gradient is that of another input
        if self._settings.nesterov:
            length = direction.flatten(1).abs().sum(dim=1)
            theta = self._threat.ascend(self._x, theta, direction, jump * length.to(jump))
        grad = self._mean_of_scales(theta)
        found = grad + self._variance
        if self._around is not None:
            total = torch.zeros_like(grad)
            for _ in range(self._settings.neighbours):
                total += self._mean_of_scales(theta + self._around.start(self._x, self._rng))
            self._variance = total / self._settings.neighbours - grad
        return smoothed(found, self._settings.kernel_radius)

    def _mean_of_scales(self, theta: Tensor) -> Tensor:
        scales = self._settings.scales
        total = self._gradient(theta, 0)
        for i in range(1, scales):
            total = total + self._gradient(theta, i)
        return total / scales if scales > 1 else total

    def _gradient(self, theta: Tensor, halvings: int) -> Tensor:
        view = None
        if self._settings.diverse or halvings:
            show = partial(_shown, halvings=halvings, diverse=self._settings.diverse, low=self._threat.bounds[0])
            drawn = draw(self._rng, self._x) if self._settings.diverse else self._x.new_zeros(len(self._x), 0)
            view = View(show, drawn)
        _, grad, _ = self._oracle.gradient(theta, self._loss, view=view)
        return grad


def smoothed(grad: Tensor, radius: int) -> Tensor:
    """Gradients `(b, c, h, w)` or signals, each channel under a Gaussian of `2 radius + 1` pixels a side, 0 outside.

    Its standard deviation is a third of the radius, and its weights sum to 1.

    Raises:
        ThreatError: they are no images.

    Example:
        >>> smoothed(torch.tensor([[0.0, 1.0, 0.0]]), 1)
        tensor([[0.0109, 0.9783, 0.0109]])
    """
    if not radius:
        return grad
    _, height, width = image_shape(grad, "kernel_radius")
    line = torch.linspace(-_SPREAD, _SPREAD, 2 * radius + 1, dtype=widened(grad).dtype, device=grad.device)
    weights = (-line.square() / 2).softmax(dim=0)
    image = widened(grad).reshape(-1, 1, height, width)
    if height > 1:
        image = torch.nn.functional.conv2d(image, weights.reshape(1, 1, -1, 1), padding=(radius, 0))
    if width > 1:
        image = torch.nn.functional.conv2d(image, weights.reshape(1, 1, 1, -1), padding=(0, radius))
    return image.reshape(grad.shape).to(grad.dtype)


def _shown(moved: Tensor, drawn: Tensor, *, halvings: int, diverse: float, low: float) -> Tensor:
    """A darker copy, resized and padded where the draw says so."""
    seen = low + (moved - low) / 2**halvings if halvings else moved
    return resized_and_padded(seen, drawn, diverse, low) if diverse else seen
