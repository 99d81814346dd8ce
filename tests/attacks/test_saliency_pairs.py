"""The best pair of features is the best of all pairs, and finding it needs little memory."""

from __future__ import annotations

import resource

import pytest
import torch

from assay.attacks import saliency_pairs
from assay.attacks.saliency_pairs import best_pair, saliency


def brute(gain, drop):
    value = saliency(gain[:, :, None] + gain[:, None, :], drop[:, :, None] + drop[:, None, :])
    return value.triu(diagonal=1).flatten(1).amax(1)


def check(gain, drop):
    pair, value = best_pair(gain, drop)
    expected = brute(gain, drop)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    assert bool((value > 0).eq(expected > 0).all())
    rows = (value > 0).nonzero().squeeze(1)
    p, q = pair[rows].T
    assert bool((p < q).all())
    got = saliency(gain[rows, p] + gain[rows, q], drop[rows, p] + drop[rows, q])
    torch.testing.assert_close(got, value[rows], rtol=1e-12, atol=0)


def draw(kind, b, n, generator):
    gain, drop = torch.randn(2, b, n, generator=generator, dtype=torch.float64)
    if kind == "ties":
        return gain.mul(1.5).round(), drop.mul(1.5).round()
    if kind == "equal gains":
        return torch.ones_like(gain), drop
    if kind == "opposed":
        return gain, 0.3 * drop - gain
    if kind == "circle":
        return (3 * gain).cos(), (3 * gain).sin()
    if kind == "same":
        return gain, gain
    return gain, drop


@pytest.mark.parametrize("small", [0, 4, 256])
@pytest.mark.parametrize("kind", ["independent", "ties", "equal gains", "opposed", "circle", "same"])
def test_it_is_the_best_of_all_pairs(kind, small, monkeypatch):
    monkeypatch.setattr(saliency_pairs, "_SMALL", small)
    monkeypatch.setattr(saliency_pairs, "_AT_ONCE", 64)
    generator = torch.Generator().manual_seed(0)
    for trial in range(12):
        b, n = 1 + trial % 4, 1 + 3 * trial
        gain, drop = draw(kind, b, n, generator)
        if trial % 2:
            closed = torch.rand(b, n, generator=generator) < 0.3
            gain, drop = gain.masked_fill(closed, -torch.inf), drop.masked_fill(closed, -torch.inf)
        check(gain, drop)


def test_a_feature_behind_its_partner_can_be_in_the_best_pair():
    gain, drop = torch.tensor([[5.0, 4.0, 0.1, -9.0]]), torch.tensor([[5.0, 4.0, 5.5, 6.0]])
    pair, value = best_pair(gain, drop)
    assert pair.tolist() == [[0, 1]]
    assert value.tolist() == [81.0]


def test_two_negative_sums_are_no_saliency():
    gain, drop = torch.tensor([[5.0, -10.0], [1.0, 2.0]]), torch.tensor([[-10.0, 5.0], [1.0, -0.5]])
    _, value = best_pair(gain, drop)
    assert value.tolist() == [0.0, 1.5]


def test_the_two_largest_gains_need_not_be_the_best_pair():
    gain, drop = torch.tensor([[3.0, 2.9, 2.0, 1.0]]), torch.tensor([[0.1, -0.2, 2.0, 3.0]])
    pair, _ = best_pair(gain, drop)
    assert pair.tolist() == [[2, 3]]


@pytest.mark.parametrize("small", [0, 4, 256])
def test_a_sample_does_not_depend_on_the_batch(small, monkeypatch):
    monkeypatch.setattr(saliency_pairs, "_SMALL", small)
    generator = torch.Generator().manual_seed(1)
    kinds = ("independent", "ties", "opposed", "circle")
    parts = [draw(kind, 2, 50, generator) for kind in kinds]
    gain, drop = (torch.cat(values) for values in zip(*parts, strict=True))
    pair, value = best_pair(gain, drop)
    for i in range(len(gain)):
        one, alone = best_pair(gain[i : i + 1], drop[i : i + 1])
        assert torch.equal(one[0], pair[i])
        assert torch.equal(alone[0], value[i])


def test_a_front_of_all_features_fits_into_memory():
    """Of 40,000 features on a circle no one is behind another; all pairs would be 6 GB in float32."""
    angle = torch.linspace(0.001, 1.57, 40_000)[None]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pair, value = best_pair(angle.cos(), angle.sin())
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024
    torch.testing.assert_close(value, torch.tensor([2.0]), rtol=1e-5, atol=0)
    assert pair.sum() == pytest.approx(39_999, abs=60)
