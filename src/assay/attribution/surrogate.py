"""Softplus in the place of ReLU, and attention that can be derived twice, so that gradients have gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from assay.errors import ModelError, SettingError

_FRESH: frozenset[Any] = frozenset({torch.relu, Tensor.relu, torch.ops.aten.relu.default})
_IN_PLACE: frozenset[Any] = frozenset({torch.relu_, Tensor.relu_, torch.ops.aten.relu_.default})


@contextmanager
def softplus(model: Any, beta: float = 50.0) -> Iterator[None]:
    r"""Inside the block every ReLU that this thread calls is $\frac{1}{\beta} \log(1 + e^{\beta x})$.

    Modules and functions alike, in place or not, in exported graphs too. The second derivatives of a network of ReLUs
    are zero almost everywhere, so that an attack on its gradients sees no slope; those of the surrogate are not, and
    for large $\beta$ its gradients are those of the network. Nothing in the model is touched: calls are redirected as
    long as the block lasts, however it ends.

    Args:
        model: whose ReLUs are meant.
        beta: how sharply the surrogate bends.

    Raises:
        SettingError: beta is not positive.
        ModelError: the model is TorchScript, whose calls cannot be redirected.

    Deviations:
        Units with other bends (leaky, clipped, max pooling) are left as they are.

    References:
        Dombrowski, Alber, Anders, Ackermann, Mueller, Kessel, "Explanations can be manipulated and geometry is to
        blame", NeurIPS 2019, https://arxiv.org/abs/1906.07983

    Example:
        >>> with softplus(torch.relu, beta=1.0):
        ...     float(torch.relu(torch.tensor(0.0)))
        0.6931471824645996
        >>> float(torch.relu(torch.tensor(0.0)))
        0.0
    """
    if not 0 < beta < float("inf"):
        raise SettingError(f"beta of softplus must be positive and finite; got {beta}.")
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "the ReLUs of a TorchScript model cannot be made smooth: use the module that it was made of, or "
            "beta=None to follow the model as it is."
        )
    with _Smooth(beta):
        yield


@contextmanager
def twice() -> Iterator[None]:
    """Inside the block attention is computed step by step: its fused kernels have first derivatives alone.

    Example:
        >>> x = torch.rand(1, 2, 3, requires_grad=True)
        >>> with twice():
        ...     (slope,) = torch.autograd.grad(F.scaled_dot_product_attention(x, x, x).sum(), x, create_graph=True)
        >>> torch.autograd.grad(slope.square().sum(), x)[0].shape
        torch.Size([1, 2, 3])
    """
    with sdpa_kernel(SDPBackend.MATH):
        yield


@final
class _Smooth(TorchFunctionMode):
    """Redirects calls of ReLU."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self._beta = beta

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func is F.relu:
            return self._of(args[0] if args else given["input"], in_place=_flag(args, given))
        if func in _FRESH or func in _IN_PLACE:
            found = args[0] if args else given.get("input", given.get("self"))
            return self._of(found, in_place=func in _IN_PLACE)
        return func(*args, **given)

    def _of(self, x: Any, *, in_place: bool) -> Any:
        if not in_place:
            return F.softplus(x, beta=self._beta)
        return x.copy_(F.softplus(x.clone(), beta=self._beta))  # the way back needs what stood there


def _flag(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether a call of `functional.relu` works in place."""
    return bool(args[1] if len(args) > 1 else kwargs.get("inplace", False))
