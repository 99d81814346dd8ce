"""The interface of attributions: which features of an input speak for a class, and how much."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from assay.attacks.base import evaluating
from assay.errors import InputError, ModelError
from assay.goals import Passes
from assay.inputs import check_inputs
from assay.oracle.memory import MicroBatch
from assay.rng import Keyed, derive
from assay.threats.additive import widened

ANYWHERE = (-float("inf"), float("inf"))


class Explanation(NamedTuple):
    """What a model says of inputs, and why: both have one row for each.

    Attributes:
        logits: `(b, classes)`.
        map: how much each feature counts for the class that is explained.
    """

    logits: Tensor
    map: Tensor


class Attribution(ABC):
    """A way to explain a class by the features of the input. Subclasses are frozen dataclasses."""

    @property
    @abstractmethod
    def passes(self) -> Passes:
        """Passes through the model for one explanation, with the logits at the input itself."""

    @abstractmethod
    def explain(self, model: Any, x: Tensor, classes: Tensor, rng: Keyed, *, graph: bool = False) -> Explanation:
        """Explain one class of each input.

        Args:
            model: a module or callable that returns logits.
            x: inputs, `(b, *shape)`.
            classes: what is explained, `(b,)` int64.
            rng: keyed random numbers, one stream per input.
            graph: keep the way back to `x` (and to the model's weights), for second derivatives.

        Returns:
            Logits at `x` and attributions, signed where the method's are; shaped like `x` unless the class says
            otherwise.
        """

    @final
    def __call__(
        self,
        model: Any,
        x: Tensor,
        classes: Tensor | None = None,
        *,
        seed: int = 0,
        index: Tensor | None = None,
        micro_batch: int | None = None,
    ) -> Tensor:
        """Attributions of a batch of any size; the model runs in eval mode, and its own modes are put back.

        Args:
            model: a module or callable that returns logits.
            x: inputs, `(b, *shape)`.
            classes: which class of each is explained, `(b,)`; the model's decision when None.
            seed: key of random draws.
            index: the samples' own numbers for them; their place in this batch when None.
            micro_batch: rows per model call; found by the size of the inputs when None.

        Raises:
            InputError: inputs or classes cannot be used.
            ModelError: the model returns no logits, or gives no gradient.

        Example:
            >>> from assay.attribution import Gradient
            >>> model = torch.nn.Linear(3, 2)
            >>> x = torch.rand(2, 3)
            >>> bool(torch.equal(Gradient()(model, x, torch.tensor([0, 1])), model.weight.detach()))
            True
        """
        check_inputs(x, ANYWHERE)
        for name, values in (("classes", classes), ("index", index)):
            if values is not None and not _numbers(values, len(x)):
                raise InputError(f"{name} must be a tensor of one whole number for each of {len(x)} inputs.")
        numbers = torch.arange(len(x), device=x.device) if index is None else index.to(x.device)
        rows = max(1, MicroBatch(model, x, micro_batch).rows // self.passes.forwards)
        found = []
        with evaluating(model), torch.inference_mode(False):
            for start in range(0, len(x), rows):
                some = slice(start, start + rows)
                part = x[some].detach().clone()
                with torch.no_grad():
                    own = logits_of(model, part).argmax(dim=1) if classes is None else classes[some].to(x.device).long()
                found.append(self.explain(model, part, own, draws(seed, numbers[some], x)).map.detach())
        return torch.cat(found)


def _numbers(values: Any, count: int) -> bool:
    """Whether these are so many whole numbers."""
    whole = isinstance(values, Tensor) and values.dtype in (torch.int64, torch.int32)
    return whole and tuple(values.shape) == (count,)


def draws(seed: int, index: Tensor, x: Tensor) -> Keyed:
    """The random numbers of an explanation: those of a sample are always the same."""
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return Keyed(derive(seed, "attribution"), index, dtype=dtype)


def logits_of(model: Any, x: Tensor) -> Tensor:
    """The model's logits.

    Raises:
        ModelError: it returns something else.
    """
    logits = model(x)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or not logits.is_floating_point():
        found = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"a class is explained by its logit: the model must return (batch, classes); got {found}.")
    return logits


def slopes(model: Any, x: Tensor, classes: Tensor, *, graph: bool) -> Explanation:
    """Logits, and the gradient of the chosen one with respect to each input.

    Raises:
        InputError: a class is none of the model's.
        ModelError: no gradient reaches the input.
    """
    with torch.enable_grad():
        x = x if graph and x.requires_grad else x.detach().requires_grad_()
        logits = logits_of(model, x)
        (grad,) = back(chosen(logits, classes), x, graph=graph)
    return Explanation(logits if graph else logits.detach(), grad)


def chosen(logits: Tensor, classes: Tensor) -> Tensor:
    """The sum of one logit of each input.

    Raises:
        InputError: a class is none of the model's.
    """
    if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < logits.shape[1]:
        raise InputError(
            f"classes to explain run from {int(classes.min())} to {int(classes.max())}; the model has "
            f"{logits.shape[1]}, from 0."
        )
    return logits.gather(1, classes[:, None]).sum()


def back(value: Tensor, *towards: Tensor, graph: bool) -> tuple[Tensor, ...]:
    """Gradients of a value.

    Raises:
        ModelError: there are none.
    """
    try:
        return torch.autograd.grad(value, towards, create_graph=graph)
    except RuntimeError as error:
        if "does not require grad" not in str(error) and "not have been used" not in str(error):
            raise
        raise ModelError(
            "no gradient reaches the input, and attributions are gradients: the model's output does not depend on it "
            "in a way that autograd can follow (.detach(), NumPy, rounding, or an ONNX model)."
        ) from error


def heat(attributions: Tensor) -> Tensor:
    r"""The map of an explanation: absolute attributions, summed over the channels of images, as shares that sum to 1.

    $h_p = \sum_c |a_{cp}| / \sum_{cq} |a_{cq}|$; all 0 where every attribution is.

    Shapes:
        images `(b, channels, h, w)` -> `(b, h, w)`; others `(b, *shape)` -> the same.

    References:
        Ghorbani, Abid, Zou, "Interpretation of neural networks is fragile", AAAI 2019,
        https://arxiv.org/abs/1710.10547

    Example:
        >>> heat(torch.tensor([[[[1.0, 0.0]], [[-2.0, 1.0]]]]))
        tensor([[[0.7500, 0.2500]]])
    """
    size = widened(attributions).abs()
    size = size.sum(dim=1) if size.ndim == 4 else size
    total = size.flatten(1).sum(dim=1)
    total = torch.where(total > 0, total, torch.ones_like(total))
    return size / total.reshape(-1, *[1] * (size.ndim - 1))
