"""Defenses against what is known of them: other implementations, closed forms, the numbers of the papers."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

import assay
from assay.defenses import (
    RSE,
    Averaged,
    BitDepth,
    InputNoise,
    JPEGDefense,
    MedianFilter,
    NoiseLayers,
    RandomResizePad,
    Thermometer,
    TotalVariation,
    insert_noise,
)
from assay.errors import InputError, ModelError, SettingError
from assay.models import Defended
from assay.rng import Keyed, drawing


def images(n=3, side=10, channels=1):
    return torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(0))


def same(x):
    return x


def test_bits_are_levels():
    x = torch.linspace(0, 1, 101)[None]
    for bits in (1, 3, 8):
        found = BitDepth(bits)(same, x)
        assert len(found.unique()) == min(2**bits, 101)
        assert float((found - x).abs().max()) <= 0.5 / (2**bits - 1) + 1e-6


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_median_is_that_of_scipy(size):
    x = images()
    found = MedianFilter(size)(same, x)
    wanted = np.stack([ndimage.median_filter(image[0].numpy(), size=size, mode="reflect")[None] for image in x])
    assert np.array_equal(found.numpy(), wanted)


def test_jpeg_files_are_those_of_pillow():
    x = images(2, side=16, channels=3)
    found = JPEGDefense(75, codec="pillow")(same, x)
    for image, seen in zip(x, found, strict=True):
        file = io.BytesIO()
        Image.fromarray((image * 255).round().byte().permute(1, 2, 0).numpy()).save(file, "JPEG", quality=75)
        assert np.array_equal(np.asarray(Image.open(file)), (seen * 255).round().byte().permute(1, 2, 0).numpy())
    flat = torch.full((1, 3, 16, 16), 0.4)  # of noise, decoders make different things
    apart = JPEGDefense(75)(same, flat) - JPEGDefense(75, codec="pillow")(same, flat)
    assert float(apart.abs().max()) < 3 / 255


def test_total_variation_of_a_step_moves_both_sides():
    """Two plateaus of 8 and 8 pixels: each value moves by weight * rows / pixels, the closed form of a step."""
    x = torch.zeros(1, 1, 4, 4)
    x[..., 2:] = 0.8
    found = TotalVariation(0.1, keep=1.0, steps=500)(same, x)
    wanted = torch.where(x > 0, 0.8 - 0.1 * 4 / 8, 0.1 * 4 / 8)
    assert torch.allclose(found, wanted, atol=1e-3)


def test_left_out_pixels_are_filled_from_their_neighbours():
    x = torch.full((1, 1, 12, 12), 0.7)
    torch.manual_seed(0)
    found = TotalVariation(0.01, keep=0.5, steps=400)(same, x)
    assert float((found - 0.7).abs().max()) < 0.03


def test_thermometer_is_the_papers_code():
    x = torch.tensor([0.0, 0.13, 0.5, 1.0]).reshape(1, 2, 1, 2)
    found = Thermometer(10)(same, x).reshape(2, 10, 2)
    ones = [[0, 2], [5, 10]]  # values above k / 10 for k = 0 .. 9
    assert found.sum(dim=1).tolist() == ones
    assert bool((found.diff(dim=1) <= 0).all())


def test_images_are_found_again_inside_the_padding():
    x = images(200, side=6, channels=2) * 0.4
    found = RandomResizePad(lowest=6, final=8)(same, x)
    assert found.shape == (200, 2, 8, 8)
    corners, sizes = set(), set()
    for image, seen in zip(x, found, strict=True):
        inside = (seen != 0.5).all(dim=0).nonzero()
        top, size = inside.min(dim=0).values, len(inside[:, 0].unique())
        sizes.add(size)
        corners.add((size, *top.tolist()))
        place = torch.arange(size) * 6 // size  # the nearest pixel, as tensorflow took it
        wanted = image[:, place][:, :, place]
        assert torch.equal(seen[:, top[0] : top[0] + size, top[1] : top[1] + size], wanted)
    assert sizes == {6, 7}
    assert len(corners) == 3 * 3 + 2 * 2  # every place that there is


def test_sizes_are_the_papers():
    assert RandomResizePad()._sizes(299) == (310, 331)
    assert RandomResizePad()(same, images(1, side=28)).shape == (1, 1, 31, 31)
    with pytest.raises(SettingError, match="lowest < final"):
        RandomResizePad(lowest=9, final=9)
    with pytest.raises(InputError):
        RandomResizePad()(same, torch.zeros(2, 5))


def test_noise_has_its_deviation_before_each_convolution():
    seen = []

    class Eye(nn.Conv2d):
        def forward(self, x):
            seen.append(x)
            return torch.zeros_like(x)

    net = nn.Sequential(Eye(1, 1, 1), Eye(1, 1, 1), Eye(1, 1, 1), nn.Flatten())
    for rng in (None, Keyed(0, torch.arange(64))):
        seen.clear()
        x = torch.zeros(64, 1, 16, 16)
        if rng is None:
            NoiseLayers(0.3, 0.1)(net, x)
        else:
            with drawing(rng):
                NoiseLayers(0.3, 0.1)(net, x)
        assert [round(float(h.std()), 2) for h in seen] == [0.3, 0.1, 0.1]
        assert float((seen[1] * seen[2]).mean().abs()) < 1e-3  # each has draws of its own
    seen.clear()
    assert float(net(torch.zeros(2, 1, 4, 4)).abs().sum()) == float(seen[0].abs().sum()) == 0  # and is gone afterwards
    insert_noise(net, 0.5, 0.0)
    net(x)
    assert round(float(seen[-3].std()), 1) == 0.5


def test_noise_needs_a_network_with_convolutions():
    for model in (nn.Linear(3, 2), same):
        with pytest.raises(ModelError, match="convolutions"):
            NoiseLayers()(model, torch.zeros(1, 3))
    around = Defended(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), NoiseLayers(), BitDepth())
    with pytest.raises(ModelError, match="last"):
        around(torch.zeros(1, 1, 3, 3))


def test_means_of_passes():
    net = nn.Linear(4, 3)
    x = torch.rand(6, 4)

    def combined(how):
        with drawing(Keyed(1, torch.arange(6))):
            return Averaged(InputNoise(0.5), passes=50, combine=how)(net, x)

    passes = []
    for number in range(50):
        with drawing(Keyed(1, torch.arange(6)).named("pass", 0, number)):
            passes.append(InputNoise(0.5)(net, x))
    z = torch.stack(passes)
    assert torch.allclose(combined("logits"), z.mean(dim=0), atol=1e-5)
    assert torch.allclose(combined("probabilities").exp(), z.softmax(dim=2).mean(dim=0), atol=1e-5)
    votes = torch.stack([(z.argmax(dim=2) == c).sum(dim=0) for c in range(3)], dim=1)
    assert torch.allclose(combined("votes").exp() * 51 - 1 / 3, votes.float(), atol=1e-3)
    assert not torch.equal(z[0], z[1])
    with pytest.raises(SettingError, match="random"):
        Averaged(BitDepth())
    assert repr(RSE(0.1, 0.2, passes=3)) == "Averaged(NoiseLayers(first=0.1, inner=0.2), passes=3)"


def test_distilled_logits_saturate_and_divided_ones_do_not():
    net = nn.Linear(4, 3)
    with torch.no_grad():
        net.weight.mul_(1000)
    x = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(dim=1)
    attack = assay.attacks.PGD(threat=assay.Linf(0.4), steps=10, loss="ce", random_start=False)
    claimed = attack(net, x, y)
    model = assay.defend(net, "Distilled(1000)")
    assert torch.equal(model(x).argmax(dim=1), y)
    stands = attack(model, x, y)
    assert int(claimed.success.sum()) < int(stands.success.sum())
    assert bool(stands.success[claimed.success].all())
