"""Gradients for transfer, against a few lines of their papers' formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, interpolate, pad

import assay
from assay.attacks import DIFGSM, MIFGSM, NIFGSM, PGD, SINIFGSM, TIFGSM, VMIFGSM
from assay.attacks.diverse import draw, resized_and_padded
from assay.attacks.transferable import smoothed
from assay.errors import SettingError, ThreatError
from assay.rng import Keyed
from assay.testing.models import curved
from assay.testing.problems import Constant

EPS, STEPS = 0.1, 4
THREAT = assay.Linf(EPS)
MODEL = curved(3 * 6 * 5, 4, (0.0, 1.0))
X = torch.rand(5, 3, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.4 + 0.3
Y = MODEL(X).argmax(1)
ALL = {"nesterov": True, "diverse": 0.7, "scales": 2, "neighbours": 3, "kernel_radius": 1, "momentum": 0.8}


def slope(x, y=Y):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(cross_entropy(MODEL(x), y, reduction="sum"), x)[0]


def unit(grad):
    return grad / grad.abs().sum(dim=(1, 2, 3), keepdim=True)


def climb(gradient, momentum=1.0):
    """Steps of eps / steps along the signs of a running sum; `gradient(x, sum)` is the paper's."""
    x, total = X.clone(), torch.zeros_like(X)
    for _ in range(STEPS):
        total = momentum * total + unit(gradient(x, total))
        x = x + EPS / STEPS * total.sign()
    return x


def found(make, **settings):
    return make(threat=THREAT, steps=STEPS, **settings).perturb(MODEL, X, Y)


def test_momentum():
    assert torch.allclose(found(MIFGSM), climb(lambda x, _: slope(x)))


def test_nesterov_looks_ahead():
    def gradient(x, total):
        length = total.abs().sum(dim=(1, 2, 3), keepdim=True)
        return slope(x + EPS / STEPS * length * total.sign())

    assert torch.allclose(found(NIFGSM), climb(gradient))
    assert not torch.allclose(found(NIFGSM), found(MIFGSM))


def test_scales_are_averaged():
    def gradient(x, total):
        ahead = x + EPS / STEPS * total.abs().sum(dim=(1, 2, 3), keepdim=True) * total.sign()
        return sum(slope(ahead / 2**i) / 2**i for i in range(3)) / 3

    assert torch.allclose(found(SINIFGSM, scales=3), climb(gradient))


def test_gradients_are_smoothed():
    line = np.exp(-(np.linspace(-3, 3, 5) ** 2) / 2)
    kernel = torch.tensor(np.outer(line, line) / np.outer(line, line).sum())

    def smooth(grad):
        wide, out = pad(grad, (2, 2, 2, 2)), torch.zeros_like(grad)
        for i in range(5):
            for j in range(5):
                out += kernel[i, j] * wide[:, :, i : i + 6, j : j + 5]
        return out

    assert torch.allclose(found(TIFGSM, kernel_radius=2), climb(lambda x, _: smooth(slope(x))))


def test_variance_is_tuned():
    rng, variance = Keyed(0, torch.arange(5), dtype=torch.float64), torch.zeros_like(X)

    def gradient(x, _):
        nonlocal variance
        own = slope(x)
        near = [slope((x + rng.uniform(3, 6, 5, low=-2 * EPS, high=2 * EPS)).clamp(0, 1)) for _ in range(6)]
        tuned, variance = own + variance, sum(near) / 6 - own
        return tuned

    expected = climb(gradient)
    moved = found(VMIFGSM, neighbours=6, reach=2.0)
    assert ((moved - expected).abs() < 1e-9).double().mean() > 0.98  # neighbours beyond the bounds are clipped twice
    assert not torch.allclose(moved, found(MIFGSM))


def test_diverse_inputs_are_resized_and_padded():
    x = torch.rand(200, 2, 20, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = draw(Keyed(0, torch.arange(200), dtype=torch.float64), x)
    seen = resized_and_padded(x, drawn, 0.5, -1.0)
    kept, sizes = 0, set()
    for one, old, (changed, size, down, right) in zip(seen, x, drawn.tolist(), strict=True):
        if changed >= 0.5:
            kept += 1
            assert torch.equal(one, old)
            continue
        height, width = 18 + int(size * 3), 27 + int(size * 4)
        sizes.add((height, width))
        top, left = int(down * (20 - height + 1)), int(right * (30 - width + 1))
        small = interpolate(old[None], (height, width), mode="bilinear", align_corners=False)
        framed = pad(small, (left, 30 - width - left, top, 20 - height - top), value=-1.0)
        assert torch.allclose(one, framed[0])
    assert 70 < kept < 130
    assert {height for height, _ in sizes} == {18, 19, 20}


def test_diverse_inputs_lead_the_search():
    one = draw(Keyed(0, torch.arange(5), dtype=torch.float64), X)

    def through(x):
        x = x.detach().requires_grad_()
        seen = resized_and_padded(x, one, 1.0, 0.0)
        return torch.autograd.grad(cross_entropy(MODEL(seen), Y, reduction="sum"), x)[0]

    moved = DIFGSM(threat=THREAT, steps=1, diverse=1.0).perturb(MODEL, X, Y)
    assert torch.allclose(moved, X + EPS * through(X).sign())
    assert torch.equal(found(DIFGSM, diverse=0.0), found(MIFGSM))


def test_what_views_answer_judges_nothing():
    """A model that is fooled by padding alone is not attacked by it."""

    class Framed(torch.nn.Module):
        def forward(self, x):
            fooled = (x[:, 0, 0] == 0).all(1) | (x[:, 0, -1] == 0).all(1)
            return torch.stack([torch.zeros(len(x)).to(x), fooled.to(x) * 2 - 1 + 0 * x.sum((1, 2, 3))], 1)

    def bright(x):  # a darker copy is of the other class
        return torch.stack([x.amax((1, 2, 3)) - 0.3, 0 * x.sum((1, 2, 3))], 1)

    x, y = torch.full((8, 1, 20, 20), 0.5), torch.zeros(8, dtype=torch.int64)
    for model, attack in ((Framed(), DIFGSM(threat=THREAT, diverse=1.0)), (bright, SINIFGSM(threat=THREAT))):
        result = attack(model, x, y)
        assert not result.success.any()
        assert result.backwards.eq(10 * attack.scales).all()


@pytest.mark.parametrize(
    ("settings", "forwards", "backwards"),
    [
        ({}, 4, 4),
        ({"kernel_radius": 1}, 4, 4),
        ({"nesterov": True}, 8, 4),
        ({"diverse": 0.5}, 8, 4),
        ({"scales": 3}, 12, 12),
        ({"neighbours": 2}, 12, 12),
        (ALL, 36, 32),
    ],
)
def test_passes_are_counted(settings, forwards, backwards):
    model, (x, y) = Constant(classes=4).model(), Constant(classes=4).inputs(3)
    result = PGD(threat=THREAT, steps=4, look_ahead=False, **settings)(model, x, y)
    assert result.forwards.eq(forwards + 2).all()  # the clean input and the last move
    assert result.backwards.eq(backwards).all()


@pytest.mark.parametrize("threat", [assay.Linf(0.05), assay.L2(0.3), assay.L1(1.5), assay.L0(6), assay.Flow(0.2)])
def test_all_together_do_not_depend_on_batches(threat):
    attack = PGD(threat=threat, steps=4, restarts=2, **ALL)
    whole = attack(MODEL, X, Y, seed=3)
    for rows in torch.arange(5).split(2):
        part = attack(MODEL, X[rows], Y[rows], seed=3, index=rows)
        assert torch.allclose(part.x_adv, whole.x_adv[rows])
        assert torch.equal(part.forwards, whole.forwards[rows])
    moved = attack.perturb(MODEL, X, Y, seed=3)
    assert torch.allclose(attack.perturb(MODEL, X[3:], Y[3:], seed=3, index=torch.tensor([3, 4])), moved[3:])
    assert not torch.allclose(attack.perturb(MODEL, X, Y, seed=4), moved)


def test_views_go_through_random_views():
    eot = assay.EOT(assay.transformations.Noise(0.01), draws=3)
    result = PGD(threat=THREAT, steps=4, **ALL)(MODEL, X, Y, eot=eot)
    assert result.forwards.gt(3).all()
    assert result.success.any()


def test_bounds_of_another_scale_change_nothing():
    attack = PGD(threat=THREAT, steps=4, **ALL)
    wide = PGD(threat=assay.Linf(EPS * 4, bounds=(-1.0, 3.0)), steps=4, **ALL)
    moved = wide.perturb(lambda v: MODEL((v + 1) / 4), X * 4 - 1, Y)
    same = ((moved + 1) / 4 - attack.perturb(MODEL, X, Y)).abs() < 1e-9
    assert same.double().mean() > 0.99


def test_signals_are_lines():
    line = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]])
    assert torch.equal(smoothed(line, 1), smoothed(line[None], 1)[0])
    assert smoothed(line, 1).sum() == pytest.approx(1)
    assert resized_and_padded(torch.ones(2, 30), torch.full((2, 4), 0.1), 1.0, 0.0).sum(1).tolist() == [27.0, 27.0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"diverse": 1.5}, "probability"),
        ({"scales": 0}, "scales must be at least 1"),
        ({"neighbours": -1}, "neighbours must be at least 0"),
        ({"kernel_radius": -1}, "kernel_radius must be at least 0"),
        ({"reach": 0.0}, "reach must be positive"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        PGD(threat=THREAT, **settings)


def test_moves_that_are_no_images_are_not_smoothed():
    with pytest.raises(ThreatError, match="moves of Rotation"):
        TIFGSM(threat=assay.Rotation(20))
    with pytest.raises(ThreatError, match="images"):
        DIFGSM(threat=THREAT).perturb(lambda v: v.flatten(1)[:, :3], torch.rand(2, 2, 2, 2, 2), torch.tensor([0, 0]))
