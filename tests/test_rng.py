"""Keyed random numbers: published test vectors, statistics, and independence of how samples are batched."""

from __future__ import annotations

import math

import pytest
import torch

from assay import rng
from assay.errors import SettingError
from assay.rng import Keyed, derive, philox


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # known answers published with the Random123 library for philox4x32-10
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_words(counter, key, expected):
    high = counter[3] if counter[3] < 1 << 31 else counter[3] - (1 << 32)
    index = torch.tensor([(high << 32) | counter[2]])
    words = philox(key[0] | key[1] << 32, index, counter[1], 1, counter[0])
    assert tuple(words[0].tolist()) == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_is_uniform(dtype):
    u = Keyed(3, torch.arange(200), dtype=dtype).uniform(1000)
    assert u.dtype == dtype
    assert float(u.min()) >= 0
    assert float(u.max()) < 1
    n = u.numel()
    counts = torch.histc(u.float(), bins=100, min=0, max=1)
    chi2 = float(((counts - n / 100) ** 2 / (n / 100)).sum())
    assert 50 < chi2 < 160  # 99 degrees of freedom: mean 99, standard deviation 14
    assert abs(float(u.double().mean()) - 0.5) < 5 * (1 / 12 / n) ** 0.5


def test_normal_has_the_moments_of_a_normal():
    z = Keyed(5, torch.arange(100)).normal(3, 7, 101).double()
    assert z.shape == (100, 3, 7, 101)
    n = z.numel()
    assert abs(float(z.mean())) < 5 / n**0.5
    assert abs(float(z.var()) - 1) < 5 * (2 / n) ** 0.5
    assert abs(float((z**4).mean()) - 3) < 5 * (96 / n) ** 0.5
    inside = float((z.abs() < 1).double().mean())
    assert abs(inside - math.erf(0.5**0.5)) < 5 * (0.2 / n) ** 0.5


def test_integers_cover_their_range_evenly():
    k = Keyed(1, torch.arange(50)).integers(-3, 4, 2000)
    assert k.dtype == torch.int64
    counts = torch.bincount(k.flatten() + 3, minlength=7)
    assert len(counts) == 7
    expected = k.numel() / 7
    assert float(((counts - expected) ** 2 / expected).sum()) < 25  # 6 degrees of freedom


def test_choice_draws_different_numbers_each_equally_often():
    picked = Keyed(2, torch.arange(4000)).choice(8, 3)
    assert all(len(set(row)) == 3 for row in picked.tolist())
    for place in range(3):
        counts = torch.bincount(picked[:, place], minlength=8)
        assert float(((counts - 500.0) ** 2 / 500).sum()) < 30  # 7 degrees of freedom


def correlation(a, b):
    a, b = a.flatten().double(), b.flatten().double()
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def test_samples_draws_and_seeds_are_independent():
    n = 20_000
    index = torch.tensor([0, 1, 1 << 40])
    stream = Keyed(0, index)
    first, second = stream.uniform(n), stream.uniform(n)
    other_seed, far_seed = Keyed(1, index).uniform(n), Keyed(1 << 32, index).uniform(n)
    pairs = [
        (first[0], first[1]),
        (first[0], first[2]),
        (first, second),
        (first, other_seed),
        (first, far_seed),
        (first[:, :-1], first[:, 1:]),
    ]
    for a, b in pairs:
        assert abs(correlation(a, b)) < 5 / n**0.5
        assert not torch.equal(a, b)


@pytest.mark.parametrize("name", ["uniform", "normal"])
def test_draws_depend_on_the_sample_only(name, monkeypatch):
    index = torch.tensor([7, 3, 100_000_000_000, 0])

    def draws(rows):
        stream = Keyed(11, index[rows])
        return [getattr(stream, name)(3, 5), getattr(stream, name)(4)]

    whole = draws([0, 1, 2, 3])
    monkeypatch.setitem(rng._BLOCK, "cpu", 2)  # blocks smaller than a draw must not show
    for rows in ([2], [3, 0], [1, 1]):
        for a, b in zip(whole, draws(rows), strict=True):
            assert torch.equal(a[rows], b)


def test_a_part_of_a_stream_goes_on_where_the_whole_is():
    stream = Keyed(0, torch.arange(5))
    stream.uniform(2)
    part = stream.at(torch.tensor([4, 1]))
    whole = stream.uniform(3)
    assert torch.equal(part.uniform(3), whole[[4, 1]])
    rows = torch.tensor([True, False, False, True, False])
    again = stream.at(torch.arange(5)).normal(2)
    assert torch.equal(stream.normal(2, rows=rows), again[rows])


def test_derived_seeds_differ_and_are_stable():
    names = [("square",), ("apgd-ce",), ("apgd-ce", 1), ("apgd", "ce1")]
    seeds = {derive(seed, *name) for seed in range(100) for name in names}
    assert len(seeds) == 400
    assert derive(0, "square") == derive(0, "square")
    assert min(seeds) >= 0
    assert max(seeds) < 1 << 63


def test_global_random_state_is_left_alone():
    before = torch.random.get_rng_state()
    Keyed(0, torch.arange(3)).normal(10)
    assert torch.equal(before, torch.random.get_rng_state())


def test_bad_requests_are_refused():
    stream = Keyed(0, torch.arange(2))
    with pytest.raises(SettingError, match="low < high"):
        stream.integers(3, 3)
    with pytest.raises(SettingError, match="k <= n"):
        stream.choice(2, 3)
    with pytest.raises(SettingError, match="1-D integer"):
        Keyed(0, torch.rand(3))


def test_streams_of_a_sample_are_independent_and_the_first_is_the_plain_one():
    index = torch.tensor([5, 5, 5, 6, 5 + (1 << 32), 5 + (1 << 48)])
    stream = torch.tensor([0, 1, (1 << 40) + 1, 1, 1, 1])
    for seed in (3, (1 << 63) - 1, -1, (1 << 70) + 5):
        drawn = Keyed(seed, index, stream=stream)
        words = drawn.words(8)
        assert len(words.flatten().unique()) == words.numel()
        assert torch.equal(words[0], Keyed(seed, index[:1]).words(8)[0])
        again = Keyed(seed, index, stream=stream)
        assert torch.equal(again.at(torch.tensor([4, 2])).words(8), words[[4, 2]])
        assert torch.equal(again.words(8, rows=torch.tensor([3, 1])), words[[3, 1]])
        assert torch.equal(
            drawn.named("a").words(4)[2], Keyed(seed, index[2:3], stream=stream[2:3]).named("a").words(4)[0]
        )
    wide = Keyed(0, index, stream=stream)
    wide_at_once = wide.words(1000)
    assert torch.equal(wide_at_once[3], Keyed(0, index[3:4], stream=stream[3:4]).words(1000)[0])


def test_coarse_numbers_are_uniform_and_know_nothing_of_their_neighbours():
    drawn = Keyed(0, torch.arange(100)).coarse(3, 40, 40)
    assert drawn.shape == (100, 3, 40, 40)
    assert drawn.dtype == torch.int32
    assert 0 <= int(drawn.min()) < 16
    assert 65520 <= int(drawn.max()) < 65536
    unit = drawn.flatten(1).double() / 65536 - 0.5
    count = unit.numel()
    assert abs(float(unit.mean())) < 5 * (1 / 12 / count) ** 0.5
    assert abs(float(unit.square().mean()) - 1 / 12) < 5 * (1 / 180 / count) ** 0.5
    for shifted in (unit.roll(1, 0), unit.roll(1, 1), unit.roll(2400, 1), unit.roll(40, 1)):
        assert abs(float((unit * shifted).mean())) < 5 / 12 / count**0.5
    for bit in range(16):
        share = float((drawn >> bit & 1).double().mean())
        assert abs(share - 0.5) < 5 * 0.5 / count**0.5


def test_coarse_numbers_belong_to_seed_sample_draw_and_stream():
    whole = Keyed(7, torch.arange(5)).coarse(9)
    assert torch.equal(Keyed(7, torch.tensor([3])).coarse(9)[0], whole[3])
    rows = torch.tensor([False, True, False, False, True])
    assert torch.equal(Keyed(7, torch.arange(5)).coarse(9, rows=rows), whole[rows])
    stream = Keyed(7, torch.arange(5))
    others = [
        Keyed(8, torch.arange(5)).coarse(9),
        Keyed(7, torch.arange(5), stream=torch.ones(5, dtype=torch.int64)).coarse(9),
        (stream.coarse(9), stream.coarse(9))[1],
    ]
    assert all(not torch.equal(other, whole) for other in others)
    assert torch.equal(Keyed(7, torch.arange(5)).coarse(20)[:, :4], Keyed(7, torch.arange(5)).coarse(21)[:, :4])
