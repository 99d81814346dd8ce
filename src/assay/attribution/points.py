"""Weighted means of gradients at several points for each input, sent through the model in full micro-batches."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from assay.attribution.base import slopes
from assay.oracle.memory import MicroBatch


def mean_slope(model: Any, points: Tensor, weights: Tensor, classes: Tensor, *, graph: bool) -> Tensor:
    """The weighted sum of the gradients of one logit over the points of each input.

    Args:
        model: a module or callable that returns logits.
        points: `(b, k, *shape)`.
        weights: of the points, `(k,)`.
        classes: which logit, `(b,)`.
        graph: keep the way back to the points; they then go through the model all at once.

    Returns:
        `(b, *shape)`.
    """
    b, k = points.shape[:2]
    weights = weights.to(points).reshape(1, k, *[1] * (points.ndim - 2))
    at_once = k if graph else max(1, MicroBatch(model, points[:, 0], None).rows // b)
    total = torch.zeros_like(points[:, 0])
    for start in range(0, k, at_once):
        part = points[:, start : start + at_once]
        rows = classes.repeat_interleave(part.shape[1])
        grad = slopes(model, part.flatten(0, 1), rows, graph=graph).map.reshape(part.shape)
        total = total + torch.sum(grad * weights[:, start : start + at_once], dim=1)
    return total
