"""Attacks that know: means over draws converge to the exact gradient, and what cannot be derived is stood in for."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

import assay
from assay.defenses import Averaged, BitDepth, InputDefense, InputNoise, RandomResizePad
from assay.errors import SettingError
from assay.goals import Untargeted
from assay.models import Defended
from assay.oracle import Oracle
from assay.rng import Keyed, drawing, given, stream
from assay.transformations import EOT

SIDE, LOWEST, FINAL = 4, 4, 6


def affine(side=FINAL, classes=2):
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(side * side, classes)).double().eval()


def images(n=3):
    return torch.rand(n, 1, SIDE, SIDE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def margin(output, goal):
    return output[:, 1] - output[:, 0]


def placements():
    """Every draw of the defense as a linear map of the image, and its probability."""
    for size in range(LOWEST, FINAL):
        room = FINAL - size + 1
        for top, left in itertools.product(range(room), repeat=2):
            chosen = torch.zeros(FINAL * FINAL, SIDE * SIDE, dtype=torch.float64)
            for i, j in itertools.product(range(size), repeat=2):
                chosen[(top + i) * FINAL + left + j, (i * SIDE // size) * SIDE + j * SIDE // size] = 1
            yield chosen, 1 / (FINAL - LOWEST) / room**2


def test_the_mean_gradient_converges_to_the_exact_one():
    network, x = affine(), images()
    model = Defended(network, RandomResizePad(LOWEST, FINAL))
    weight = (network[1].weight[1] - network[1].weight[0]).detach()
    each = [(chosen.T @ weight, share) for chosen, share in placements()]
    exact = sum(grad * share for grad, share in each)
    spread = sum((grad - exact).square().sum() * share for grad, share in each).sqrt()
    errors = []
    for draws in (1, 64, 2048):
        views = EOT(draws=draws, confirm=0)
        oracle = Oracle(model, x, Untargeted(torch.zeros(3, dtype=torch.int64)), assay.Linf(0.1), eot=views)
        _, grad, _ = oracle.gradient(torch.zeros_like(x), margin)
        errors.append((grad.flatten(1) - exact).norm(dim=1))
        assert bool((errors[-1] < 4 * spread / draws**0.5).all())
    assert bool((errors[2] < 0.3 * errors[0]).all())
    assert oracle.record.forwards.tolist() == [2048] * 3


def test_straight_through_is_the_gradient_of_the_bare_affine_model():
    network, x = affine(SIDE), images()
    model = Defended(network, BitDepth(bits=2))
    goal = Untargeted(torch.zeros(3, dtype=torch.int64))
    _, grad, output = Oracle(model, x, goal, assay.Linf(0.1)).gradient(torch.zeros_like(x), margin)
    weight = (network[1].weight[1] - network[1].weight[0]).detach()
    assert torch.allclose(grad.flatten(1), weight.expand(3, -1))
    assert torch.allclose(output, network((x * 3).round() / 3))  # and forwards it is the defense
    assert not torch.allclose(output, network(x))


def test_defenses_follow_each_other_forwards_and_back():
    network, x = affine(), images().requires_grad_()
    model = Defended(network, BitDepth(bits=2), RandomResizePad(LOWEST, FINAL))
    index = torch.tensor([5, 1, 9])
    with drawing(Keyed(8, index)):
        inner = Defended(network, RandomResizePad(LOWEST, FINAL))((x.detach() * 3).round() / 3)
    assert torch.equal(model(x, seed=8, index=index), inner)
    model(x, seed=8, index=index).sum().backward()
    assert bool((x.grad.flatten(1).abs().sum(dim=1) > 0).all())


def test_a_model_that_says_that_it_is_random_is_asked_for_keyed_draws():
    model, x = Defended(affine(SIDE), InputNoise(0.3)), images(6)
    y = model.model(x).argmax(dim=1)
    attack = assay.attacks.PGD(threat=assay.Linf(0.05), steps=3)
    index = torch.tensor([3, 1, 4, 15, 9, 2])
    whole = attack(model, x, y, index=index, seed=1)
    rows = torch.tensor([4, 0])
    part = attack(model, x[rows], y[rows], index=index[rows], seed=1)
    assert torch.equal(part.x_adv, whole.x_adv[rows])
    assert torch.equal(part.forwards, whole.forwards[rows])
    hidden = assay.models.LabelsOnly(model)  # the key reaches it through whatever wraps it
    square = assay.attacks.HopSkipJump(threat=assay.L2(), steps=1)
    one, other = (square(hidden, x[r], y[r], index=index[r], max_queries=60) for r in (slice(0, 6), slice(2, 4)))
    assert torch.equal(one.distance[2:4], other.distance)


def test_the_key_is_for_the_rows_that_are_asked():
    with drawing(Keyed(0, torch.arange(3))), pytest.raises(SettingError, match="3 inputs and 2"):
        stream(torch.zeros(2, 1))
    assert given(torch.zeros(2, 1)) is None
    with pytest.raises(SettingError, match="give both"):
        Defended(affine(SIDE), InputNoise(0.1))(images(), index=torch.arange(3))


def test_passes_and_draws_have_numbers_of_their_own():
    seen = []

    class Noted(InputDefense):
        stochastic = True

        def transform(self, x):
            seen.append(stream(x).uniform(1))
            return x

    model, x = Defended(affine(SIDE), Averaged(Noted(), passes=3)), images(2)
    oracle = Oracle(model, x, Untargeted(torch.zeros(2, dtype=torch.int64)), assay.Linf(0.1), eot=EOT(draws=4))
    oracle.scores(torch.zeros_like(x))
    oracle.scores(torch.zeros_like(x))
    numbers = torch.cat([each.flatten() for each in seen])
    assert len(numbers) == len(numbers.unique()) == 2 * 2 * 3 * 4
