"""The interface of defenses: what happens around a model when it answers, and how gradients get through."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from assay.errors import SettingError

Gradient = Literal["exact", "straight-through", "surrogate"]
GRADIENTS: tuple[Gradient, ...] = ("exact", "straight-through", "surrogate")
Model = Callable[[Tensor], Any]


class Defense(nn.Module, ABC):
    """What is done at test time around a trained model: in front of it, inside it or behind it.

    `defense(model, x)` is the answer of the defended model. Random numbers come from `assay.rng.stream`, so that they
    are keyed where the asker has a key. An attack that knows of the defense takes gradients of this answer: the
    defense itself says how they get through.

    Attributes:
        stochastic: it draws random numbers, so that an attack has to take means over draws (EOT).
        differentiable: the derivative of what it computes exists almost everywhere and is not zero there.
        gradient: what a backward pass follows: the derivative ("exact"), the identity in place of the defense
            ("straight-through"), or a differentiable stand-in of its own ("surrogate"). BPDA is any but the first.
        rejects: its answer has one output more than the model's, the last, which wins where an input is rejected.
    """

    stochastic: bool = False
    differentiable: bool = True
    gradient: Gradient = "exact"
    rejects: bool = False

    @abstractmethod
    def forward(self, model: Model, x: Tensor) -> Any:
        """The answer of the defended model.

        Args:
            model: what is defended: a network, or one with further defenses around it.
            x: inputs in [0, 1], `(b, *shape)`.
        """

    def __repr__(self) -> str:
        """The call that builds it again."""
        parts: list[str] = []
        own = type(self).__init__ is not nn.Module.__init__
        for name, parameter in (inspect.signature(type(self)).parameters if own else {}).items():
            value = getattr(self, name)
            if parameter.kind is parameter.VAR_POSITIONAL:
                parts += map(repr, value)
            elif value != parameter.default:
                parts.append(repr(value) if parameter.default is parameter.empty else f"{name}={value!r}")
        return f"{type(self).__name__}({', '.join(parts)})"


class InputDefense(Defense):
    """A defense in front of the model: it answers `model(transform(x))`.

    Where the gradient is not "exact", the backward pass of `transform` is that of `stand_in`.
    """

    @abstractmethod
    def transform(self, x: Tensor) -> Tensor:
        """What the model gets to see of the inputs."""

    def stand_in(self, x: Tensor) -> Tensor:
        """What is differentiated in place of `transform`, of the same shape; the inputs themselves unless said."""
        return x

    def forward(self, model: Model, x: Tensor) -> Any:
        """The model's answer to the transformed inputs."""
        return model(self.shown(x))

    def shown(self, x: Tensor) -> Tensor:
        """The transformed inputs, with the gradient that the defense declares."""
        if self.gradient == "exact" or not (x.requires_grad and torch.is_grad_enabled()):
            return self.transform(x)
        with torch.no_grad():
            value = self.transform(x)
        return through(value, self.stand_in(x))


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, stand_in: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        return None, grads[0]


def through(value: Tensor, stand_in: Tensor) -> Tensor:
    """The value of one tensor with the gradient of another of the same shape (BPDA).

    References:
        Athalye, Carlini, Wagner, "Obfuscated gradients give a false sense of security", ICML 2018,
        https://arxiv.org/abs/1802.00420

    Raises:
        SettingError: their shapes differ.

    Example:
        >>> x = torch.tensor([0.3], requires_grad=True)
        >>> through(x.detach().round(), x**2).backward()
        >>> x.grad
        tensor([0.6000])
    """
    if value.shape != stand_in.shape:
        raise SettingError(
            f"a stand-in for a gradient has the shape of what it stands for, {tuple(value.shape)}; this one has "
            f"{tuple(stand_in.shape)}."
        )
    found: Tensor = _Through.apply(value.detach(), stand_in)  # type: ignore[no-untyped-call]
    return found


def with_rejection(logits: Tensor, excess: Tensor) -> Tensor:
    """Logits with one output more, which wins exactly where a detector's score exceeds its threshold.

    `z_{K+1} = max_i z_i + excess`: differentiable where the score is, so that a loss on the outputs holds the
    detector's term.

    Args:
        logits: `(b, classes)`.
        excess: score minus threshold, `(b,)`; of several detectors the largest.

    References:
        Carlini, Wagner, "Adversarial examples are not easily detected: bypassing ten detection methods", AISec 2017,
        https://arxiv.org/abs/1705.07263 (there a product in place of the sum, for positive logits).

    Example:
        >>> with_rejection(torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([-0.5, 0.5])).argmax(dim=1)
        tensor([1, 2])
    """
    return torch.cat([logits, (logits.amax(dim=1) + excess)[:, None]], dim=1)


def check_gradient(defense: Defense, gradient: str, allowed: tuple[Gradient, ...] = GRADIENTS) -> Gradient:
    """The way of gradients, where the defense knows it.

    Raises:
        SettingError: it does not.
    """
    if gradient not in allowed:
        known = " or ".join(map(repr, allowed))
        raise SettingError(f"gradient of {type(defense).__name__} has to be {known}; got {gradient!r}.")
    return gradient


def check_count(who: str, name: str, value: object, low: int, high: int | None = None) -> int:
    """The value as a whole number within the limits.

    Raises:
        SettingError: it is none, or outside.
    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or cast(int, value) < low or (high is not None and cast(int, value) > high):
        limits = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise SettingError(f"{name} of {who} has to be a whole number {limits}; got {value!r}.")
    return cast(int, value)
