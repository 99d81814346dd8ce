"""JPEG is what a real encoder and decoder make of a picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn

from assay.rng import Keyed
from assay.transformations import JPEG
from assay.transformations.jpeg import _LUMINANCE, _table


def picture(height=50, width=70, channels=3):
    """Smooth colours with edges and some texture, 8 bit."""
    down, right = np.mgrid[:height, :width] / max(height, width)
    layers = [0.5 + 0.4 * np.sin(6 * right + 2 * c) * np.cos(5 * down * (1 + c)) for c in range(channels)]
    x = np.stack(layers, axis=-1)
    x[10:30, 20:40] = [0.9, 0.2, 0.1][:channels]
    x += np.random.default_rng(0).normal(0, 0.02, x.shape)
    return (x.clip(0, 1) * 255).round().astype(np.uint8)


def real(x, quality, subsampling):
    file = io.BytesIO()
    Image.fromarray(x).save(file, "JPEG", quality=quality, subsampling=2 if subsampling else 0)
    return np.asarray(Image.open(file))


def ours(x, quality, subsampling=True):
    tensor = torch.from_numpy(x).double().reshape(1, *x.shape[:2], -1).permute(0, 3, 1, 2) / 255
    out = JPEG(1, 100, subsampling=subsampling).apply(tensor, torch.tensor([quality]))
    return out[0].permute(1, 2, 0).reshape(x.shape).numpy() * 255


@pytest.mark.parametrize("quality", [10, 35, 50, 75, 92, 100])
@pytest.mark.parametrize("subsampling", [True, False])
def test_colour_pictures_come_out_as_from_a_real_file(quality, subsampling):
    x = picture()
    got, expected = ours(x, quality, subsampling), real(x, quality, subsampling).astype(float)
    error, change = np.abs(got - expected).mean(), np.abs(expected - x).mean()
    assert error < 1.1
    assert abs(float((got - expected).mean())) < 0.2
    if quality < 90:
        assert error < 0.2 * change


@pytest.mark.parametrize("quality", [10, 35, 50, 75])
def test_grey_pictures_differ_only_where_a_coefficient_was_about_to_be_rounded_the_other_way(quality):
    x = picture(40, 64, 1)[..., 0]
    step = _table(_LUMINANCE, torch.tensor([quality]))[0].numpy()
    coefficients = blocks(x - 128.0) / step
    differences = blocks(ours(x, quality) - real(x, quality, False)) / step
    other = np.abs(differences * step) > 4  # rounding of the result alone moves none so far
    nearness = np.abs(np.abs(coefficients) % 1 - 0.5) * step
    assert bool((nearness[other] < 0.2).all())
    assert other.mean() < 0.01


def blocks(plane):
    """Cosine transforms of the 8x8 blocks."""
    parts = plane.reshape(plane.shape[0] // 8, 8, plane.shape[1] // 8, 8).swapaxes(1, 2)
    return dctn(parts, axes=(2, 3), norm="ortho")


def test_every_image_has_its_own_quality():
    x = torch.from_numpy(picture()).double().permute(2, 0, 1)[None].repeat(3, 1, 1, 1) / 255
    quality = torch.tensor([10, 50, 95])
    together = JPEG(1, 100).apply(x, quality)
    for i in range(3):
        assert torch.allclose(JPEG(1, 100).apply(x[i : i + 1], quality[i : i + 1])[0], together[i], atol=1e-12)
    worse = (together - x).abs().mean(dim=(1, 2, 3))
    assert bool((worse[:-1] > 1.5 * worse[1:]).all())


def test_qualities_are_drawn_from_the_whole_range():
    drawn = JPEG(60, 63).draw(Keyed(0, torch.arange(100)), (3, 8, 8))
    assert sorted(set(drawn.tolist())) == [60, 61, 62, 63]
    assert set(JPEG(60).draw(Keyed(0, torch.arange(9)), (3, 8, 8)).tolist()) == {60}


def test_the_gradient_passes_every_rounding_as_the_identity():
    grey = torch.rand(1, 1, 16, 24, dtype=torch.float64).mul(0.5).add(0.25).requires_grad_()
    slope = torch.randn(1, 1, 16, 24, dtype=torch.float64)
    (grad,) = torch.autograd.grad(JPEG(60).apply(grey, torch.tensor([60])), grey, slope)
    assert torch.allclose(grad, slope)  # the cosine transform is orthonormal
    colour = torch.rand(1, 3, 16, 16, dtype=torch.float64).mul(0.2).add(0.4).requires_grad_()
    (grad,) = torch.autograd.grad(JPEG(60).apply(colour, torch.tensor([60])).sum(), colour)
    assert torch.allclose(grad.sum(dim=(2, 3)), torch.full((1, 3), 256.0, dtype=torch.float64), rtol=1e-3)
