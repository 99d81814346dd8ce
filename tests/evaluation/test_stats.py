from __future__ import annotations

import math

import numpy as np
import pytest

from assay.evaluation.stats import median_interval, quantile, wilson


@pytest.mark.parametrize(
    ("correct", "samples", "low", "high"),
    [  # as scipy.stats.binomtest gives them
        (0, 10, 0.0, 0.277533),
        (10, 10, 0.722467, 1.0),
        (5, 10, 0.236593, 0.763407),
        (81, 263, 0.255289, 0.366210),  # Newcombe 1998, table I: 0.2553 to 0.3662
        (1, 1, 0.206549, 1.0),
    ],
)
def test_known_values(correct: int, samples: int, low: float, high: float) -> None:
    found = wilson(correct, samples)
    assert found[0] == pytest.approx(low, abs=1e-5)
    assert found[1] == pytest.approx(high, abs=1e-5)


def test_covers_the_truth_as_often_as_it_says() -> None:
    """Exact coverage of a binomial with 50 draws, averaged over shares, is near 95 %."""
    from math import comb

    shares = [i / 40 for i in range(2, 39)]
    covered = 0.0
    for p in shares:
        for k in range(51):
            low, high = wilson(k, 50)
            if low <= p <= high:
                covered += comb(50, k) * p**k * (1 - p) ** (50 - k)
    assert covered / len(shares) == pytest.approx(0.95, abs=0.01)


def test_the_interval_of_a_median_is_that_of_the_tables() -> None:
    """Ranks for 95 % from tables of the sign test; below six values there are none."""
    for n, rank in ((6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (50, 18), (100, 40), (1000, 469)):
        values = [float(i) for i in range(1, n + 1)]
        assert median_interval(values) == (rank, n + 1 - rank), n
    assert median_interval([1.0] * 5) == (-math.inf, math.inf)
    assert median_interval([]) == (-math.inf, math.inf)
    assert median_interval([1.0] * 6 + [math.inf] * 5) == (1.0, math.inf)
    low, high = median_interval([float(i) for i in range(20_000)])
    assert high - low == pytest.approx(1.96 * 20_000**0.5, abs=2)


def test_the_interval_of_a_median_covers_the_truth_at_least_as_often_as_it_says() -> None:
    """Whatever the distribution, the true median lies between order statistics k and n + 1 - k this often."""
    for n in range(6, 60):
        low, high = median_interval([float(i) for i in range(1, n + 1)])
        inside = sum(math.comb(n, below) for below in range(int(low), int(high))) / 2**n
        wider = sum(math.comb(n, below) for below in range(int(low) + 1, int(high) - 1)) / 2**n
        assert inside >= 0.95 > wider, n


def test_quantiles_are_those_of_numpy_and_infinite_values_may_stand_among_them() -> None:
    values = np.sort(np.random.default_rng(0).normal(size=17)).tolist()
    for part in (0.0, 0.1, 0.25, 0.5, 0.9, 1.0):
        assert quantile(values, part) == pytest.approx(np.quantile(values, part))
    assert quantile([1.0, math.inf], 0.5) == math.inf
    assert quantile([1.0, 2.0, math.inf], 0.5) == 2.0
    assert quantile([math.inf, math.inf], 0.5) == math.inf
    for wrong in (([], 0.5), ([1.0], 1.5)):
        with pytest.raises(ValueError, match="no quantile"):
            quantile(*wrong)


def test_level_widens_the_interval() -> None:
    narrow, wide = wilson(30, 100, level=0.5), wilson(30, 100, level=0.99)
    assert wide[0] < narrow[0] < 0.3 < narrow[1] < wide[1]


def test_nothing_asked_is_nothing_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("correct", "samples", "level"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_refuses_what_is_no_share(correct: int, samples: int, level: float) -> None:
    with pytest.raises(ValueError, match=r"share|level"):
        wilson(correct, samples, level=level)
