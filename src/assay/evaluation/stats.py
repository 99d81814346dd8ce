"""Intervals for measured shares."""

from __future__ import annotations

import math
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
