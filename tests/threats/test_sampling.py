"""Bilinear sampling: against torch's own, exact at whole places, with the slopes of both sides there."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from assay.errors import ThreatError
from assay.threats.sampling import PADDINGS, check_images, check_padding, sample

UNIT = (0.0, 1.0)


def images(n=2, c=3, height=5, width=7, dtype=torch.float64):
    return torch.rand(n, c, height, width, generator=torch.Generator().manual_seed(0), dtype=dtype)


def places(x, far=4.0, seed=1):
    """Random places, many of them outside."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(x), 4, 6)
    height, width = x.shape[2:]
    row, column = (torch.rand(shape, generator=generator, dtype=x.dtype) for _ in range(2))
    return row * (height - 1 + 2 * far) - far, column * (width - 1 + 2 * far) - far


@pytest.mark.parametrize("padding", PADDINGS)
def test_values_are_those_of_grid_sample(padding):
    x = images()
    row, column = places(x)
    grid = torch.stack([column / 6 * 2 - 1, row / 4 * 2 - 1], dim=-1)
    theirs = F.grid_sample(x, grid, mode="bilinear", padding_mode=padding, align_corners=True)
    torch.testing.assert_close(sample(x, row, column, padding, UNIT), theirs)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_whole_places_are_exact(padding, dtype):
    x = images(dtype=torch.float32).to(dtype)
    wide = torch.float32 if dtype == torch.float16 else dtype
    row, column = torch.meshgrid(torch.arange(5), torch.arange(7), indexing="ij")
    found = sample(x, row.expand(2, -1, -1).to(wide), column.expand(2, -1, -1).to(wide), padding, UNIT)
    assert found.dtype == dtype
    assert torch.equal(found, x)


@pytest.mark.parametrize("padding", PADDINGS)
def test_gradients_between_places(padding):
    x = images(height=4, width=5)
    row, column = places(x, far=3.0)
    row, column = row.requires_grad_(), column.requires_grad_()
    assert torch.autograd.gradcheck(lambda r, c: sample(x, r, c, padding, UNIT), (row, column))


@pytest.mark.parametrize("padding", PADDINGS)
def test_the_gradient_at_a_whole_place_is_the_mean_of_both_sides(padding):
    x = torch.tensor([[[[0.1, 0.5, 0.2, 0.9]]]], dtype=torch.float64)
    column = torch.arange(4, dtype=torch.float64)[None, None].requires_grad_()
    sample(x, torch.zeros_like(column), column, padding, UNIT).sum().backward()
    beyond = {"zeros": (0.05, -0.1), "border": (0.4, 0.7), "reflection": (0.0, 0.0)}[padding]
    expected = torch.tensor([beyond[0], 0.05, 0.2, beyond[1]], dtype=torch.float64)
    if padding == "zeros":  # (0.1 - 0 + 0.5 - 0.1) / 2 and (0.9 - 0.2 + 0 - 0.9) / 2
        expected[[0, 3]] = torch.tensor([0.25, -0.1], dtype=torch.float64)
    torch.testing.assert_close(column.grad[0, 0], expected)


def test_on_the_border_the_slope_is_that_of_the_inside_and_beyond_it_none():
    x = torch.tensor([[[[0.1, 0.5, 0.2, 0.9]]]], dtype=torch.float64)
    column = torch.tensor([[[-2.0, -1e-9, 3.0 + 1e-9, 5.5]]], dtype=torch.float64).requires_grad_()
    value = sample(x, torch.zeros_like(column), column, "border", UNIT)
    assert value.flatten().tolist() == [0.1, 0.1, 0.9, 0.9]
    value.sum().backward()
    torch.testing.assert_close(column.grad[0, 0], torch.tensor([0.0, 0.4, 0.7, 0.0], dtype=torch.float64))


def test_outside_is_a_valid_value():
    x = torch.full((1, 1, 2, 2), 0.5)
    far = torch.full((1, 1, 1), 9.0)
    for bounds, value in ((UNIT, 0.0), ((0.25, 1.0), 0.25), ((-2.0, -1.0), -1.0), ((-1.0, 1.0), 0.0)):
        assert sample(x, far, far, "zeros", bounds).item() == value


@pytest.mark.parametrize("padding", PADDINGS)
def test_images_of_one_row_or_one_pixel(padding):
    for height, width in ((1, 1), (1, 4), (3, 1)):
        x = images(height=height, width=width)
        row = torch.zeros(2, height, width, dtype=x.dtype) + torch.arange(height)[:, None]
        column = torch.zeros(2, height, width, dtype=x.dtype) + torch.arange(width)
        assert torch.equal(sample(x, row, column, padding, UNIT), x)
        assert sample(x, row + 0.3, column - 0.7, padding, UNIT).isfinite().all()


def test_samples_do_not_depend_on_their_batch():
    x = images(n=4, dtype=torch.float32)
    row, column = places(x)
    row[1] = row[1].round()  # the second sample alone has whole places
    row, column = row.requires_grad_(), column.requires_grad_()
    value = sample(x, row, column, "zeros", UNIT)
    slope = torch.autograd.grad(value.square().sum(), (row, column))
    for i in range(4):
        one = slice(i, i + 1)
        alone = sample(x[one], row[one], column[one], "zeros", UNIT)
        assert torch.equal(alone, value[one])
        for whole, part in zip(slope, torch.autograd.grad(alone.square().sum(), (row, column)), strict=True):
            assert torch.equal(whole[one], part[one])


def test_mistakes():
    with pytest.raises(ThreatError, match=r"Flow moves the pixels of images.*\(b, 5\)"):
        check_images(torch.zeros(2, 5), "Flow")
    with pytest.raises(ThreatError, match="padding must be one of 'zeros', 'border', 'reflection'; got 'black'"):
        check_padding("black")
