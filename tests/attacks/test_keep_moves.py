"""Moves that a result holds are those of its adversarial inputs, and cost the search nothing."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

import assay
from assay.attacks import PDPGD, PGD, RandomSearch, Square

THREATS = [
    assay.Flow(0.06),
    assay.Rotation(60),
    assay.Translation(2.0),
    assay.Recolor(0.05, resolution=(3, 4, 5)),
    assay.ToneCurve(0.2),
    assay.Patch(0.08),
    assay.Linf(0.05),
    assay.Combined(assay.Recolor(0.01, resolution=(3, 4, 5)), assay.Flow(0.02), assay.Linf(0.005)),
]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 7 * 8, 3))


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    return torch.rand(24, 3, 7, 8, generator=torch.Generator().manual_seed(2))


def _holds(attack, model, x, **how):
    """The move of each success leads to its input; the others' change nothing. Returns who was moved."""
    y = model(x).argmax(dim=1)
    plain, kept = attack(model, x, y, **how), attack(model, x, y, keep_moves=True, **how)
    assert plain.theta is None
    for field in fields(kept):
        if field.name == "worth":
            assert plain.worth is None
            assert kept.worth is None
        elif field.name != "theta":
            assert torch.equal(getattr(plain, field.name), getattr(kept, field.name)), field.name
    assert torch.allclose(attack.threat.apply(x, kept.theta), kept.x_adv, atol=1e-6)
    assert torch.allclose(attack.threat.size(x, kept.theta)[kept.success], kept.distance[kept.success], atol=1e-5)
    same = attack.threat.identity(x)
    moved = (kept.theta != same).flatten(1).any(dim=1)
    assert torch.equal(moved, kept.success & (kept.distance > 0))
    return moved


@pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.name)
def test_gradient_search(threat, model, x):
    moved = _holds(PGD(threat=threat, steps=4, restarts=2), model, x, micro_batch=7)
    assert 0 < int(moved.sum()) < len(x)


def test_candidates_smallest_moves_and_random_views(model, x):
    assert _holds(RandomSearch(threat=assay.Rotation(60), draws=8), model, x).any()
    assert _holds(Square(threat=assay.Linf(0.05), queries=20), model, x).any()
    assert _holds(PDPGD(threat=assay.Flow(), steps=5), model, x[:6]).any()
    eot = assay.EOT(assay.transformations.Noise(0.02), draws=3)
    y = model(x).argmax(dim=1)
    threat = assay.Translation(3.0)
    found = PGD(threat=threat, steps=4)(model, x, y, eot=eot, keep_moves=True)
    assert found.success.any()
    assert torch.allclose(threat.apply(x, found.theta), found.x_adv, atol=1e-6)
