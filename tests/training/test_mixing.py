"""Draws of Beta(a, a) against scipy's distribution, and what mixing takes them for."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from assay.rng import Keyed
from assay.training import mixing

WHOLE = torch.arange(20_000)


@pytest.mark.parametrize(
    ("a", "dtype"), [(a, torch.float64) for a in (0.2, 0.5, 1.0, 2.0, 8.0)] + [(1.0, torch.float32)]
)
def test_draws_follow_beta(a, dtype):
    draws = mixing.beta(Keyed(1, WHOLE, dtype=dtype), a)
    assert draws.dtype == dtype
    assert stats.kstest(draws.double().numpy(), stats.beta(a, a).cdf).pvalue > 0.01


def test_small_draws_keep_their_digits():
    draws = mixing.beta(Keyed(1, WHOLE, dtype=torch.float64), 0.1)
    small = draws[draws < 1e-6].log().numpy()  # P(B < b) is b^a up to a constant: the logarithm is exponential
    assert len(small) > 1000
    assert (
        stats.kstest((torch.tensor(1e-6).double().log() - torch.from_numpy(small)).numpy(), "expon", (0, 10)).pvalue
        > 0.01
    )


def test_other_parameters_are_other_distributions():
    draws = mixing.beta(Keyed(1, WHOLE), 1.0).double()
    assert stats.kstest(draws.numpy(), stats.beta(0.8, 0.8).cdf).pvalue < 1e-6


def test_a_sample_draws_the_same_in_any_batch():
    whole = mixing.beta(Keyed(5, torch.arange(10)), 0.3)
    part = mixing.beta(Keyed(5, torch.tensor([7, 2])), 0.3)
    assert torch.equal(part, whole[[7, 2]])


def test_permutations_are_uniform():
    counts = torch.zeros(6)
    known = {(0, 1, 2): 0, (0, 2, 1): 1, (1, 0, 2): 2, (1, 2, 0): 3, (2, 0, 1): 4, (2, 1, 0): 5}
    for seed in range(1200):
        counts[known[tuple(mixing.permutation(Keyed(seed, torch.arange(3))).tolist())]] += 1
    assert stats.chisquare(counts.numpy()).pvalue > 0.001


def test_mixing_takes_the_share_of_each_sample():
    x, other = torch.rand(3, 2, 4), torch.rand(3, 2, 4)
    lam = torch.tensor([0.0, 0.3, 1.0])
    mixed = mixing.mix(x, other, lam)
    assert torch.equal(mixed[0], other[0])
    assert torch.equal(mixed[2], x[2])
    assert torch.allclose(mixed[1], 0.3 * x[1] + 0.7 * other[1])
