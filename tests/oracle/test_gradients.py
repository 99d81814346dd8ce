"""Gradients that are NaN in part, NaN altogether, or too small for half precision."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import assay
from assay import losses
from assay.errors import ModelError
from assay.goals import Untargeted
from assay.oracle import Oracle


class Rooted(nn.Module):
    """Its gradient is NaN at pixels that are 0, though its output is sound."""

    def forward(self, x):
        root = torch.where(x > 0, x.sqrt(), torch.zeros_like(x))
        return torch.stack([root.sum(dim=1), 1 + 2 * x.sum(dim=1)], dim=1)


def test_nan_in_a_part_of_a_gradient_counts_as_zero():
    x = torch.tensor([[0.0, 0.6], [0.5, 0.5]])
    oracle = Oracle(Rooted(), x, Untargeted(torch.tensor([1, 1])), assay.Linf(0.2))
    _, grad, _ = oracle.gradient(torch.zeros_like(x), losses.margin)
    assert grad[0, 0] == 0
    assert torch.allclose(grad[0, 1], torch.tensor(0.5 / 0.6**0.5 - 2))
    for threat in (assay.Linf(0.2), assay.L2(0.4), assay.L1(0.6)):
        for attack in (assay.attacks.PGD(threat=threat), assay.attacks.MIFGSM(threat=threat)):
            assert bool(torch.isfinite(attack(Rooted(), x, torch.tensor([1, 1])).x_adv).all())


def test_gradients_of_nothing_but_nan_are_an_error():
    x = torch.zeros(2, 3)
    with pytest.raises(ModelError, match="gradient is NaN for all 2 samples"):
        assay.attacks.PGD(threat=assay.Linf(0.2), random_start=False)(Rooted(), x, torch.tensor([1, 1]))


def test_half_precision_keeps_small_gradients():
    class Confident(nn.Module):
        def forward(self, x):
            z = (x.flatten(1).half() * 0.01).sum(dim=1)
            return torch.stack([torch.full_like(z, 14.0), z], dim=1)

    x = torch.full((1, 4), 0.5)
    oracle = Oracle(Confident(), x, Untargeted(torch.tensor([0])), assay.Linf(0.1))
    value, grad, _ = oracle.gradient(torch.zeros_like(x))
    assert value.dtype == torch.float32
    expected = 0.01 * math.exp(-14 + 0.02)  # below what float16 can hold
    assert torch.allclose(grad, torch.full_like(grad, expected), rtol=0.02, atol=0)
