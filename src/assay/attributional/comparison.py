"""How alike the maps of a set of samples are before and after: by every metric, as columns and as means."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import final

from torch import Tensor

from assay.attribution.similarity import centre_shift, inside, kendall_tau, spearman, ssim, top_k

INSIDE = "inside"


@final
@dataclass(frozen=True, kw_only=True)
class Metric:
    """One way to compare.

    Attributes:
        name: what tables call it.
        unchanged: its value for equal maps.
        images: whether it needs maps `(b, h, w)`.
    """

    name: str
    unchanged: float
    images: bool = False


METRICS: dict[str, Metric] = {
    "top_k": Metric(name="top-k intersection", unchanged=1.0),
    "kendall": Metric(name="Kendall's tau", unchanged=1.0),
    "spearman": Metric(name="Spearman's rho", unchanged=1.0),
    "centre": Metric(name="centre shift (pixels)", unchanged=0.0),
    "ssim": Metric(name="SSIM", unchanged=1.0, images=True),
    INSIDE: Metric(name="inside the mask", unchanged=math.nan),
}


@final
@dataclass(frozen=True, kw_only=True)
class Mean:
    """A mean over samples, its 95 % interval (unknown for one), and how many it is of: those that have the metric."""

    value: float
    low: float | None
    high: float | None
    samples: int


def compared(before: Tensor, after: Tensor, k: int | None, masks: Tensor | None = None) -> dict[str, Tensor]:
    """Every metric that the maps allow, `(b,)` float64 each.

    Args:
        before: maps, `(b, h, w)` or `(b, d)`.
        after: maps of the same samples.
        k: of the top-k intersection.
        masks: where maps should lie, for the localisation after the change.
    """
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "top_k": partial(top_k, k=k),
        "kendall": kendall_tau,
        "spearman": spearman,
        "centre": centre_shift,
        "ssim": ssim,
    }
    found = {key: way(before, after) for key, way in ways.items() if before.ndim == 3 or not METRICS[key].images}
    return found if masks is None else found | {INSIDE: inside(after, masks)}


def mean(values: Tensor) -> Mean | None:
    """The mean of those values that are numbers, with the interval of a normal mean; None without any.

    Example:
        >>> import torch
        >>> mean(torch.tensor([1.0, 3.0, float("nan")])).value
        2.0
    """
    values = values[values.isfinite()].double()
    n = len(values)
    if n == 0:
        return None
    middle = float(values.mean())
    if n == 1:
        return Mean(value=middle, low=None, high=None, samples=1)
    half = NormalDist().inv_cdf(0.975) * float(values.std()) / math.sqrt(n)
    return Mean(value=middle, low=middle - half, high=middle + half, samples=n)
