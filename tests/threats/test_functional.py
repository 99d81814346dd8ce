"""Colour maps and tone curves: interpolation by another route, sets, gradients, and what the bound means."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from assay.attacks import PGD, AdamSearch, ReColorAdv
from assay.errors import ThreatError
from assay.rng import Keyed
from assay.threats.colour import SPACES
from assay.threats.functional import Recolor, ToneCurve

SMALL = (3, 4, 5)


def images(n=3, channels=3, dtype=torch.float64, seed=0, size=4):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(n, channels, size, size, generator=generator, dtype=dtype)
    x[0, :, 0, 0], x[0, :, 0, 1], x[0, :, 0, 2] = 0, 1, 0.5  # black, white, grey
    x[0, :, 1, 0] = torch.eye(channels)[0]  # a saturated colour
    return x


def threats(eps, bounds=(0.0, 1.0)):
    yield from (Recolor(eps, bounds=bounds, space=space, resolution=SMALL) for space in SPACES)
    yield ToneCurve(eps, bounds=bounds, points=6)


every_threat = pytest.mark.parametrize("threat", list(threats(0.06)), ids=lambda t: getattr(t, "space", t.name))


def by_loops(grid, colour):
    """Trilinear interpolation of one colour: every corner's weight is the volume of the opposite box."""
    counts = grid.shape[1:]
    place = [min(max(float(v), 0.0), 1.0) * (n - 1) for v, n in zip(colour, counts, strict=True)]
    base = [min(int(p), n - 2) for p, n in zip(place, counts, strict=True)]
    value = torch.zeros(grid.shape[0], dtype=grid.dtype)
    for corner in itertools.product((0, 1), repeat=len(counts)):
        weight = math.prod(p - b if up else 1 - (p - b) for p, b, up in zip(place, base, corner, strict=True))
        value += weight * grid[(slice(None), *(b + up for b, up in zip(base, corner, strict=True)))]
    return value


@pytest.mark.parametrize("space", SPACES)
def test_colours_move_by_trilinear_interpolation(space):
    x, threat = images(2), Recolor(0.02, space=space, resolution=SMALL)
    theta = threat.start(x, Keyed(0, torch.arange(2), dtype=torch.float64))
    moved = threat.apply(x, theta)
    for i, row, column in itertools.product(range(2), range(4), range(4)):
        pixel = x[i, :, row, column][None, :, None]
        colour = SPACES[space].of(pixel)
        d = by_loops(theta[i], colour.flatten())
        expected = SPACES[space].back(colour + d[None, :, None]).clamp(0, 1).flatten()
        assert torch.allclose(moved[i, :, row, column], expected, atol=1e-5)


def test_values_move_by_linear_interpolation():
    x, threat = images(2, channels=1), ToneCurve(0.1, points=6)
    theta = threat.start(x, Keyed(0, torch.arange(2), dtype=torch.float64))
    expected = [[(v + by_loops(theta[i], [v])).clamp(0, 1) for v in x[i].flatten().tolist()] for i in range(2)]
    assert torch.allclose(threat.apply(x, theta).flatten(1), torch.tensor(expected).double())


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_identity_changes_nothing(bounds, dtype):
    low, high = bounds
    x = low + (high - low) * images(dtype=dtype, size=16)
    for threat in threats(0.06, bounds):
        moved = threat.apply(x, threat.identity(x))
        assert float((moved - x).abs().max()) <= 1e-6 * (high - low)
        assert torch.equal(threat.size(x, threat.identity(x)), torch.zeros(len(x), dtype=dtype))


@every_threat
def test_projection_is_idempotent_inside_and_nearest(threat):
    x = images()
    theta = 0.1 * torch.randn(threat.identity(x).shape, generator=torch.Generator().manual_seed(2)).double()
    nearest = threat.project(x, theta)
    assert torch.equal(threat.project(x, nearest), nearest)
    assert bool((threat.size(x, nearest) <= 0.06).all())
    assert torch.equal(threat.project(x, threat.identity(x)), threat.identity(x))
    assert torch.equal(threat.project(x, theta / 100), theta / 100)
    for k in range(5):
        other = threat.start(x, Keyed(k, torch.arange(len(x)), dtype=torch.float64))
        assert bool((((theta - nearest) * (other - nearest)).flatten(1).sum(dim=1) <= 1e-9).all())
    assert torch.equal(threat.with_eps(None).project(x, theta), theta)


@every_threat
def test_gradients_are_those_of_differences(threat):
    x = 0.1 + 0.8 * torch.rand(1, 3, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    theta = threat.start(x, Keyed(0, torch.arange(1), dtype=torch.float64)) / 10
    assert torch.autograd.gradcheck(lambda t: threat.apply(x, t), (theta.requires_grad_(),))
    assert torch.autograd.gradcheck(lambda t: threat.roughness(x, t), (theta,), atol=1e-4)
    assert torch.autograd.gradcheck(lambda v: threat.apply(v, theta.detach()), (x.requires_grad_(),), atol=1e-4)


@every_threat
def test_no_gradient_vanishes_at_the_bounds(threat):
    x = torch.tensor([0.0, 1.0, 0.5]).double().reshape(3, 1, 1, 1).expand(3, 3, 1, 1)
    theta = threat.identity(x).requires_grad_()
    (grad,) = torch.autograd.grad(threat.apply(x, theta).sum(), theta)
    assert bool(grad.isfinite().all())
    assert bool((grad != 0).flatten(1).any(dim=1).all())


@every_threat
def test_starts_fill_the_set_and_belong_to_samples(threat):
    x = images(4)
    theta = threat.start(x, Keyed(0, torch.arange(4), dtype=torch.float64))
    assert bool((threat.size(x, theta) > 0.05).all())
    assert bool((threat.size(x, theta) <= 0.06).all())
    alone = threat.start(x[2:3], Keyed(0, torch.tensor([2]), dtype=torch.float64))
    assert torch.equal(alone[0], theta[2])
    moved = threat.apply(x, theta)
    assert float(moved.min()) >= 0
    assert float(moved.max()) <= 1
    assert torch.allclose(threat.apply(x[1:2], theta[1:2])[0], moved[1], atol=1e-12)


def test_the_bound_limits_the_change_of_every_colour():
    x, threat = images(6, size=8), Recolor(0.03, space="rgb", resolution=SMALL)
    theta = threat.project(x, torch.randn(6, 3, *SMALL, generator=torch.Generator().manual_seed(4)).double())
    assert 0.029 < float((threat.apply(x, theta) - x).abs().max()) <= 0.03 + 1e-12


def test_channels_have_their_shares_of_the_budget():
    x = images()
    threat = Recolor(0.06, channels=(0, 0.5, 1), resolution=SMALL)
    theta = threat.ascend(x, threat.identity(x), torch.ones(3, 3, *SMALL).double(), torch.full((3,), 1.0).double())
    nearest = threat.project(x, theta)
    assert nearest[:, :, 0, 0, 0].tolist() == [[0.0, 0.03, 0.06]] * 3
    assert threat.size(x, nearest).tolist() == pytest.approx([0.06] * 3)
    assert bool(threat.size(x, torch.full_like(theta, 0.01)).isinf().all())


def test_roughness_counts_each_pair_of_neighbours_twice():
    threat = Recolor(1.0, space="rgb", resolution=(2, 2, 2))
    x, theta = images(2), torch.zeros(2, 3, 2, 2, 2).double()
    theta[1, :, 0, 0, 0] = torch.tensor([0.3, 0.0, 0.4])  # one corner, three neighbours at a distance of 0.5
    assert threat.roughness(x, theta).tolist() == pytest.approx([0.0, 2 * 3 * 0.5], abs=1e-3)
    curve = torch.tensor([[[0.0, 0.1, 0.1, -0.1]]]).double()
    assert ToneCurve(1.0, points=4).roughness(x[:1], curve).tolist() == pytest.approx([2 * 0.3], abs=1e-3)


def test_budgets_per_sample():
    x = images()
    for threat in threats(torch.tensor([0.0, 0.02, 0.06])):
        theta = threat.project(x, torch.ones_like(threat.identity(x)))
        assert threat.size(x, theta).tolist() == pytest.approx([0.0, 0.02, 0.06])
        part = threat.at(torch.tensor([2]))
        assert torch.equal(part.project(x[2:], torch.ones_like(theta[2:])), theta[2:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    x = images(dtype=dtype, size=8)
    for threat in threats(0.06):
        moved = threat.apply(x, threat.start(x, Keyed(0, torch.arange(3))))
        assert moved.dtype == dtype
        assert bool(moved.isfinite().all())


def test_grey_images_and_other_shapes_are_told_of_the_tone_curve():
    with pytest.raises(ThreatError, match="ToneCurve"):
        Recolor(0.1).identity(torch.rand(2, 1, 4, 4))
    x = torch.rand(2, 7)
    assert ToneCurve(0.1).apply(x, ToneCurve(0.1).start(x, Keyed(0, torch.arange(2)))).shape == x.shape


def test_bad_settings_are_refused_with_the_cure():
    for wrong, words in (
        ({"space": "cmyk"}, "luv, rgb"),
        ({"resolution": (16, 1, 16)}, "2 or more"),
        ({"resolution": 16}, "three whole numbers"),
        ({"channels": (0, 0, 0)}, "not all 0"),
        ({"channels": (1, 2, 1)}, "between 0 and 1"),
    ):
        with pytest.raises(ThreatError, match=words):
            Recolor(0.06, **wrong)
    with pytest.raises(ThreatError, match="2 or more"):
        ToneCurve(0.1, points=1)


class Redness(torch.nn.Module):
    """Class 1 when red outweighs blue on average, by a margin of `gap`."""

    def __init__(self, gap):
        super().__init__()
        self.gap = gap

    def forward(self, x):
        mean = x.mean(dim=(2, 3))
        return torch.stack([mean.new_zeros(len(x)), 10 * (mean[:, 0] - mean[:, 2] - self.gap)], dim=1)


@pytest.mark.parametrize(
    "make",
    [lambda t: PGD(threat=t, steps=10), lambda t: AdamSearch(threat=t, steps=20), lambda t: ReColorAdv(threat=t)],
)
def test_searches_find_what_the_bound_allows_and_no_more(make):
    x, y = 0.2 + 0.6 * images(4, dtype=torch.float32, seed=5), torch.zeros(4, dtype=torch.int64)
    x[:, 2] = x[:, 0].flip(1)  # other blue than red at most pixels, but as much of it
    for share, wins in ((0.9, True), (1.05, False)):  # red up and blue down by eps each moves the difference by 2 eps
        model = Redness(share * 2 * 0.05)
        result = make(Recolor(0.05, space="rgb", resolution=SMALL))(model, x, y)
        assert result.success.tolist() == [wins] * 4


def test_a_brighter_image_is_found_by_a_tone_curve():
    class Brightness(torch.nn.Module):
        def forward(self, x):
            mean = x.flatten(1).mean(dim=1)
            return torch.stack([mean * 0, 10 * (mean - 0.56)], dim=1)

    x, y = torch.full((2, 1, 4, 4), 0.5), torch.zeros(2, dtype=torch.int64)
    assert PGD(threat=ToneCurve(0.07), steps=10)(Brightness(), x, y).success.all()
    assert not PGD(threat=ToneCurve(0.05), steps=10)(Brightness(), x, y).success.any()
