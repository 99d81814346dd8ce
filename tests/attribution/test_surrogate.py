"""Softplus in the place of ReLU: wherever it is called, and nowhere afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assay.attribution import softplus
from assay.errors import ModelError, SettingError

BETA = 3.0
X = torch.linspace(-1, 1, 7, dtype=torch.float64)
CALLS = {
    "module": nn.ReLU(),
    "module in place": nn.ReLU(inplace=True),
    "function": F.relu,
    "function in place": lambda x: F.relu(x, inplace=True),
    "torch": torch.relu,
    "torch in place": torch.relu_,
    "method": lambda x: x.relu(),
    "method in place": lambda x: x.relu_(),
    "operator": torch.ops.aten.relu.default,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_is_redirected_and_restored(call):
    wanted = (1 + (BETA * X).exp()).log() / BETA
    with softplus(None, BETA):
        torch.testing.assert_close(call(X.clone()), wanted)
    assert torch.equal(call(X.clone()), X.clamp_min(0))


@pytest.mark.parametrize("name", [name for name in CALLS if "in place" in name])
def test_in_place_is_still_in_place_and_has_a_gradient(name):
    leaf = X.clone().requires_grad_()
    with softplus(None, BETA):
        middle = leaf * 1
        CALLS[name](middle)
        (grad,) = torch.autograd.grad(middle.sum(), leaf)
    torch.testing.assert_close(grad, torch.sigmoid(BETA * X))


def test_it_ends_with_an_error_too():
    with pytest.raises(ZeroDivisionError), softplus(None, BETA):
        _ = 1 / 0
    assert float(torch.relu(torch.tensor(-1.0))) == 0.0


def test_modules_stay_what_they_are():
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    before = list(model.modules())
    with softplus(model):
        assert list(model.modules()) == before
    assert isinstance(model[1], nn.ReLU)


def test_exported_graphs_are_redirected():
    class Model(nn.Module):
        def forward(self, x):
            return torch.relu(x) + 1

    exported = torch.export.export(Model(), (X,)).module()
    with softplus(exported, BETA):
        found = exported(X)
    torch.testing.assert_close(found, F.softplus(X, beta=BETA) + 1)


def test_second_derivatives_are_there_and_gradients_near():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 1)).double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)

    def curvature():
        (grad,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        if not grad.requires_grad:
            return grad, torch.zeros(())
        (second,) = torch.autograd.grad(grad.square().sum(), x, allow_unused=True)
        return grad, torch.zeros(()) if second is None else second.abs().max()

    sharp, none = curvature()
    with softplus(model, 5.0):
        _, some = curvature()
    with softplus(model, 1e6):
        near, _ = curvature()
    assert float(none) == 0 < float(some)
    torch.testing.assert_close(near, sharp, rtol=0, atol=1e-3)


def test_what_cannot_be_made_smooth_is_refused():
    for beta in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(SettingError, match="beta"), softplus(None, beta):
            pass
    with pytest.raises(ModelError, match="TorchScript"), softplus(torch.jit.ScriptModule()):
        pass
