"""Exact bounds on the share behind a count: Clopper-Pearson, and the two-sided test of a fair coin."""

from __future__ import annotations

import math
from functools import lru_cache

_BISECTIONS = 60
_TERMS = 100_000  # of the continued fraction, at most
_SMALLEST = 1e-300


@lru_cache(maxsize=100_000)
def lower_bound(count: int, trials: int, alpha: float) -> float:
    """A number below the true share, with confidence 1 - alpha: the one-sided Clopper-Pearson bound.

    The share p with `P(Binomial(trials, p) >= count) = alpha`.

    Args:
        count: successes.
        trials: how many were tried.
        alpha: the chance that the bound is wrong.

    References:
        Clopper, Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", 1934,
        https://doi.org/10.1093/biomet/26.4.404

    Example:
        >>> round(lower_bound(100, 100, 0.001), 6) == round(0.001 ** (1 / 100), 6)
        True
    """
    if count == 0:
        return 0.0
    low, high = 0.0, count / trials
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if at_least(count, trials, middle) < alpha:
            low = middle
        else:
            high = middle
    return low


@lru_cache(maxsize=100_000)
def fair_coin(count: int, trials: int) -> float:
    """The two-sided p-value of so many successes with a fair coin.

    Example:
        >>> round(fair_coin(9, 10), 12) == round(2 * 11 / 1024, 12)
        True
    """
    most = max(count, trials - count)
    return min(1.0, 2 * at_least(most, trials, 0.5)) if trials else 1.0


def at_least(count: int, trials: int, share: float) -> float:
    """`P(Binomial(trials, share) >= count)`, the regularised incomplete beta function I_share(count, trials-count+1).

    Example:
        >>> round(at_least(1, 2, 0.5), 12)
        0.75
    """
    if count <= 0 or share >= 1:
        return 1.0
    if share <= 0 or count > trials:
        return 0.0
    a, b = float(count), float(trials - count + 1)
    if share < (a + 1) / (a + b + 2):  # where the fraction converges fast
        return _part(a, b, share)
    return 1 - _part(b, a, 1 - share)


def _part(a: float, b: float, x: float) -> float:
    """I_x(a, b) by its continued fraction (Lentz's way of evaluating it)."""
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1 / _away(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = 1.0
        for term in (even, odd):
            d = 1 / _away(1 + term * d)
            c = _away(1 + term / c)
            step = d * c
            value *= step
        if abs(step - 1) < 1e-15:
            break
    return min(1.0, math.exp(front) * value / a)


def _away(number: float) -> float:
    return number if abs(number) > _SMALLEST else _SMALLEST
