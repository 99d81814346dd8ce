from __future__ import annotations

import pytest

from assay.evaluation.stats import wilson


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


def test_level_widens_the_interval() -> None:
    narrow, wide = wilson(30, 100, level=0.5), wilson(30, 100, level=0.99)
    assert wide[0] < narrow[0] < 0.3 < narrow[1] < wide[1]


def test_nothing_asked_is_nothing_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("correct", "samples", "level"), [(3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_refuses_what_is_no_share(correct: int, samples: int, level: float) -> None:
    with pytest.raises(ValueError, match=r"share|level"):
        wilson(correct, samples, level=level)
