"""Metrics against scipy, and against sums over all pairs and windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from assay.attribution.similarity import centre_shift, inside, kendall_tau, spearman, ssim, top_k
from assay.errors import InputError, SettingError


def pairs(seed, shape, ties):
    draw = torch.Generator().manual_seed(seed)
    a, b = (torch.rand(3, *shape, generator=draw, dtype=torch.float64) for _ in range(2))
    b = 0.5 * a + 0.5 * b
    return ((6 * a).floor(), (5 * b).floor()) if ties else (a, b)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("shape", [(2,), (5,), (33,), (8, 8), (7, 13)])
def test_rank_correlations_are_scipy_s(shape, ties):
    a, b = pairs(1, shape, ties)
    for i, (tau, rho) in enumerate(zip(kendall_tau(a, b), spearman(a, b), strict=True)):
        one, other = a[i].flatten().numpy(), b[i].flatten().numpy()
        if len(set(one)) > 1 and len(set(other)) > 1:
            assert float(tau) == pytest.approx(stats.kendalltau(one, other).statistic, abs=1e-12)
            assert float(rho) == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12)
        else:
            assert tau.isnan()
            assert rho.isnan()


def test_they_are_one_for_equal_and_minus_one_for_opposite_orders():
    a = torch.rand(2, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for metric in (kendall_tau, spearman):
        torch.testing.assert_close(metric(a, a.exp()), torch.ones(2, dtype=torch.float64))
        torch.testing.assert_close(metric(a, -a), -torch.ones(2, dtype=torch.float64))


def test_top_k_counts_common_places_and_breaks_ties_by_place():
    a = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0, 0.0]])
    b = torch.tensor([[5.0, 0.0, 4.0, 3.0, 2.0, 1.0]])
    assert [float(top_k(a, b, k)) for k in (1, 2, 3, 6)] == [1.0, 0.5, 2 / 3, 1.0]
    assert float(top_k(torch.ones(1, 6), a, 2)) == 1.0  # of equal values the first two
    assert float(top_k(a, b)) == 1.0  # one in eight, rounded up


def test_the_centre_moves_by_what_is_shifted():
    a = torch.zeros(1, 9, 9)
    a[0, 2:4, 3:5] = torch.rand(2, 2)
    b = torch.roll(a, (3, 4), dims=(1, 2))
    assert float(centre_shift(a, 7 * b)) == pytest.approx(5.0)
    assert float(centre_shift(a, a)) == 0
    assert float(centre_shift(a[:, 2], b[:, 5])) == pytest.approx(4.0)  # maps without rows


def test_ssim_is_the_sum_over_windows():
    draw = torch.Generator().manual_seed(2)
    a, b = (torch.rand(1, 14, 15, generator=draw, dtype=torch.float64) for _ in range(2))
    span = max(float(a.max()), float(b.max()))
    place = np.arange(11) - 5
    line = np.exp(-(place**2) / (2 * 1.5**2))
    weight = np.outer(line, line) / line.sum() ** 2
    found = []
    for top in range(4):
        for left in range(5):
            one, other = (m[0, top : top + 11, left : left + 11].numpy() for m in (a, b))
            mean, there = (weight * one).sum(), (weight * other).sum()
            var, far = (weight * (one - mean) ** 2).sum(), (weight * (other - there) ** 2).sum()
            both = (weight * (one - mean) * (other - there)).sum()
            dark, flat = (0.01 * span) ** 2, (0.03 * span) ** 2
            found.append(
                (2 * mean * there + dark) * (2 * both + flat) / ((mean**2 + there**2 + dark) * (var + far + flat))
            )
    assert float(ssim(a, b)) == pytest.approx(np.mean(found), rel=1e-9)
    assert float(ssim(1e-4 * a, 1e-4 * b)) == pytest.approx(np.mean(found), rel=1e-9)  # whatever the unit
    assert ssim(a[:, :4, :3], b[:, :4, :3]).isfinite()


def test_the_share_inside_a_mask():
    maps = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]])
    mask = torch.tensor([[[True, False], [True, False]]] * 2)
    assert inside(maps, mask).tolist() == [0.4, 0.0]


def test_what_cannot_be_compared_is_refused():
    for metric in (top_k, kendall_tau, spearman, centre_shift, ssim, inside):
        with pytest.raises(InputError, match="one by one"):
            metric(torch.rand(2, 4, 4), torch.rand(2, 4, 5))
    with pytest.raises(InputError, match="h, w"):
        ssim(torch.rand(2, 4), torch.rand(2, 4))
    with pytest.raises(SettingError, match="from 1 to 4"):
        top_k(torch.rand(2, 4), torch.rand(2, 4), 5)
