"""Drawings of moves show what the moves do: arrows, colours, curves and outlines are read back from the pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import assay
from assay.drawing import drawn
from assay.drawing.arrows import sources
from assay.drawing.tiles import SIDE


def _accent(image):
    """Where a drawing on grey has the red of arrows, curves and outlines."""
    pixels = np.asarray(image, dtype=int)
    return (pixels[..., 0] - pixels[..., 1] > 60).nonzero()


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (-2.0, 0.0), (0.2, 0.9)])
@pytest.mark.parametrize("padding", ["zeros", "reflection"])
def test_sources_are_where_pixels_come_from(bounds, padding):
    x = torch.full((1, 3, 5, 9), bounds[0])
    threat = assay.Translation(3, bounds=bounds, padding=padding)
    row, column, inside = sources(threat, x, torch.tensor([[1.0, -2.5]]))
    down, right = torch.meshgrid(torch.arange(5.0), torch.arange(9.0), indexing="ij")
    expected = (down >= 1) & (right <= 5.5)
    assert torch.equal(inside, expected)
    assert torch.allclose(row[inside], (down - 1)[inside].double())
    assert torch.allclose(column[inside], (right + 2.5)[inside].double())


def test_sources_of_rotations_and_flows():
    x = torch.rand(1, 1, 3, 3)
    row, column, inside = sources(assay.Rotation(90), x, torch.tensor([[90.0]]))
    assert inside.all()
    top_left = (float(row[0, 0]), float(column[0, 0]))
    assert top_left == pytest.approx((0, 2))  # counter-clockwise: the right corner comes to the left
    flow = torch.zeros(1, 2, 3, 3)
    flow[0, 0, 1, 1] = 0.5  # half a pixel to the right, where 3 pixels reach from -1 to 1
    row, column, inside = sources(assay.Flow(1), x, flow)
    assert (float(row[1, 1]), float(column[1, 1])) == pytest.approx((1, 1.5))
    assert float(column.sum()) == pytest.approx(9.5)


def test_arrows_stand_where_the_flow_is():
    x, flow = torch.rand(1, 3, 28, 28), torch.zeros(1, 2, 28, 28)
    (still,) = drawn(assay.Flow(0.5), x, flow)
    assert len(_accent(still.image)[0]) == 0
    assert still.words == "up to 0 px"
    flow[0, 0, 20, 5] = 4 / 13.5  # 4 pixels: what is there comes from the right
    (tile,) = drawn(assay.Flow(0.5), x, flow)
    rows, columns = _accent(tile.image)
    scale = SIDE / 28
    assert abs(rows.mean() - 20.5 * scale) < 2
    assert columns.min() >= 5.5 * scale - 2
    assert columns.max() <= 9.5 * scale + 2
    assert columns.max() - columns.min() > 2 * scale
    assert tile.words == "up to 4 px"


def test_small_flows_have_longer_arrows():
    flow = torch.full((1, 2, 28, 28), 0.25 / 13.5)
    (tile,) = drawn(assay.Flow(0.5), torch.rand(1, 3, 28, 28), flow)
    assert tile.words == "up to 0.35 px, arrows 5 times"


@pytest.mark.parametrize(
    ("threat", "theta", "words"),
    [
        (assay.Rotation(30), [[-12.25]], "12.2° clockwise"),
        (assay.Rotation(30), [[7.0]], "7° counter-clockwise"),
        (assay.Translation(3), [[-1.0, 2.5]], "2.5 px right, 1 px up"),
        (assay.Translation(3), [[3.0, -0.5]], "0.5 px left, 3 px down"),
    ],
)
def test_angles_and_shifts_are_told_and_drawn(threat, theta, words):
    (tile,) = drawn(threat, torch.rand(1, 3, 20, 30), torch.tensor(theta))
    assert tile.words == words
    assert len(_accent(tile.image)[0]) > 100
    (still,) = drawn(threat, torch.rand(1, 3, 20, 30), torch.zeros(1, len(theta[0])))
    assert len(_accent(still.image)[0]) == 0


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0)])
def test_swatches_show_colours_before_and_after(bounds):
    low, high = bounds
    threat = assay.Recolor(0.2, space="rgb", resolution=(2, 2, 2), bounds=bounds)
    x = torch.zeros(1, 3, 8, 8)
    x[:, :, :4] = torch.tensor([0.2, 0.4, 0.6])[None, :, None, None]
    x[:, :, 4:] = torch.tensor([0.5, 0.1, 0.1])[None, :, None, None]
    theta = torch.zeros(1, 3, 2, 2, 2)
    theta[:, 0] = 0.2
    (tile,) = drawn(threat, low + (high - low) * x, theta)
    pixels = np.asarray(tile.image, dtype=float) / 255
    shown = {tuple(np.round(np.concatenate([pixels[SIDE - 40, c], pixels[SIDE - 10, c]]), 1)) for c in (20, 200)}
    assert shown == {(0.2, 0.4, 0.6, 0.4, 0.4, 0.6), (0.5, 0.1, 0.1, 0.7, 0.1, 0.1)}
    (still,) = drawn(threat, low + (high - low) * x, torch.zeros_like(theta))
    assert still.words == "CIELUV, by up to 0.0"
    assert tile.words != still.words


def test_a_tone_curve_is_its_plot():
    theta = torch.tensor([[[0.2, 0.0, -0.2]]])
    (tile,) = drawn(assay.ToneCurve(0.2, points=3), torch.rand(1, 3, 6, 6), theta)
    rows, columns = _accent(tile.image)
    for value, after in ((0.1, 0.26), (0.25, 0.35), (0.75, 0.65)):
        at = rows[columns == round(value * SIDE)]
        assert abs(at.mean() - (1 - after) * SIDE) < 2
    assert tile.words == "values move by up to 0.2"


def test_patches_are_outlined():
    x, theta = torch.full((1, 3, 14, 28), 0.5), torch.zeros(1, 3, 14, 28)
    theta[:, :, 3, 10], theta[:, 0, 5, 12] = 0.5, -0.5
    (tile,) = drawn(assay.Patch(0.1), x, theta)
    rows, columns = _accent(tile.image)
    scale = SIDE / 28
    ends = (rows.min(), rows.max(), columns.min(), columns.max())
    assert np.abs(np.array(ends) - np.array([3, 6, 10, 13]) * scale).max() <= 2
    assert tile.words == "3 by 3 pixels, 2.3% of the image"
    mask = torch.zeros(14, 28)
    mask[7:, :7] = 1
    (tile,) = drawn(assay.Patch(mask=mask), x, theta * 0)
    rows, columns = _accent(tile.image)
    assert tile.words == "49 pixels, 12.5% of the image"
    assert abs(rows.min() - 7 * scale) <= 2
    assert abs(columns.max() - 7 * scale) <= 2


def test_parts_of_a_combination_are_drawn_on_what_those_before_left():
    x = torch.rand(1, 3, 8, 8)
    threat = assay.Combined(assay.Translation(2), assay.Linf(0.1), assay.ToneCurve(0.1, points=2))
    shift, change = torch.tensor([[0.0, 2.0]]), torch.full((1, 192), 0.02)
    tiles = drawn(threat, x, torch.cat([shift, change, torch.zeros(1, 2)], dim=1))
    assert [tile.head for tile in tiles] == ["translation", "linf", "tone curve"]
    assert tiles[0].words == "2 px right, 0 px up"
    assert tiles[1].words == "change, 20 times"
    alone = drawn(assay.Linf(0.1), assay.Translation(2).apply(x, shift), change.reshape(1, 3, 8, 8))
    assert np.array_equal(np.asarray(tiles[1].image), np.asarray(alone[0].image))
