"""Corruptions that can be computed in another way: by SciPy, by Pillow, by a loop, in closed form."""

from __future__ import annotations

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from assay.corruptions import select
from assay.corruptions.base import eight_bits
from assay.corruptions.blur import _disk, _sources
from assay.corruptions.draws import normal
from assay.corruptions.filters import correlated, gaussian, moved, reflected, zoomed
from assay.corruptions.plasma import plasma
from assay.corruptions.spatter import _distance, _equalised
from assay.corruptions.warp import affine, displaced, smooth
from assay.rng import Keyed, derive


def build(slug, severity=3, table="imagenet"):
    return select(slug)[0](severity=severity, table=table)


def picture(height=37, width=50):
    """One colour image of 8 bits with edges, slopes and texture, `(height, width, 3)`."""
    down, right = np.mgrid[:height, :width] / 50
    x = np.stack([0.5 + 0.4 * np.sin(7 * right + 2 * c) * np.cos(5 * down * (1 + c)) for c in range(3)], axis=-1)
    x[5:15, 10:30] = [0.9, 0.2, 0.1]
    x += np.random.default_rng(0).normal(0, 0.03, x.shape)
    return (x.clip(0, 1) * 255).round().astype(np.uint8)


def tensor(x):
    return torch.from_numpy(x).permute(2, 0, 1)[None].float() / 255


def levels(x):
    return x[0].mul(255).round().permute(1, 2, 0).numpy()


def near(found, expected, *, most=1, mean=0.05):
    gap = np.abs(found - np.floor(expected + 1e-3))
    assert gap.max() <= most
    assert gap.mean() <= mean


@pytest.mark.parametrize("sigma", [0.4, 1, 6])
def test_gaussian_blur_is_that_of_scipy(sigma):
    x = picture()
    expected = np.stack([ndimage.gaussian_filter(x[..., c] / 255, sigma, mode="nearest") for c in range(3)])
    np.testing.assert_allclose(gaussian(tensor(x), sigma)[0].numpy(), expected, atol=2e-6)


def test_defocus_is_the_mean_over_a_disk_of_a_mirrored_image():
    x, disk = picture(), _disk(8, 0.5).numpy()
    assert disk.sum() == pytest.approx(1, abs=0.02)
    expected = np.stack([ndimage.correlate(x[..., c].astype(float), disk, mode="mirror") for c in range(3)], axis=-1)
    near(levels(build("defocus_blur", 4)(tensor(x))), expected)


@pytest.mark.parametrize("angle", [-45.0, -10.0, 0.0, 30.0])
def test_motion_is_a_sum_of_shifted_images(angle):
    x, sigma = picture() / 255.0, 3.0
    steps = range(16)
    weights = np.array([math.exp(-(i**2) / (2 * sigma**2)) for i in steps])
    expected = np.zeros_like(x)
    for i, weight in zip(steps, weights / weights.sum(), strict=True):
        down, right = (math.ceil(i * way(math.radians(angle)) - 0.5) for way in (math.sin, math.cos))
        rows = np.clip(np.arange(x.shape[0]) + down, 0, x.shape[0] - 1)
        columns = np.clip(np.arange(x.shape[1]) + right, 0, x.shape[1] - 1)
        expected += weight * x[np.ix_(rows, columns)]
    found = moved(torch.from_numpy(x).permute(2, 0, 1)[None].float(), torch.tensor([angle]), 10, sigma)
    np.testing.assert_allclose(found[0].permute(1, 2, 0).numpy(), expected, atol=1e-5)


def test_zoom_is_the_mean_of_enlarged_middles():
    x = picture(32, 32) / 255.0
    total, factors = x.copy(), np.arange(1, 1.21, 0.02)
    for factor in factors:
        kept = math.ceil(32 / factor)
        top = (32 - kept) // 2
        total += ndimage.zoom(x[top : top + kept, top : top + kept], (factor, factor, 1), order=1)[:32, :32]
    near(levels(build("zoom_blur")(tensor((x * 255).round().astype(np.uint8)))), total / (len(factors) + 1) * 255)


@pytest.mark.parametrize("factor", [1.13, 2.5, 4.5])
def test_enlarged_middles_are_cut_around_their_own_middle(factor):
    x = picture(32, 32) / 255.0
    kept = math.ceil(32 / factor)
    top = (32 - kept) // 2
    large = ndimage.zoom(x[top : top + kept, top : top + kept], (factor, factor, 1), order=1)
    cut = (len(large) - 32) // 2
    found = zoomed(torch.from_numpy(x).permute(2, 0, 1)[None], factor)[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, large[cut : cut + 32, cut : cut + 32], atol=1e-9)


@pytest.mark.parametrize("reach", [1, 2, 4])
def test_glass_follows_the_pixels_one_by_one(reach):
    """A plain loop over the same draws, in the published order, where a pixel takes what the other one has by then."""
    height, width = 13, 17
    index = torch.arange(3)
    found = _sources(Keyed(5, index), height, width, reach)
    drawn = (Keyed(5, index).coarse(2, height * width).long() * (2 * reach) >> 16) - reach
    for image in range(3):
        own = np.arange(height * width).reshape(height, width)
        down, right = drawn[image].reshape(2, height, width).numpy()
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                own[row, column] = own[row + down[row, column], column + right[row, column]]
        assert np.array_equal(found[image].numpy().reshape(height, width), own)


def test_brightness_and_saturation_are_those_of_hsv():
    x = picture(6, 7)
    x[0, 0] = [90, 90, 90]
    x[0, 1] = [0, 0, 0]
    for slug, severity, change in (
        ("brightness", 3, lambda h, s, v: (h, s, min(v + 0.3, 1))),
        ("saturate", 1, lambda h, s, v: (h, s * 0.3, v)),
        ("saturate", 5, lambda h, s, v: (h, min(s * 20 + 0.2, 1), v)),
    ):
        expected = [[colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*(p / 255)))) for p in row] for row in x]
        near(levels(build(slug, severity)(tensor(x))), np.array(expected) * 255)


def test_contrast_is_around_the_mean_of_each_channel():
    x = picture()
    mean = x.mean(axis=(0, 1))
    near(levels(build("contrast", 3)(tensor(x))), mean + 0.2 * (x - mean))


@pytest.mark.parametrize(("severity", "share"), [(1, 0.6), (2, 0.5), (4, 0.3), (5, 0.25)])
@pytest.mark.parametrize("shape", [(28, 28), (32, 32), (37, 50), (45, 97)])
def test_pixelate_is_that_of_pillow(severity, share, shape):
    """To the last bit: at 28, 45 and 97 pixels middles fall on borders."""
    x = picture(*shape)
    small = Image.fromarray(x).resize((int(shape[1] * share), int(shape[0] * share)), Image.Resampling.BOX)
    expected = np.asarray(small.resize((shape[1], shape[0]), Image.Resampling.NEAREST))
    np.testing.assert_array_equal(levels(build("pixelate", severity)(tensor(x))), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_that_of_pillow(channels):
    x = picture()[..., :channels]
    file = io.BytesIO()
    Image.fromarray(x[..., 0] if channels == 1 else x).save(file, "JPEG", quality=15)
    expected = np.asarray(Image.open(file)).reshape(x.shape)
    assert np.array_equal(levels(build("jpeg_compression", 3)(tensor(x))), expected)


def test_fog_adds_clouds_and_keeps_the_largest_value():
    x = torch.full((4, 3, 40, 60), 102 / 255)
    found = build("fog", 2)(x)
    assert float(found.max()) <= 102 / 255 + 1e-6
    share = 0.4 / (0.4 + 2)
    assert float(found.min()) >= math.floor(102 * share) / 255 - 1e-6
    assert float(found[0].std()) > 0.02


def test_clouds_span_zero_to_one_and_repeat_at_the_edges():
    cloud = plasma(Keyed(0, torch.arange(6)), 64, 2.0)
    assert torch.allclose(cloud.amin(dim=(1, 2)), torch.zeros(6))
    assert torch.allclose(cloud.amax(dim=(1, 2)), torch.ones(6))
    seam, inside = (cloud[:, 0] - cloud[:, -1]).abs().mean(), (cloud[:, 1:] - cloud[:, :-1]).abs().mean()
    assert float(seam) == pytest.approx(float(inside), rel=0.5)
    rougher = plasma(Keyed(0, torch.arange(6)), 64, 1.4)
    assert float((rougher[:, 1:] - rougher[:, :-1]).abs().mean()) > 2 * float(inside)


def test_frost_is_a_weighted_sum_with_a_part_of_a_texture():
    dark, light = (build("frost", 2)(torch.full((5, 3, 70, 70), value)) for value in (0.0, 0.2))
    free = light < 1
    torch.testing.assert_close((light - dark)[free], torch.full_like(dark[free], 0.16), atol=1.1 / 255, rtol=0)
    assert 0.6 * 0.25 < float(dark.mean()) < 0.6 * 0.9
    assert float(dark.std(dim=(2, 3)).mean()) > 0.02


def test_snow_only_brightens_and_is_the_same_upside_down():
    x = torch.zeros(3, 3, 66, 66)
    found = build("snow", 2)(x)
    flakes = found[:, 0] - found[:, 0].amin()
    assert float(found.min()) >= math.floor(0.3 * 0.5 * 255) / 255
    assert torch.allclose(flakes[:, 2:-2, 2:-2], flakes.flip(1, 2)[:, 2:-2, 2:-2], atol=1.1 / 255)


def test_snow_is_made_in_the_published_order():
    """Noise, enlarged and cut, the threshold, 8 bits, motion; then both layers on the paler image."""
    x = tensor(picture(48, 48))
    rng = Keyed(derive(7, "snow", 4), torch.arange(1))
    flakes = zoomed(normal(rng, 1, 48, 48) * 0.3 + 0.55, 4.5)
    flakes[flakes < 0.85] = 0
    flakes = (flakes.clamp(0, 1) * 255).floor() / 255
    flakes = moved(flakes, rng.uniform(low=-135.0, high=-45.0), 12, 8)
    grey = 0.299 * x[:, :1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:]
    expected = 0.65 * x + 0.35 * torch.maximum(x, 1.5 * grey + 0.5) + flakes + flakes.flip(2, 3)
    found = build("snow", 4)(x, seed=7)
    assert float((found - eight_bits(expected)).abs().max()) < 1.1 / 255
    assert float((found - eight_bits(expected)).abs().mean()) < 0.01 / 255


def test_spatter_hides_with_mud_and_brightens_with_water():
    white, black = torch.ones(3, 3, 80, 80), torch.zeros(3, 3, 80, 80)
    mud = build("spatter", 5)(white)
    assert torch.allclose(mud.amin(dim=(0, 2, 3)) * 255, torch.tensor([63.0, 42.0, 20.0]), atol=1.5)
    water = build("spatter", 2)(black)
    drops = water[:, 1] > 0
    assert 0.02 < float(drops.float().mean()) < 0.9
    assert bool((water[:, 1] >= water[:, 0]).all())
    assert torch.equal(water[:, 1], water[:, 2])


def test_distances_to_edges_are_exact_up_to_twenty():
    edges = torch.zeros(2, 1, 30, 45, dtype=torch.bool)
    edges[0, 0, 3, 4] = edges[0, 0, 20, 30] = edges[1, 0, 0, 0] = True
    expected = np.stack([ndimage.distance_transform_edt(~edge[0].numpy()) for edge in edges])
    np.testing.assert_allclose(_distance(edges)[:, 0].numpy(), expected.clip(max=20), atol=1e-5)


def test_equalised_levels_are_spread_over_all():
    levels_ = torch.tensor([5.0, 5, 7, 7, 9, 9, 9, 9]).reshape(1, 1, 2, 4)
    assert _equalised(levels_).flatten().tolist() == [0, 0, 85, 85, 255, 255, 255, 255]


def test_elastic_moves_points_where_they_are_told():
    x = torch.zeros(1, 1, 31, 31)
    x[0, 0, 10, 20] = 1.0
    right, down = 3.0, -2.0
    assert affine(x, torch.tensor([[[right, down]] * 3]))[0, 0, 8, 23] == pytest.approx(1.0, abs=1e-4)
    field = torch.zeros(1, 2, 31, 31)
    field[:, 0] = 5.0
    assert displaced(x, field)[0, 0, 10, 15] == pytest.approx(1.0, abs=1e-5)


def test_displaced_pixels_beyond_the_edge_are_those_of_scipy():
    x = torch.rand(1, 1, 9, 12, generator=torch.Generator().manual_seed(0)).double()
    field = torch.randn(1, 2, 9, 12, generator=torch.Generator().manual_seed(1)).double() * 4
    rows, columns = np.mgrid[:9, :12]
    places = [rows + field[0, 1].numpy(), columns + field[0, 0].numpy()]
    expected = ndimage.map_coordinates(x[0, 0].numpy(), places, order=1, mode="reflect")
    np.testing.assert_allclose(displaced(x, field)[0, 0].numpy(), expected, atol=1e-9)


def test_smooth_fields_are_those_of_scipy():
    x = torch.zeros(2, 1, 20, 26)
    found, rough = smooth(Keyed(1, torch.arange(2)), x, 2.5), smooth(Keyed(1, torch.arange(2)), x, 0.0)
    expected = ndimage.gaussian_filter(rough.double().numpy(), (0, 0, 2.5, 2.5), mode="reflect", truncate=3)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    assert float(rough.min()) < -0.9
    assert float(rough.max()) > 0.9


def test_margins_mirror_even_where_they_are_wider_than_the_image():
    x = torch.arange(3.0).reshape(1, 1, 1, 3)
    assert reflected(x, 2, 5)[0, 0, 0].tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]
    kernel = torch.zeros(1, 1, 3, 3)
    kernel[..., 1, 2] = 1
    assert torch.allclose(correlated(reflected(x, 1, 1), kernel), torch.tensor([1.0, 2.0, 1.0]), atol=1e-6)


def test_values_are_cut_and_not_rounded():
    assert eight_bits(torch.tensor([0.0, 99.9 / 255, 100 / 255, 1.2, -0.1])).mul(255).round().tolist() == [
        0, 99, 100, 255, 0,
    ]  # fmt: skip
