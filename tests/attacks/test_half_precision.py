"""Searches for the smallest move on models in half precision: no overflow, no mixture of types, and small moves."""

from __future__ import annotations

import pytest
import torch

from assay import Flow, Recolor, attacks
from assay.testing.case import THREATS, audit
from assay.testing.problems import Affine

QUICK = {
    "CarliniWagner": {"steps": 20, "search_steps": 4, "lr": 0.1, "initial_c": 1.0, "max_c": 20.0},
    "DDN": {"steps": 10, "targets": 1},
    "DeepFool": {},
    "EAD": {"steps": 40, "search_steps": 4, "initial_c": 0.1},
    "FAB": {"steps": 20},
    "FMN": {"steps": 10, "targets": 1},
    "PDPGD": {"steps": 5, "restarts": 2},
    "JSMA": {},
    "SigmaZero": {"steps": 40},
}
NORMS = {
    "CarliniWagner": ("linf", "l2", "l0"),
    "DDN": ("l2",),
    "DeepFool": ("linf", "l2"),
    "EAD": ("l1",),
    "FAB": ("linf", "l2", "l1"),
    "JSMA": ("l0",),
    "SigmaZero": ("l0",),
}
PAIRS = [(name, norm) for name in QUICK for norm in NORMS.get(name, THREATS)]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_moves_are_nearly_as_small_as_they_can_be(name, norm, dtype):
    problem = Affine(classes=4)
    x, _ = problem.inputs(4)
    model, x = problem.model().to(dtype), x.to(dtype)
    y = model(x).argmax(1)
    result = getattr(attacks, name)(threat=THREATS[norm](), **QUICK[name])(model, x, y)
    audit(result, model, x, y, THREATS[norm]())
    exact = problem.distance(x.double(), y, norm)  # of the weights before they were rounded
    room = 1.0 if norm == "l0" else 0.2 * exact
    assert (result.distance >= exact - room).all()
    assert (result.distance <= exact + room).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "attack",
    [
        attacks.StAdv(threat=Flow(0.3), steps=15, searches=1),
        attacks.StAdv(threat=Flow(measure="roughness"), steps=15, searches=1),
        attacks.ReColorAdv(threat=Recolor(0.3), steps=15, lr=0.05, smoothness_weight=0.001),
    ],
    ids=["flow", "roughness", "colour"],
)
def test_moves_that_are_no_perturbations(attack, dtype):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 3, 6, 5, generator=generator).to(dtype)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(90, 3))
    model[1].weight.data.normal_(generator=generator)
    model = model.to(dtype)
    y = model(x).argmax(1)
    result = attack(model, x, y)
    assert result.x_adv.dtype == dtype
    assert result.success.any()
    assert torch.equal(model(result.x_adv).argmax(1) != y, result.success)
