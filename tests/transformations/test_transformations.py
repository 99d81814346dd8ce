"""What all transformations share, and the known answers of those of light, pose and optics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from assay.errors import InputError, SettingError
from assay.rng import Keyed
from assay.transformations import (
    EOT,
    JPEG,
    Blur,
    Brightness,
    ColourResponse,
    Contrast,
    Noise,
    Perspective,
    Resample,
    Rotate,
    Scale,
    Translate,
)

SHAPE = (3, 9, 12)
STRONG = [
    Rotate(30),
    Rotate(30, padding="reflection"),
    Scale(0.3, padding="border"),
    Translate(2.5),
    Perspective(0.2),
    Brightness(0.3),
    Contrast(0.4),
    ColourResponse(0.2, 0.3),
    Noise(0.1),
    Blur(1.5),
    Resample(2, Blur(1.0), Noise(0.05)),
    JPEG(30, 90),
]
NOTHING = [
    Rotate(0),
    Scale(0),
    Translate(0),
    Perspective(0),
    Brightness(0),
    Contrast(0),
    ColourResponse(0),
    Noise(0),
    Blur(0),
    Resample(3),
]


def images(n=4, *, shape=SHAPE, dtype=torch.float64):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(3), dtype=dtype) * 0.6 + 0.2


def keyed(n=4, dtype=torch.float64):
    return Keyed(7, torch.arange(n) * 11, dtype=dtype)


@pytest.mark.parametrize("transformation", STRONG, ids=repr)
def test_images_change_stay_in_range_and_do_not_depend_on_the_batch(transformation):
    x = images()
    out = transformation.apply(x, transformation.draw(keyed(), SHAPE))
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert float(out.min()) >= 0
    assert float(out.max()) <= 1
    assert bool(((out - x).flatten(1).abs().amax(1) > 1e-3).all())
    rows = torch.tensor([2, 0])
    alone = transformation.apply(x[rows], transformation.draw(keyed().at(rows), SHAPE))
    assert torch.allclose(alone, out[rows], atol=1e-12)
    single = transformation.apply(x.float(), transformation.draw(keyed(dtype=torch.float32), SHAPE))
    assert single.dtype == torch.float32


@pytest.mark.parametrize("transformation", NOTHING, ids=repr)
def test_nothing_changes_at_zero_strength(transformation):
    for dtype, close in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        x = images(dtype=dtype)
        out = transformation.apply(x, transformation.draw(keyed(dtype=dtype), SHAPE))
        assert torch.allclose(out, x, atol=close, rtol=0)


@pytest.mark.parametrize("transformation", [t for t in STRONG if not isinstance(t, JPEG)], ids=repr)
def test_gradients_are_right(transformation):
    x = images(2, shape=(3, 4, 5)).requires_grad_()
    drawn = transformation.draw(keyed(2), (3, 4, 5))
    assert torch.autograd.gradcheck(lambda v: transformation.apply(v, drawn), x)


def test_a_quarter_turn_and_whole_shifts_move_pixels():
    x = images(1, shape=(3, 6, 6))
    assert torch.allclose(Rotate(90).apply(x, torch.tensor([90.0])), x.rot90(1, (2, 3)), atol=1e-6)
    assert torch.allclose(Rotate(90).apply(x, torch.tensor([-90.0])), x.rot90(-1, (2, 3)), atol=1e-6)
    shifted = Translate(2).apply(x, torch.tensor([[2.0, -1.0]]))
    assert torch.allclose(shifted[..., :-1, 2:], x[..., 1:, :-2], atol=1e-12)
    assert bool((shifted[..., :2].abs() < 1e-12).all())
    bordered = Translate(2, padding="border").apply(x, torch.tensor([[2.0, 0.0]]))
    assert torch.allclose(bordered[..., 0], x[..., 0], atol=1e-12)


def test_a_twofold_scale_shows_the_middle_at_twice_the_size():
    row = torch.arange(8.0, dtype=torch.float64) / 8
    x = row.expand(1, 1, 8, 8)
    out = Scale(0.9).apply(x, torch.tensor([2.0]))
    assert torch.allclose(out[0, 0, 4], (torch.arange(8.0, dtype=torch.float64) - 3.5) / 16 + 3.5 / 8)


def test_perspective_is_the_homography_of_its_corners():
    height, width = 12, 16
    moved = torch.tensor([[[0.1, 0.05], [-0.1, 0.1], [0.02, -0.08], [-0.05, -0.1]]], dtype=torch.float64)
    size = np.array([width, height])
    corners = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]]) * size / 2
    source = corners + moved[0].numpy() * size
    rows = []  # the direct linear transformation: the null space of eight equations
    for (x, y), (u, v) in zip(source, corners, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y, -u], [0, 0, 0, x, y, 1, -v * x, -v * y, -v]]
    matrix = np.linalg.svd(np.array(rows))[2][-1].reshape(3, 3)
    down, right = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")
    seen = np.stack([right, down, np.ones_like(down)], axis=-1) @ matrix.T
    u, v = seen[..., 0] / seen[..., 2], seen[..., 1] / seen[..., 2]
    plane = torch.from_numpy(0.5 + 0.02 * right - 0.03 * down)[None, None]  # linear, so that sampling is exact
    out = Perspective(0.2).apply(plane, moved)[0, 0]
    inside = torch.from_numpy((np.abs(u) < width / 2 - 0.5) & (np.abs(v) < height / 2 - 0.5))
    assert int(inside.sum()) > 80
    assert torch.allclose(out[inside], torch.from_numpy(0.5 + 0.02 * u - 0.03 * v)[inside], atol=1e-9)


def test_brightness_contrast_and_colour_follow_their_formulas():
    x = torch.tensor([[0.2, 0.4], [0.5, 0.95]], dtype=torch.float64)
    u = torch.tensor([0.1, 0.1], dtype=torch.float64)
    assert torch.allclose(Brightness(0.1).apply(x, u), torch.tensor([[0.3, 0.5], [0.6, 1.0]], dtype=torch.float64))
    more = torch.tensor([[0.2 - 0.01, 0.4 + 0.01], [0.5 - 0.0225, 0.95 + 0.0225]], dtype=torch.float64)
    assert torch.allclose(Contrast(0.5).apply(x, u), more)
    gain, bend = torch.tensor([[0.1, -0.1], [0.0, 0.2]]).double(), torch.tensor([[0.0, 0.5], [1.0, 0.0]]).double()
    expected = [[0.2 * 1.1, 0.9 * (0.4 + 0.5 * 0.24)], [0.75, 1.0]]
    assert torch.allclose(ColourResponse(0.2, 1).apply(x, (gain, bend)), torch.tensor(expected, dtype=torch.float64))


def test_noise_has_its_standard_deviation():
    x = torch.full((64, 256), 0.5, dtype=torch.float64)
    out = Noise(0.05).apply(x, Noise(0.05).draw(Keyed(0, torch.arange(64), dtype=torch.float64), (256,))) - 0.5
    assert abs(float(out.mean())) < 4 * 0.05 / 128
    assert abs(float(out.std()) - 0.05) < 0.001


def test_blur_is_that_of_scipy_away_from_the_edges():
    x = images(2, shape=(2, 24, 30))
    sigma = torch.tensor([0.6, 1.3], dtype=torch.float64)
    out = Blur(2).apply(x, sigma)
    for i in range(2):
        for c in range(2):
            expected = gaussian_filter(x[i, c].numpy(), float(sigma[i]), truncate=6)
            assert np.allclose(out[i, c, 9:-9, 9:-9], expected[9:-9, 9:-9], atol=1e-6)
    flat = torch.full((1, 1, 5, 5), 0.3, dtype=torch.float64)
    assert torch.allclose(Blur(2).apply(flat, torch.tensor([2.0])), flat)


def test_resampling_works_at_the_other_resolution():
    x = images(1, shape=(1, 4, 6))
    halved = Resample(0.5).apply(x, ())
    squares = x.reshape(1, 1, 2, 2, 3, 2).mean(dim=(3, 5))
    assert torch.allclose(halved, squares.repeat_interleave(2, 2).repeat_interleave(2, 3))
    drawn = Resample(3, Noise(0.1)).draw(keyed(1), (1, 4, 6))
    assert drawn[0].shape == (1, 1, 12, 18)
    expected = (x.repeat_interleave(3, 2).repeat_interleave(3, 3) + 0.1 * drawn[0]).clamp(0, 1)
    assert torch.allclose(Resample(3, Noise(0.1)).apply(x, drawn), expected.reshape(1, 1, 4, 3, 6, 3).mean(dim=(3, 5)))


def test_views_see_the_bounds_as_zero_and_one():
    eot = EOT(Brightness(0.2), Noise(0.1))
    x = images()
    unit = eot.views(x, keyed())
    assert torch.allclose(eot.views(x * 4 - 3, keyed(), (-3.0, 1.0)), unit * 4 - 3, atol=1e-12)
    assert not torch.allclose(unit, x)
    assert EOT().views(x, keyed()) is x


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: Rotate(-1), "degrees of Rotate"),
        (lambda: Rotate(10, padding="wrap"), "padding must be"),
        (lambda: Scale(1), "strength of Scale"),
        (lambda: Translate(True), "pixels of Translate"),
        (lambda: Perspective(0.5), "strength of Perspective"),
        (lambda: Brightness(float("nan")), "strength of Brightness"),
        (lambda: Contrast("a"), "strength of Contrast"),
        (lambda: ColourResponse(0.1, 2), "curve of ColourResponse"),
        (lambda: Noise(-0.1), "std of Noise"),
        (lambda: Blur(-1), "sigma of Blur"),
        (lambda: Resample(0), "factor of Resample"),
        (lambda: Resample(2, 3), "takes transformations such as"),
        (lambda: JPEG(0), "from 1 to 100; got 0"),
        (lambda: JPEG(90, 30), "in this order"),
        (lambda: EOT(0.1), "takes transformations such as"),
        (lambda: EOT(draws=0), "draws of EOT"),
        (lambda: EOT(share=0), "share of EOT has to be above 0"),
        (lambda: EOT(share=1.1), "share of EOT"),
        (lambda: EOT(confirm=-1), "confirm of EOT"),
    ],
)
def test_bad_settings_are_named(wrong, message):
    with pytest.raises(SettingError, match=message):
        wrong()


def test_what_is_no_image_is_refused_by_what_needs_one():
    x = torch.rand(2, 5)
    for transformation in (Rotate(5), Scale(0.1), Translate(1), Perspective(0.1), Blur(1), JPEG(50)):
        with pytest.raises(InputError, match="is for images"):
            transformation.apply(x, transformation.draw(Keyed(0, torch.arange(2)), (5,)))
