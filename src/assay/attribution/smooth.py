"""SmoothGrad."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from assay.attribution.base import Attribution, Explanation, logits_of
from assay.attribution.points import mean_slope
from assay.errors import SettingError
from assay.goals import Passes
from assay.rng import Keyed


@final
@dataclass(frozen=True, kw_only=True)
class SmoothGrad(Attribution):
    r"""The mean gradient over noisy copies: $\frac{1}{n} \sum_i \nabla z_c(x + \sigma u_i)$ with normal $u_i$.

    The draws of a sample are keyed by its number: they are the same in any batch, and for all changes of it.

    Args:
        draws: noisy copies, n.
        std: standard deviation of the noise, in the unit of the input.

    Shapes:
        x `(b, *shape)` -> `(b, *shape)`

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        The paper scales the noise with the range of each image, 10 to 20 % of it; here it is in the unit of the input.

    References:
        Smilkov, Thorat, Kim, Viegas, Wattenberg, "SmoothGrad: removing noise by adding noise", 2017,
        https://arxiv.org/abs/1706.03825

    Example:
        >>> model = torch.nn.Linear(3, 2)
        >>> x = torch.rand(1, 3)
        >>> found = SmoothGrad(draws=4)(model, x)
        >>> bool(torch.allclose(found, model.weight[model(x).argmax()]))
        True
    """

    draws: int = 25
    std: float = 0.15

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise SettingError(f"draws must be at least 1; got {self.draws}.")
        if not 0 < self.std < float("inf"):
            raise SettingError(f"std must be positive and finite; got {self.std}.")

    @property
    def passes(self) -> Passes:
        """One forward and one back for each draw, and one forward at the input."""
        return Passes(self.draws + 1, self.draws)

    def explain(self, model: Any, x: Tensor, classes: Tensor, rng: Keyed, *, graph: bool = False) -> Explanation:
        """Logits and mean gradients."""
        with torch.set_grad_enabled(graph):
            logits = logits_of(model, x)
            noise = rng.normal(self.draws, *x.shape[1:]).to(x)
            weights = x.new_full((self.draws,), 1 / self.draws)
            grad = mean_slope(model, x[:, None] + self.std * noise, weights, classes, graph=graph)
            return Explanation(logits, grad)
