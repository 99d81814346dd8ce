"""Optimizers of training: their steps by hand, and settings out of range."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay import grammar, registry
from assay.errors import SettingError
from assay.training.optimizers import SGD, Adam, AdamW, Optimizer

GRADIENTS = torch.tensor([[1.0, -2.0], [0.5, 0.0], [-1.0, 4.0]], dtype=torch.float64)
FIRST = torch.tensor([1.0, -3.0], dtype=torch.float64)


def stepped(part, rate=None):
    """The weights after three steps."""
    weight = nn.Parameter(FIRST.clone())
    optimizer = part.build([weight])
    for gradient in GRADIENTS:
        for group in optimizer.param_groups:
            group["lr"] = part.lr if rate is None else rate
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach()


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd(nesterov):
    w, v = FIRST.clone(), torch.zeros(2, dtype=torch.float64)
    for gradient in GRADIENTS:
        g = gradient + 0.1 * w
        v = 0.8 * v + g
        w = w - 0.05 * (g + 0.8 * v if nesterov else v)
    torch.testing.assert_close(stepped(SGD(lr=0.05, momentum=0.8, weight_decay=0.1, nesterov=nesterov)), w)


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("first", [0.8, 0])
def test_adam_and_adamw(apart, first):
    w, m, v = FIRST.clone(), 0.0, 0.0
    for t, gradient in enumerate(GRADIENTS, start=1):
        g = gradient if apart else gradient + 0.1 * w
        w = (1 - 0.05 * 0.1) * w if apart else w
        m, v = first * m + (1 - first) * g, 0.9 * v + 0.1 * g * g
        w = w - 0.05 * (m / (1 - first**t)) / ((v / (1 - 0.9**t)).sqrt() + 1e-8)
    part = (AdamW if apart else Adam)(lr=0.05, weight_decay=0.1, betas=(first, 0.9))
    torch.testing.assert_close(stepped(part), w)


@pytest.mark.parametrize("part", [SGD(), AdamW(), Adam()])
def test_a_rate_of_zero_moves_nothing_and_the_peak_moves_much(part):
    assert torch.equal(stepped(part, rate=0.0), FIRST)
    assert (stepped(part) - FIRST).abs().max() > part.lr / 2
    assert part.build([nn.Parameter(FIRST)]).param_groups[0]["lr"] == part.lr


def test_the_defaults():
    assert grammar.named("sgd", Optimizer) == SGD(lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=False)
    assert grammar.named("AdamW()", Optimizer) == AdamW(lr=2e-3, weight_decay=0.01, betas=(0.9, 0.999))
    assert grammar.named("Adam(lr=1)", Optimizer) == Adam(lr=1.0, weight_decay=0.0)


@pytest.mark.parametrize("name", registry.names("optimizer"))
def test_the_repr_builds_it_again(name):
    part = grammar.named(f"{name}(lr=0.25)", Optimizer)
    assert grammar.named(repr(part), Optimizer) == part


def test_every_optimizer_is_registered():
    assert {each.__name__ for each in Optimizer.__subclasses__()} == set(registry.names("optimizer"))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: SGD(lr=0.0), r"lr of SGD must be a number in \(0, inf\); got 0.0"),
        (lambda: SGD(lr=float("nan")), "lr of SGD"),
        (lambda: SGD(lr=float("inf")), "lr of SGD"),
        (lambda: SGD(momentum=1.0), r"momentum of SGD must be a number in \[0, 1\)"),
        (lambda: SGD(momentum=0.0, nesterov=True), "nesterov of SGD needs a momentum"),
        (lambda: AdamW(weight_decay=-1.0), "weight_decay of AdamW"),
        (lambda: AdamW(betas=(0.9, 1.0)), "betas of AdamW must be two numbers"),
        (lambda: Adam(betas=(0.9,)), "betas of Adam must be two numbers"),
        (lambda: Adam(betas=0.9), "betas of Adam must be two numbers"),
        (lambda: Adam(lr="1"), "lr of Adam"),
    ],
)
def test_settings_out_of_range(build, words):
    with pytest.raises(SettingError, match=words):
        build()
