"""Noise on training inputs has its deviation, is each sample's own, and stays inside the bounds."""

from __future__ import annotations

import pytest
import torch

from assay import grammar
from assay.errors import SettingError
from assay.rng import Keyed
from assay.training.augmentation import Augmentation
from assay.training.noise import AddNoise


def noisy(x, std=0.2, first=0):
    rng = Keyed(3, torch.arange(first, first + len(x)))
    found, targets = AddNoise(std=std)(x, torch.zeros(len(x), dtype=torch.int64), None, rng, classes=2)
    assert targets is None
    return found


def test_deviations_are_uniform_up_to_the_largest():
    x = torch.full((300, 1, 20, 20), 0.5)
    deviation = (noisy(x, 0.1) - x).flatten(1).std(dim=1)
    assert float(deviation.max()) == pytest.approx(0.1, rel=0.1)
    assert float(deviation.mean()) == pytest.approx(0.05, rel=0.1)
    assert float(deviation.min()) < 0.01


def test_each_sample_has_its_own_and_values_stay_valid():
    x = torch.full((4, 9), 0.95)
    whole = noisy(x, 1.0)
    assert float(whole.max()) <= 1
    assert float(whole.min()) >= 0
    assert torch.equal(noisy(x[2:], 1.0, first=2), whole[2:])
    assert torch.equal(x, torch.full((4, 9), 0.95))


def test_it_is_written_as_a_call_and_checked():
    assert grammar.named("AddNoise(std=0.3)", Augmentation) == AddNoise(std=0.3)
    with pytest.raises(SettingError, match="std of AddNoise"):
        AddNoise(std=-0.1)
