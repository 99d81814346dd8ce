"""Gradients that are carried on: each sample's own sum, and what it is for, sparse moves."""

from __future__ import annotations

import torch

import assay
from assay.attacks import PGD
from assay.attacks.memory import carried


def test_the_sum_is_of_normalised_gradients_of_each_sample():
    generator = torch.Generator().manual_seed(0)
    before, grad = torch.randn(2, 3, 2, 4, generator=generator).unbind(0)
    grad[1] = 0
    after = carried(before, grad, 0.5)
    torch.testing.assert_close((after - 0.5 * before).abs().flatten(1).sum(1), torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(after, carried(before, 1e6 * grad, 0.5))
    assert torch.equal(after[2:], carried(before[2:], grad[2:], 0.5))
    assert torch.equal(carried(before, grad, 0.0), grad)


def test_pgd_takes_the_threats_own_memory():
    model, data = assay.load_model("digits-mlp"), assay.load_data("digits", limit=40)

    def moved(threat, momentum):
        return PGD(threat=threat, steps=10, momentum=momentum).perturb(model, data.x, data.y)

    for threat, own, other in ((assay.L0(5), 0.9, 0.0), (assay.Linf(0.05), 0.0, 0.9)):
        assert threat.memory == own
        assert torch.equal(moved(threat, None), moved(threat, own))
        assert not torch.equal(moved(threat, None), moved(threat, other))


def test_with_memory_sparse_moves_break_more():
    model, data = assay.load_model("fashion-cnn"), assay.load_data("fashion-mnist", limit=60)
    won = [int(PGD(threat=assay.L0(5), steps=20, momentum=m)(model, data.x, data.y).success.sum()) for m in (0.0, None)]
    assert won[1] >= won[0] + 4
