"""Pointwise and salt and pepper: the exact count where few features decide, and nothing left that could be put back."""

from __future__ import annotations

import pytest
import torch

from assay.attacks import Pointwise, SaltAndPepper
from assay.errors import SettingError, ThreatError
from assay.goals import Targeted
from assay.testing.case import audit, exact_within
from assay.testing.models import Gradientless, curved
from assay.testing.problems import Sparse
from assay.threats import L0, L2

PLAIN = {"restarts": 1, "group": 1}


@pytest.mark.parametrize("settings", [PLAIN, {"restarts": 2}])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-3.0, 2.0)])
def test_exactly_as_many_features_as_are_needed(settings, bounds):
    problem = Sparse(shape=(3, 8, 8), needed=4, bounds=bounds)
    x, y = problem.inputs(8, dtype=torch.float64)
    attack = Pointwise(threat=L0(bounds=bounds), **settings)
    for goal in (y, Targeted(1 - y)):
        result = attack(Gradientless(problem.model(torch.float64), 1, labels=True), x, goal, max_queries=1000)
        audit(result, problem.model(torch.float64), x, goal, attack.threat)
        exact_within(result, problem.distance(x, y, "l0"), 1.0)


@pytest.mark.parametrize("unit", ["feature", "pixel"])
@pytest.mark.parametrize("group", [1, 7])
def test_nothing_can_be_put_back(unit, group):
    model = curved(48, 4, (0.0, 1.0))
    x = torch.rand(6, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    y = model(x).argmax(1)
    threat = L0(unit=unit)
    result = Pointwise(threat=threat, group=group, restarts=1)(model, x, y)
    audit(result, model, x, y, threat)
    assert result.success.all()
    for clean, found, label in zip(x, result.x_adv, y, strict=True):
        changed = found != clean
        units = changed.any(dim=0).nonzero() if unit == "pixel" else changed.nonzero()
        for place in units.tolist():
            where = (slice(None), *place) if unit == "pixel" else tuple(place)
            less = found.clone()
            less[where] = clean[where]
            assert model(less[None]).argmax(1) == label


def test_groups_ask_less_often():
    problem = Sparse(shape=(1, 16, 16), needed=3)
    x, y = problem.inputs(4)
    one, many = (Pointwise(threat=L0(), restarts=1, group=group)(problem.model(), x, y) for group in (1, 16))
    assert torch.equal(one.distance, many.distance)
    assert 2 * many.forwards.sum() < one.forwards.sum()


def test_salt_and_pepper_sets_values_to_the_bounds_and_improves():
    problem = Sparse(shape=(3, 8, 8), needed=2)
    x, y = problem.inputs(8, dtype=torch.float64)
    sizes = []
    for steps in (50, 300):
        result = SaltAndPepper(threat=L0(), steps=steps)(problem.model(torch.float64), x, y)
        audit(result, problem.model(torch.float64), x, y, L0())
        assert result.success.all()
        moved = result.x_adv[result.x_adv != x]
        assert ((moved == 0) | (moved == 1)).all()
        sizes.append(result.distance)
    assert sizes[1].mean() < 0.9 * sizes[0].mean()
    assert (sizes[1] >= 2).all()


def test_the_grains_of_a_pixel_are_alike():
    problem = Sparse(shape=(3, 8, 8), needed=2)
    x, y = problem.inputs(4, dtype=torch.float64)
    x = x.clamp(0.001, 0.999)
    result = SaltAndPepper(threat=L0(unit="pixel"), steps=50)(problem.model(torch.float64), x, y)
    changed = result.x_adv != x
    assert result.success.all()
    assert torch.equal(changed.any(dim=1), changed.all(dim=1))
    spread = result.x_adv.amax(dim=1) - result.x_adv.amin(dim=1)
    assert (spread[changed.all(dim=1)] == 0).all()


@pytest.mark.parametrize("name", ["restarts", "start_steps", "group"])
def test_settings_out_of_range_are_refused(name):
    with pytest.raises(SettingError, match=name):
        Pointwise(threat=L0(), **{name: 0})
    with pytest.raises(SettingError, match="steps"):
        SaltAndPepper(threat=L0(), steps=0)


@pytest.mark.parametrize("attack", [Pointwise, SaltAndPepper])
def test_other_threats_are_refused(attack):
    with pytest.raises(ThreatError, match="L0"):
        attack(threat=L2())
