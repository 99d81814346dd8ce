"""Searches for the smallest move on models in half precision: no overflow, no mixture of types, and small moves."""

from __future__ import annotations

import pytest
import torch

from assay import attacks
from assay.testing.case import THREATS, audit
from assay.testing.problems import Affine

QUICK = {
    "CarliniWagner": {"steps": 20, "search_steps": 4, "lr": 0.1, "initial_c": 1.0, "max_c": 20.0},
    "DDN": {"steps": 10, "targets": 1},
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
