"""Weighted means of gradients at several points for each input, all sent through the model together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from assay.attribution.base import slopes


def mean_slope(model: Any, points: Tensor, weights: Tensor, classes: Tensor, *, graph: bool) -> Tensor:
    """The weighted sum of the gradients of one logit over the points of each input.

    Args:
        model: a module or callable that returns logits.
        points: `(b, k, *shape)`.
        weights: of the points, `(k,)`.
        classes: which logit, `(b,)`.
        graph: keep the way back to the points.

    Returns:
        `(b, *shape)`.
    """
    b, k = points.shape[:2]
    grad = slopes(model, points.flatten(0, 1), classes.repeat_interleave(k), graph=graph).map
    weights = weights.to(grad).reshape(1, k, *[1] * (points.ndim - 2))
    return torch.sum(grad.reshape(b, k, *points.shape[2:]) * weights, dim=1)
