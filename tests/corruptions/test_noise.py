"""Noise has the mean and the variance of its distribution, and no memory from pixel to pixel."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from assay.corruptions.draws import normal, poisson, uniform
from assay.corruptions.noise import GaussianNoise, ImpulseNoise, ShotNoise, SpeckleNoise
from assay.rng import Keyed


def rng(count):
    return Keyed(0, torch.arange(count))


def test_normal_draws_are_normal():
    drawn = normal(rng(40), 3, 40, 40).double()
    assert stats.kstest(drawn.flatten()[::7].numpy(), "norm").pvalue > 1e-3
    assert abs(float(drawn.mean())) < 0.01
    assert abs(float(drawn.var()) - 1) < 0.01
    assert abs(float((drawn[..., 1:] * drawn[..., :-1]).mean())) < 0.01
    assert abs(float((drawn[1:] * drawn[:-1]).mean())) < 0.01


def test_uniform_draws_fill_the_interval():
    drawn = uniform(rng(20), 50, 50)
    assert stats.kstest(drawn.flatten()[::3].numpy(), "uniform").pvalue > 1e-3
    assert 0 < float(drawn.min()) < float(drawn.max()) < 1


@pytest.mark.parametrize("photons", [3, 60, 500])
@pytest.mark.parametrize("level", [1, 40, 255])
def test_counts_have_the_distribution_of_poisson(photons, level):
    mean = photons * level / 255
    found = poisson(rng(20), torch.full((20, 1, 60, 60), level / 255), photons).flatten()
    assert float(found.mean()) == pytest.approx(mean, rel=0.02, abs=0.005)
    assert float(found.var()) == pytest.approx(mean, rel=0.04, abs=0.005)
    for count in {0, round(mean), round(mean + mean**0.5)}:
        share = float((found <= count).float().mean())
        assert share == pytest.approx(stats.poisson.cdf(count, mean), abs=0.01)


def test_gaussian_noise_has_its_deviation():
    found = GaussianNoise(severity=2, table="imagenet")(torch.full((50, 1, 40, 40), 128 / 255))
    assert float(found.mean()) == pytest.approx(127.5 / 255, abs=0.002)  # half of a 255th is cut off
    assert float(found.std()) == pytest.approx(0.12, rel=0.02)


def test_speckle_noise_grows_with_the_light():
    deviations = [
        float(SpeckleNoise(severity=1, table="imagenet")(torch.full((40, 1, 40, 40), light)).std())
        for light in (0.2, 0.6)
    ]
    assert deviations == pytest.approx([0.03, 0.09], rel=0.03)


def test_shot_noise_is_a_count_over_the_photons_of_white():
    found = ShotNoise(severity=5, table="imagenet")(torch.full((20, 1, 30, 30), 102 / 255))
    assert [round(v) for v in found.unique().mul(255).tolist()] == [0, 85, 170, 255]


@pytest.mark.parametrize(("severity", "share"), [(1, 0.03), (5, 0.27)])
def test_impulses_are_half_salt_and_half_pepper_value_by_value(severity, share):
    found = ImpulseNoise(severity=severity, table="imagenet")(torch.full((60, 3, 40, 40), 102 / 255))
    for value in (0.0, 1.0):
        assert float((found == value).float().mean()) == pytest.approx(share / 2, rel=0.05)
    hit = found != found[0, 0].median()
    assert float((hit[:, 0] & hit[:, 1]).float().mean()) == pytest.approx(share**2, rel=0.3)
