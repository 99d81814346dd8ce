"""Quantiles, and intervals for measured shares and medians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist


def wilson(correct: int, samples: int, *, level: float = 0.95) -> tuple[float, float]:
    r"""Wilson score interval of a share: how far the true accuracy may be from the measured one.

    With $p$ the measured share of $n$ samples and $z$ the normal quantile of ``level``, the ends are

    $$\frac{p + z^2 / 2n \pm z \sqrt{p (1 - p) / n + z^2 / 4 n^2}}{1 + z^2 / n}.$$

    Unlike $p \pm z\sqrt{p(1-p)/n}$ it stays inside [0, 1] and has a width even when all or none are correct.

    Args:
        correct: How many samples were correct.
        samples: How many samples were asked. With none, nothing is known: the interval is (0, 1).
        level: Share of repeated measurements whose interval holds the true value.

    Raises:
        ValueError: ``correct`` lies outside 0..samples, or ``level`` outside (0, 1).

    References:
        Wilson, "Probable inference, the law of succession, and statistical inference", 1927,
        https://doi.org/10.1080/01621459.1927.10502953

    Example:
        >>> low, high = wilson(90, 100)
        >>> f"{low:.4f} {high:.4f}"
        '0.8256 0.9448'
    """
    if not 0 <= correct <= samples:
        raise ValueError(f"{correct} correct out of {samples} samples is not a share")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if samples == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share, shrink = correct / samples, z * z / samples
    middle = share + shrink / 2
    half = z * math.sqrt(share * (1 - share) / samples + shrink / (4 * samples))
    low = 0.0 if correct == 0 else (middle - half) / (1 + shrink)
    high = 1.0 if correct == samples else (middle + half) / (1 + shrink)
    return low, high


def quantile(ordered: Sequence[float], share: float) -> float:
    """A quantile, linear between the two order statistics beside it; infinite values may stand among them.

    Args:
        ordered: The values in rising order, at least one.
        share: Where between the smallest (0) and the largest (1).

    Raises:
        ValueError: There are no values, or ``share`` lies outside [0, 1].

    Example:
        >>> quantile([1.0, 2.0, 4.0, math.inf], 0.5), quantile([1.0, 2.0, 4.0, math.inf], 0.75)
        (3.0, inf)
    """
    if not ordered or not 0.0 <= share <= 1.0:
        raise ValueError(f"there is no quantile at {share} of {len(ordered)} values")
    place = share * (len(ordered) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    return below if below == above else below + (place - math.floor(place)) * (above - below)


def median_interval(ordered: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    r"""Interval of a median between two order statistics, whatever the distribution of the values.

    Of $n$ values the number below the true median is binomial with share 1/2, so that the interval from the $k$-th
    smallest to the $k$-th largest misses it with probability $2 P(B_{n, 1/2} < k)$ at most. The largest $k$ for which
    this is no more than ``1 - level`` is taken; where there is none, the values are too few to tell anything.

    Args:
        ordered: The values in rising order; infinite ones may stand among them.
        level: Share of repeated measurements whose interval holds the true median, at least.

    Raises:
        ValueError: ``level`` lies outside (0, 1).

    References:
        David and Nagaraja, "Order Statistics", 3rd edition 2003, section 7.1,
        https://doi.org/10.1002/0471722162

    Example:
        >>> median_interval([float(i) for i in range(1, 21)])
        (6.0, 15.0)
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    n, k, below = len(ordered), 0, 0.0
    while k < n:
        below += math.exp(math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) - n * math.log(2))
        if 2 * below > 1 - level:
            break
        k += 1
    return (ordered[k - 1], ordered[n - k]) if k else (-math.inf, math.inf)
