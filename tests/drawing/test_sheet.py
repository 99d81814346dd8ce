"""The picture holds the images, moves and decisions of the samples that were moved."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import assay
from assay.attacks import PGD
from assay.drawing.tiles import SIDE
from assay.errors import InputError


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
    x = torch.rand(12, 3, 8, 8)
    y = model(x).argmax(dim=1)
    y[0] = 1 - y[0]  # wrong from the start: nothing is moved
    attack = PGD(threat=assay.Combined(assay.Flow(0.1), assay.Linf(0.03)), steps=10)
    return attack.threat, x, y, attack(model, x, y, keep_moves=True)


def _tile(picture, left, top):
    return np.asarray(picture, dtype=float)[top : top + SIDE, left : left + SIDE] / 255


def test_rows_are_the_samples_that_were_moved(found):
    threat, x, y, result = found
    moved = (result.success & (result.distance > 0)).nonzero().flatten()
    assert len(moved) >= 3
    picture = assay.picture(threat, x, result, before=y, classes=["a", "b"], most=2)
    step, row, head = SIDE + 12, SIDE + 30, 30
    assert picture.size == (4 * step + 12, 2 * row + head)
    for place, i in enumerate(moved[:2].tolist()):
        for left, image in ((12, x[i]), (12 + 3 * step, result.x_adv[i])):
            shown = _tile(picture, left, head + place * row)
            assert np.abs(shown[::28, ::28] - image.permute(1, 2, 0).numpy()).max() < 0.003
    everyone = assay.picture(threat, x, result, most=100)
    assert everyone.height == len(moved) * row + head


def test_words_are_decisions(found):
    threat, x, y, result = found

    def words(**how):
        picture = np.asarray(assay.picture(threat, x, result, most=1, **how))
        below = picture[30 + SIDE : 30 + SIDE + 18]
        return below[:, : SIDE + 12], below[:, -SIDE - 12 :]

    before, after = words(before=y, classes=["a", "b"])
    other = words(before=1 - y, classes=["a", "b"])
    assert not np.array_equal(before, other[0])
    assert np.array_equal(after, other[1])
    assert (words()[0] == 255).all()
    assert (words()[1] < 255).any()
    assert not np.array_equal(after, words(before=y, classes=["b", "a"])[1])


def test_what_cannot_be_shown_is_said(found):
    threat, x, _, result = found
    held = torch.zeros_like(result.success)
    nothing = assay.attacks.Result(x, held, result.distance, result.prediction, result.forwards, result.backwards)
    with pytest.raises(InputError, match="moved no sample"):
        assay.picture(threat, x, nothing)
    without = assay.attacks.Result(
        result.x_adv, result.success, result.distance, result.prediction, result.forwards, result.backwards
    )
    with pytest.raises(InputError, match="keep_moves=True"):
        assay.picture(threat, x, without)
    assert assay.picture(assay.Linf(0.1), x, without).width == 3 * (SIDE + 12) + 12
    rows = PGD(threat=assay.Linf(0.5), steps=5)(lambda v: v.mean(dim=(2, 3)), torch.rand(3, 5, 4, 4), torch.arange(3))
    with pytest.raises(InputError, match="neither images"):
        assay.picture(assay.Linf(0.5), torch.rand(3, 5, 4, 4), rows)
