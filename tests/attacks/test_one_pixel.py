"""OnePixel: the evolution by hand, the one pixel that wins, and no more pixels than allowed."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import nn

from assay.attacks import PGD, OnePixel
from assay.attacks.one_pixel import _Form
from assay.errors import SettingError, ThreatError
from assay.goals import Targeted
from assay.rng import Keyed
from assay.testing import Counting
from assay.testing.case import audit
from assay.testing.problems import Affine, Constant, Masked
from assay.threats import L0, L2


class Spot(nn.Module):
    """Class 1 where enough of some pixels are red."""

    def __init__(self, places, need):
        super().__init__()
        self.places, self.need = places, need

    def forward(self, x):
        red = sum(x[:, 0, i, j] - x[:, 1, i, j] - x[:, 2, i, j] for i, j in self.places)
        return torch.stack([torch.full_like(red, self.need), red], dim=1)


@pytest.mark.parametrize("place", [(0, 0), (3, 5), (5, 6)])
def test_the_one_pixel_that_wins_is_found(place):
    x, y = torch.full((3, 3, 6, 7), 0.5), torch.zeros(3, dtype=torch.int64)
    attack = OnePixel(threat=L0(1, unit="pixel"), population=100, generations=30)
    result = attack(Spot([place], 0.7), x, y)
    assert result.success.all()
    assert (result.distance == 1).all()
    changed = (result.x_adv != x).any(dim=1)
    assert changed[:, place[0], place[1]].all()
    assert changed.flatten(1).sum(1).tolist() == [1, 1, 1]


def test_two_pixels_are_needed_and_allowed():
    x, y = torch.full((2, 3, 4, 4), 0.5), torch.zeros(2, dtype=torch.int64)
    model, settings = Spot([(1, 2), (3, 0)], 0.6), {"population": 150, "generations": 60}
    assert not OnePixel(threat=L0(1, unit="pixel"), **settings)(model, x, y).success.any()
    result = OnePixel(threat=L0(torch.tensor([2.0, 1.0]), unit="pixel"), **settings)(model, x, y)
    assert result.success.tolist() == [True, False]
    assert result.forwards[1] == 1 + 150 * 61
    none = OnePixel(threat=L0(torch.tensor([2.0, 0.0]), unit="pixel"), **settings)(model, x, y)
    assert none.success.tolist() == [True, False]
    assert none.forwards[1] == 1


def test_children_are_of_three_different_candidates():
    attack = OnePixel(threat=L0(1), population=6)
    held = (4.0 ** torch.arange(6, dtype=torch.float64)).reshape(1, 6, 1, 1).expand(50, 6, 1, 1)
    children = attack._children(held, Keyed(0, torch.arange(50))).flatten()
    possible = {a + 0.5 * (b - c) for a, b, c in permutations((4.0**k for k in range(6)), 3)}
    seen = set(children.tolist())
    assert seen <= possible
    assert len(seen) > 0.8 * len(possible)


def test_numbers_are_reflected_and_read_as_places_and_values():
    x = torch.zeros(1, 2, 3, 5)
    form = _Form.of(x, L0(1, unit="pixel", bounds=(0.0, 2.0)))
    held = torch.tensor([[-0.5, 5.5, 2.25, -0.25], [2.9, 4.9, 1.0, 0.5]])[None, :, None]
    inside = form.reflected(held)
    torch.testing.assert_close(inside[0, 0, 0], torch.tensor([0.5, 4.5, 1.75, 0.25]))
    torch.testing.assert_close(inside[0, 1, 0], held[0, 1, 0])
    moves = form.moves(x, inside, L0(1, unit="pixel", bounds=(0.0, 2.0)))[0]
    expected = torch.zeros(2, 2, 3, 5)
    expected[0, :, 0, 4] = torch.tensor([1.75, 0.25])
    expected[1, :, 2, 4] = torch.tensor([1.0, 0.5])
    torch.testing.assert_close(moves, expected)


def test_queries_are_those_of_the_population():
    x, y = Constant().inputs(2)
    model = Counting(Constant().model())
    result = OnePixel(threat=L0(3), population=70, generations=2)(model, x, y)
    assert result.forwards.tolist() == [1 + 3 * 70] * 2
    assert model.forwards == 2 * (1 + 3 * 70)
    cut = OnePixel(threat=L0(3), population=70, generations=2)(model, x, y, max_queries=100)
    assert cut.forwards.tolist() == [100, 100]
    paper = OnePixel(threat=L0(1, unit="pixel"))
    assert (paper.population, paper.generations, paper.factor) == (400, 100, 0.5)


def test_features_targets_and_zero_gradients():
    problem = Masked(shape=(9,))
    x, y = problem.inputs(6, dtype=torch.float64)
    exact = problem.distance(x, y, "l0")
    settings = {"population": 100, "generations": 30}
    result = OnePixel(threat=L0(exact + 1), **settings)(problem.model(torch.float64), x, y)
    assert result.success.all()
    assert not OnePixel(threat=L0(exact - 1), **settings)(problem.model(torch.float64), x, y).success.any()
    assert not PGD(threat=L0(exact + 1), random_start=False)(problem.model(torch.float64), x, y).success.any()
    affine = Affine(classes=3, bounds=(-2.0, 3.0), shape=(1, 4, 4))
    x, y = affine.inputs(6, dtype=torch.float64)
    goal = Targeted(affine.targets(x, y, "l0"))
    threat = L0(affine.distance(x, y, "l0", goal.classes) + 2, bounds=(-2.0, 3.0))
    result = OnePixel(threat=threat, **settings)(affine.model(torch.float64), x, goal)
    assert result.success.sum() >= 5
    audit(result, affine.model(torch.float64), x, goal, threat)


def test_mistakes():
    for settings in ({"generations": -1}, {"population": 3}, {"factor": 0.0}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            OnePixel(threat=L0(1), **settings)
    with pytest.raises(ThreatError, match="needs a budget"):
        OnePixel(threat=L0())
    with pytest.raises(ThreatError, match="OnePixel works in L0"):
        OnePixel(threat=L2(0.1))
    with pytest.raises(ThreatError, match="no pixels"):
        OnePixel(threat=L0(1, unit="pixel"))(nn.Linear(4, 2), torch.zeros(1, 4), torch.tensor([0]))
