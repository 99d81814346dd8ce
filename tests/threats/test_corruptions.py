"""Corruptions as a threat: the worst of random draws, found by searches that need no gradient."""

from __future__ import annotations

import pytest
import torch

import assay
from assay.attacks import PGD, GridSearch, RandomSearch
from assay.corruptions import select
from assay.errors import SettingError, ThreatError
from assay.rng import Keyed
from assay.threats import Corruptions


class MeanLight(torch.nn.Module):
    """Decides by the mean of the image."""

    def forward(self, x):
        light = x.flatten(1).mean(dim=1)
        return torch.stack([0.6 - light, light - 0.6], dim=1)


X = torch.full((6, 3, 16, 16), 0.5)
Y = torch.zeros(6, dtype=torch.int64)


def test_a_move_is_the_corruption_that_it_names():
    kinds = select("noise")
    theta = torch.tensor([[0.0, 2.0, 0.25], [0.5, 5.0, 0.0], [0.9, 0.0, 0.7]])
    moved = Corruptions(5, corruptions="noise").apply(X[:3], theta)
    draw = torch.tensor([1 << 18])
    assert torch.equal(moved[0], kinds[0](severity=2)(X[:1], index=draw)[0])
    assert torch.equal(moved[1], kinds[1](severity=5)(X[:1], index=torch.tensor([0]))[0])
    assert torch.equal(moved[2], X[2])


def test_random_moves_are_allowed_and_of_all_kinds():
    threat = Corruptions(3)
    theta = threat.start(torch.zeros(300, 3, 4, 4), Keyed(0, torch.arange(300)))
    assert (threat.size(X, theta) == 3).all()
    assert torch.equal(threat.project(torch.zeros(300, 3, 4, 4), theta), theta)
    assert len((theta[:, 0] * 15).long().unique()) == 15


def test_projection_keeps_each_number_in_its_limits():
    theta = torch.tensor([[2.0, 7.0, -1.0], [0.5, 1.0, 0.5]])
    moved = Corruptions(3).project(X[:2], theta)
    assert moved.tolist() == [[1.0, 3.0, 0.0], [0.5, 1.0, 0.5]]
    assert torch.equal(Corruptions(3).apply(X[:2], Corruptions(3).identity(X[:2])), X[:2])


def test_random_search_finds_the_worst_weather_and_nothing_where_there_is_none():
    model = MeanLight()
    found = RandomSearch(threat=Corruptions(4, corruptions="brightness,contrast"), draws=8)(model, X, Y)
    assert found.success.all()
    assert (found.distance == 4).all()
    harmless = RandomSearch(threat=Corruptions(4, corruptions="contrast,blur"), draws=8)(model, X, Y)
    assert not harmless.success.any()


def test_a_grid_finds_the_smallest_severity_first_asked_last():
    found = GridSearch(threat=Corruptions(5, corruptions="brightness"), points=(1, 6, 1))(MeanLight(), X, Y)
    assert found.success.all()


def test_evaluations_take_it():
    found = assay.evaluate(
        MeanLight(), (X, Y), threat="corruptions:4", suite=[("worst", RandomSearch(threat=Corruptions(4), draws=30))],
        progress=False,
    )  # fmt: skip
    assert found.clean_accuracy == 1
    assert found.robust_accuracy == 0


def test_bounds_other_than_zero_and_one():
    threat, plain = (Corruptions(2, bounds=b, corruptions="fog") for b in ((-1.0, 1.0), (0.0, 1.0)))
    theta = torch.tensor([[0.0, 2.0, 0.3]])
    torch.testing.assert_close(threat.apply(X[:1] * 2 - 1, theta), plain.apply(X[:1], theta) * 2 - 1)


def test_searches_along_gradients_are_refused():
    with pytest.raises(ThreatError, match="RandomSearch"):
        PGD(threat=Corruptions(3), steps=2)(MeanLight(), X, Y)
    with pytest.raises(ThreatError, match="RandomSearch"):
        Corruptions(3).ascend(X, X, X, X)


@pytest.mark.parametrize("eps", [0, 0.5, 2.5, 6, torch.tensor([1.0, 9.0])], ids=str)
def test_a_budget_is_a_severity(eps):
    with pytest.raises(ThreatError, match="from 1 to 5"):
        Corruptions(eps)


def test_unknown_names_are_refused():
    with pytest.raises(SettingError, match="Did you mean"):
        Corruptions(3, corruptions="fogg")
    with pytest.raises(ThreatError, match="imagenet"):
        Corruptions(3, table="mnist")
