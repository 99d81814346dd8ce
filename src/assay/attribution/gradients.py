"""The gradient of a logit, alone and times the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from torch import Tensor

from assay.attribution.base import Attribution, Explanation, slopes
from assay.goals import Passes
from assay.rng import Keyed


@final
@dataclass(frozen=True)
class Gradient(Attribution):
    r"""The gradient of the class's logit, $\partial z_c / \partial x$.

    Shapes:
        x `(b, *shape)` -> `(b, *shape)`

    Deviations:
        The paper takes absolute values and the largest over channels; here the gradient stays signed, and maps
        (`assay.attribution.heat`) sum absolute values over channels.

    References:
        Simonyan, Vedaldi, Zisserman, "Deep inside convolutional networks: visualising image classification models and
        saliency maps", ICLR workshop 2014, https://arxiv.org/abs/1312.6034

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(3, 2)
        >>> Gradient()(model, torch.rand(4, 3)).shape
        torch.Size([4, 3])
    """

    @property
    def passes(self) -> Passes:
        """One forward and one back."""
        return Passes(1, 1)

    def explain(self, model: Any, x: Tensor, classes: Tensor, rng: Keyed, *, graph: bool = False) -> Explanation:
        """Logits and gradients."""
        del rng
        return slopes(model, x, classes, graph=graph)


@final
@dataclass(frozen=True)
class GradientTimesInput(Attribution):
    r"""The gradient of the class's logit times the input, $x \, \partial z_c / \partial x$.

    Shapes:
        x `(b, *shape)` -> `(b, *shape)`

    References:
        Shrikumar, Greenside, Shcherbina, Kundaje, "Not just a black box: learning important features through
        propagating activation differences", 2016, https://arxiv.org/abs/1605.01713

    Example:
        >>> import torch
        >>> model, x = torch.nn.Linear(3, 2, bias=False), torch.rand(4, 3)
        >>> bool(torch.allclose(GradientTimesInput()(model, x).sum(1), model(x).amax(1)))
        True
    """

    @property
    def passes(self) -> Passes:
        """One forward and one back."""
        return Passes(1, 1)

    def explain(self, model: Any, x: Tensor, classes: Tensor, rng: Keyed, *, graph: bool = False) -> Explanation:
        """Logits, and gradients times inputs."""
        del rng
        logits, grad = slopes(model, x, classes, graph=graph)
        return Explanation(logits, grad * x)
