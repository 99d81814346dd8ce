"""Pasting: areas, places and turns as the settings say, values as a plain picture has them, gradients."""

from __future__ import annotations

import math

import pytest
import torch

from assay.errors import InputError, SettingError
from assay.rng import Keyed
from assay.universal.patch import Pasting, Places


def places(count, *, centre, half, angle=0.0):
    return Places(
        torch.tensor([centre], dtype=torch.float64).expand(count, 2),
        torch.full((count,), float(half), dtype=torch.float64),
        torch.full((count,), float(angle), dtype=torch.float64),
    )


def test_an_upright_square_on_whole_pixels_is_the_picture_itself():
    patch, x = torch.rand(3, 4, 4, dtype=torch.float64), torch.rand(2, 3, 9, 10, dtype=torch.float64)
    moved = Pasting(shape="square").paste(x, patch, places(2, centre=(5, 3), half=2))
    expected = x.clone()
    expected[:, :, 1:5, 3:7] = patch
    assert torch.allclose(moved, expected, atol=1e-12)


def test_turns_go_the_same_way_as_the_picture():
    patch, x = torch.rand(1, 4, 4, dtype=torch.float64), torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    turned = Pasting(shape="square").paste(x, patch, places(1, centre=(4, 4), half=2, angle=math.pi / 2))
    assert torch.allclose(turned[0, :, 2:6, 2:6], torch.rot90(patch, -1, (1, 2)), atol=1e-12)  # clockwise


@pytest.mark.parametrize("shape", ["circle", "square"])
@pytest.mark.parametrize("size", [(32, 32), (20, 45)])
def test_patches_cover_the_area_and_stay_inside(shape, size):
    pasting = Pasting(area=0.1, shape=shape, rotation=45, scale=(0.7, 1.0))
    drawn = pasting.draw(Keyed(0, torch.arange(500), dtype=torch.float64), *size)
    x = torch.zeros(500, 1, *size, dtype=torch.float64)
    covered = pasting.cover(x, drawn).flatten(1).sum(dim=1)
    scale = drawn.half * 2 / pasting.side(*size)
    assert float((covered / (0.1 * scale.square() * math.prod(size)) - 1).abs().max()) < 0.05
    assert float(covered.max()) < 0.102 * math.prod(size)
    assert 0.7 <= float(scale.min()) < 0.71
    assert 0.99 < float(scale.max()) <= 1.0
    assert float(drawn.angle.abs().max()) <= math.radians(45)
    assert float(drawn.angle.min()) < -math.radians(44)
    reach = drawn.half if shape == "circle" else drawn.half * (drawn.angle.cos() + drawn.angle.sin().abs())
    free = drawn.centre - reach[:, None]
    assert float(free.min()) >= 0
    limit = torch.tensor([size[1], size[0]]) - 2 * reach[:, None]
    assert bool((free <= limit + 1e-9).all())
    assert float((free / limit).amin()) < 0.02  # every place from edge to edge
    assert float((free / limit).amax()) > 0.98


def test_only_what_is_covered_changes_and_gradients_reach_the_patch():
    pasting = Pasting(area=0.2)
    x = torch.rand(3, 2, 8, 8, dtype=torch.float64)
    drawn = pasting.draw(Keyed(0, torch.arange(3), dtype=torch.float64), 8, 8)
    patch = torch.rand(2, 5, 5, dtype=torch.float64, requires_grad=True)
    moved = pasting.paste(x, patch, drawn)
    bare = (pasting.cover(x, drawn) == 0)[:, None].expand_as(x)
    assert torch.equal(moved[bare], x[bare])
    assert float(moved.detach().min()) >= 0
    assert float(moved.detach().max()) <= 1
    assert torch.autograd.gradcheck(lambda p: pasting.paste(x, p, drawn), patch)


def test_places_depend_on_the_sample_only():
    whole = Pasting().draw(Keyed(1, torch.arange(6)), 32, 32)
    alone = Pasting().draw(Keyed(1, torch.tensor([4])), 32, 32)
    assert all(torch.equal(a[4:5], b) for a, b in zip(whole, alone, strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        {"area": 0},
        {"area": 1.5},
        {"shape": "star"},
        {"rotation": -1},
        {"rotation": 181},
        {"scale": 1.0},
        {"scale": (1.0, 0.5)},
        {"scale": (0.0, 1.0)},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(SettingError, match=f"{next(iter(settings))} must"):
        Pasting(**settings)


def test_patches_that_do_not_fit():
    with pytest.raises(SettingError, match="pixels long, and the images have 10 x 40"):
        Pasting(area=0.3).draw(Keyed(0, torch.arange(1)), 10, 40)
    Pasting(area=0.6, shape="square", rotation=0).check(10, 10)
    with pytest.raises(SettingError, match="choose a smaller area"):
        Pasting(area=0.6, shape="square", rotation=45).check(10, 10)
    with pytest.raises(InputError, match="needs images"):
        Pasting().paste(torch.zeros(1, 1, 8, 8), torch.zeros(3, 4, 4), places(1, centre=(4, 4), half=2))
