"""Colour conversions: published values, the way back, and gradients where formulas have kinks and poles."""

from __future__ import annotations

import pytest
import torch

from assay.threats.colour import SPACES, luv, luv_back, ypbpr

every_space = pytest.mark.parametrize("name", SPACES)


def colours(*triples):
    return torch.tensor(triples, dtype=torch.float64).T[None]


def lattice(steps, dtype=torch.float64):
    axis = torch.linspace(0, 1, steps, dtype=dtype)
    return torch.cartesian_prod(axis, axis, axis).T[None]


def test_luv_of_the_primaries_is_that_of_published_tables():
    found = luv(colours((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1), (0, 0, 0)))[0].T
    published = torch.tensor(
        [[53.2408, 175.015, 37.756], [87.7347, -83.078, 107.398], [32.297, -9.405, -130.342], [100, 0, 0], [0, 0, 0]]
    ).double()
    scaled = (published + torch.tensor([0, 100, 100])) / torch.tensor([100, 200, 200])
    assert torch.allclose(found, scaled, atol=5e-5)


def test_lightness_of_grey_follows_the_definition_of_srgb_and_cie():
    grey = torch.linspace(0, 1, 50, dtype=torch.float64)
    linear = torch.tensor([v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in grey.tolist()])
    expected = [116 * y ** (1 / 3) - 16 if y > 216 / 24389 else y * 24389 / 27 for y in linear.tolist()]
    found = luv(grey.expand(1, 3, -1))
    assert torch.allclose(found[0, 0], torch.tensor(expected).double() / 100, atol=1e-6)
    assert torch.allclose(found[0, 1:], torch.full((2, 50), 0.5, dtype=torch.float64), atol=1e-9)


def test_ypbpr_of_the_primaries():
    found = ypbpr(colours((1, 0, 0), (0, 1, 0), (0, 0, 1)))[0].T
    assert torch.allclose(found[:, 0], torch.tensor([0.299, 0.587, 0.114]).double())
    assert float(found[0, 2]) == pytest.approx(1.0)
    assert float(found[2, 1]) == pytest.approx(1.0)


@every_space
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 2e-6), (torch.float32, 2e-5)])
def test_the_way_back_ends_where_it_began(name, dtype, tolerance):
    rgb = lattice(18, dtype)
    space = SPACES[name]
    assert float((space.back(space.of(rgb)) - rgb).abs().max()) < tolerance


@every_space
def test_gradients_are_those_of_differences(name):
    rgb = torch.rand(1, 3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    space = SPACES[name]
    assert torch.autograd.gradcheck(space.of, (rgb.requires_grad_(),))
    assert torch.autograd.gradcheck(space.back, (space.of(rgb.detach()).requires_grad_(),))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_and_lead_out_of_black_grey_and_white(dtype):
    rgb = torch.cat([torch.linspace(0, 1, 256, dtype=dtype).expand(1, 3, -1), lattice(6, dtype)], dim=2)
    for convert, at in ((luv, rgb), (luv_back, luv(rgb))):
        at = at.clone().requires_grad_()
        (slope,) = torch.autograd.grad(convert(at)[:, 0].sum(), at)
        assert bool(slope.isfinite().all())
        assert float(slope.abs().max()) < 100
        assert bool((slope != 0).any(dim=1).all())  # black included


def test_colours_far_outside_are_finite():
    wild = torch.rand(1, 3, 5000, generator=torch.Generator().manual_seed(1)) * 3 - 1
    wild[:, 0, :500] = 0
    wild.requires_grad_()
    found = luv_back(wild)
    assert bool(found.isfinite().all())
    assert bool(torch.autograd.grad(found.sum(), wild)[0].isfinite().all())
