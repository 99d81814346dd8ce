"""Flow, Rotation and Translation: known images, exact projections, true gradients, honest sizes."""

from __future__ import annotations

import math

import pytest
import torch

from assay import grammar
from assay.errors import ThreatError
from assay.rng import Keyed
from assay.threats import Flow, Rotation, Translation

BOUNDS = [(0.0, 1.0), (-2.0, 3.0), (0.0, 255.0)]
EPS = {Flow: 0.3, Rotation: 25.0, Translation: 1.7}
THREATS = list(EPS)


def images(n=3, c=2, height=6, width=5, bounds=(0.0, 1.0), dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    low, high = bounds
    return torch.rand(n, c, height, width, generator=generator, dtype=dtype) * (high - low) + low


def moves(threat, x, seed=1, far=2.0):
    """Moves up to `far` times eps."""
    generator = torch.Generator().manual_seed(seed)
    like = threat.identity(x)
    return (torch.rand(like.shape, generator=generator, dtype=x.dtype) * 2 - 1) * EPS[type(threat)] * far


def keyed(x, seed=0):
    return Keyed(seed, torch.arange(len(x)), dtype=x.dtype if x.dtype == torch.float64 else torch.float32)


# ---------------------------------------------------------------------------- what all three keep


@pytest.mark.parametrize("kind", THREATS)
@pytest.mark.parametrize("bounds", BOUNDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_identity_changes_nothing_and_is_allowed(kind, bounds, dtype):
    x = images(bounds=bounds, dtype=dtype)
    for threat in (kind(EPS[kind], bounds=bounds), kind(bounds=bounds), kind(0.0, bounds=bounds)):
        theta = threat.identity(x)
        assert torch.equal(threat.apply(x, theta), x)
        assert torch.equal(threat.project(x, theta), theta)
        assert not threat.size(x, theta).any()
        assert not threat.roughness(x, theta).any()


@pytest.mark.parametrize("kind", THREATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_projections_are_inside_idempotent_and_leave_allowed_moves_alone(kind, dtype):
    x = images(dtype=dtype)
    threat = kind(EPS[kind])
    theta = moves(threat, x)
    inside = threat.project(x, theta)
    assert (threat.size(x, inside) <= threat.limit(x)).all()
    assert not torch.equal(inside, theta)
    assert torch.equal(threat.project(x, inside), inside)
    start = threat.start(x, keyed(x))
    assert (threat.size(x, start) <= threat.limit(x)).all()
    assert torch.equal(threat.project(x, start), start)
    assert not kind(0.0).project(x, theta).any()


@pytest.mark.parametrize("kind", THREATS)
def test_gradients_are_those_of_finite_differences(kind):
    x = images(n=2, height=4, width=4)
    threat = kind(EPS[kind])
    theta = threat.start(x, keyed(x)).mul(0.9)
    if kind is Flow:  # away from the image's edge, where the slope is that of the inside alone
        theta = theta - 0.05 * torch.stack(torch.meshgrid(*2 * [torch.linspace(-1, 1, 4)], indexing="xy"))
    theta.requires_grad_()
    assert torch.autograd.gradcheck(lambda t: threat.apply(x, t), theta, eps=1e-7)
    assert threat.apply(x, theta).requires_grad


@pytest.mark.parametrize("kind", THREATS)
def test_starts_fill_the_set(kind):
    x = images(n=200)
    start = kind(EPS[kind]).start(x, keyed(x)) / EPS[kind]
    assert start.flatten().abs().max() > 0.95
    assert abs(float(start.mean())) < 0.1
    other = kind(EPS[kind]).start(x, keyed(x, seed=1)) / EPS[kind]
    assert not torch.equal(start, other)
    part = kind(EPS[kind]).start(x[7:9], Keyed(0, torch.tensor([7, 8]), dtype=x.dtype))
    assert torch.equal(part / EPS[kind], start[7:9])


@pytest.mark.parametrize("kind", THREATS)
def test_a_budget_for_each_sample(kind):
    x = images(n=4)
    eps = torch.tensor([0.0, 0.1, 0.5, 1.0], dtype=x.dtype) * EPS[kind]
    threat = kind(eps)
    theta = moves(kind(EPS[kind]), x)
    inside = threat.project(x, theta)
    for i in range(4):
        alone = kind(float(eps[i])).project(x[i : i + 1], theta[i : i + 1])
        torch.testing.assert_close(inside[i : i + 1], alone, rtol=0, atol=0)
    assert (threat.size(x, inside) <= threat.limit(x)).all()
    assert threat.at(torch.tensor([2, 0])).eps.tolist() == eps[[2, 0]].tolist()
    assert (threat.size(x, threat.start(x, keyed(x))) <= eps).all()


@pytest.mark.parametrize("kind", THREATS)
@pytest.mark.parametrize("bounds", BOUNDS)
def test_moved_images_stay_inside_the_bounds(kind, bounds):
    x = images(bounds=bounds, dtype=torch.float32)
    x[0], x[1] = bounds
    threat = kind(EPS[kind], bounds=bounds)
    moved = threat.apply(x, moves(threat, x))
    assert moved.shape == x.shape
    assert moved.dtype == x.dtype
    assert moved.min() >= bounds[0]
    assert moved.max() <= bounds[1]


@pytest.mark.parametrize("kind", THREATS)
def test_a_sample_does_not_depend_on_its_batch(kind):
    x = images(n=5, dtype=torch.float32)
    threat = kind(EPS[kind])
    theta = moves(threat, x)
    theta[2] = 0
    whole = threat.apply(x, theta)
    for i in range(5):
        one = slice(i, i + 1)
        assert torch.equal(threat.apply(x[one], theta[one]), whole[one])
        assert torch.equal(threat.roughness(x[one], theta[one]), threat.roughness(x, theta)[one])


@pytest.mark.parametrize("kind", THREATS)
def test_ascent_steps_along_every_axis(kind):
    x = images()
    threat = kind(EPS[kind])
    theta = moves(threat, x)
    grad = moves(threat, x, seed=2)
    step = torch.tensor([0.1, 0.2, 0.3], dtype=x.dtype)
    ahead = threat.ascend(x, theta, grad, step)
    torch.testing.assert_close((ahead - theta).flatten(1).abs().amax(1), step)
    assert ((ahead - theta) * grad > 0).all()
    assert torch.equal(threat.ascend(x, theta, torch.zeros_like(grad), step), theta)


@pytest.mark.parametrize("kind", THREATS)
def test_half_precision_is_sampled_in_single(kind):
    x = images(n=1, height=30, width=30).half()
    threat = kind(EPS[kind])
    theta = moves(kind(EPS[kind]), x.double()).half()
    wide = threat.apply(x.float(), theta.float())
    assert threat.apply(x, theta).dtype == torch.float16
    torch.testing.assert_close(threat.apply(x, theta).float(), wide, rtol=0, atol=1e-3)


@pytest.mark.parametrize("kind", THREATS)
def test_inputs_that_are_no_images_are_refused(kind):
    for shape in ((2, 5), (2, 3, 5), (2, 1, 3, 4, 5)):
        x = torch.zeros(shape)
        with pytest.raises(ThreatError, match=f"{kind.__name__} moves the pixels of images"):
            kind(1.0).identity(x)
        with pytest.raises(ThreatError, match="images"):
            kind(1.0).apply(x, torch.zeros(2, 1))


@pytest.mark.parametrize(
    "text", ["Flow(0.05)", "Flow(measure='roughness')", "Rotation(30.0, padding='border')", "Translation(3.0)"]
)
def test_the_notation_reads_what_it_writes(text):
    assert repr(grammar.threat(text)) == text
    assert grammar.threat(text) == grammar.threat(text)
    assert grammar.threat("rotation:30") == Rotation(30)


# ---------------------------------------------------------------------------- Flow


def constant(x, right, down):
    """A flow of so many pixels everywhere."""
    height, width = x.shape[2:]
    field = torch.tensor([2 * right / (width - 1), 2 * down / (height - 1)], dtype=x.dtype)
    return field[None, :, None, None].expand(len(x), 2, height, width).clone()


@pytest.mark.parametrize(("right", "down"), [(1, 0), (-2, 0), (0, 3), (2, -1)])
def test_a_whole_flow_is_a_shifted_image(right, down):
    x = images(height=7, width=9)
    moved = Flow().apply(x, constant(x, right, down))
    rows = (torch.arange(7) + down).clamp(0, 6)
    columns = (torch.arange(9) + right).clamp(0, 8)
    torch.testing.assert_close(moved, x[:, :, rows][:, :, :, columns])


def test_eps_is_a_share_of_half_the_side():
    x = torch.linspace(0, 1, 32, dtype=torch.float64).expand(1, 1, 8, 32).clone()
    moved = Flow(0.05).apply(x, torch.full((1, 2, 8, 32), 0.05, dtype=torch.float64))
    torch.testing.assert_close(31 * (moved - x)[..., 3:-3], torch.full((1, 1, 8, 26), 0.775, dtype=torch.float64))
    assert Flow(0.05).size(x, constant(x, 0.775, 0)).item() == pytest.approx(0.05)


def roughness(flow):
    """The sum over pixels and their four neighbours, by loops, of a flow in pixels `(2, h, w)`."""
    _, height, width = flow.shape
    total = 0.0
    for i in range(height):
        for j in range(width):
            for m, n in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                if 0 <= m < height and 0 <= n < width:
                    total += math.hypot(*(flow[:, i, j] - flow[:, m, n]).tolist())
    return total


def test_roughness_is_the_sum_over_neighbours():
    x = images(n=4, height=5, width=7)
    theta = moves(Flow(0.3), x)
    theta[3] = constant(x, 1.5, -0.5)[3]
    in_pixels = theta * torch.tensor([3.0, 2.0], dtype=x.dtype)[:, None, None]
    expected = torch.tensor([roughness(flow) for flow in in_pixels], dtype=x.dtype)
    found = Flow(0.3).roughness(x, theta)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-9)
    assert found[3] == 0
    assert (found <= expected + 1e-9).all()


def test_roughness_has_a_gradient_everywhere():
    x = images(n=2)
    theta = moves(Flow(0.3), x).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: Flow(0.3).roughness(x, t), theta)
    even = torch.zeros_like(theta).requires_grad_()
    (slope,) = torch.autograd.grad(Flow(0.3).roughness(x, even).sum(), even)
    assert not slope.any()


def test_projection_brings_places_back_into_the_image_and_changes_no_image():
    x = images(height=5, width=5)
    theta = moves(Flow(0.3), x, far=5.0)
    inside = Flow().project(x, theta)
    right, down = (inside * 2).unbind(1)
    column, row = torch.arange(5) + right, torch.arange(5)[:, None] + down
    for place in (row, column):
        assert place.min() >= 0
        assert place.max() <= 4
    assert not torch.equal(inside, theta)
    torch.testing.assert_close(Flow().apply(x, inside), Flow().apply(x, theta))


def test_pixels_at_the_edge_have_gradients_where_they_leave_the_image():
    x = images(n=1)
    theta = Flow(0.5).project(x, torch.full((1, 2, 6, 5), 0.5, dtype=x.dtype)).requires_grad_()
    Flow(0.5).apply(x, theta).square().sum().backward()
    assert (theta.grad != 0).all()


def test_the_smoothest_flow_may_be_asked_for():
    x = images()
    theta = moves(Flow(0.3), x)
    threat = Flow(measure="roughness")
    assert torch.equal(threat.size(x, theta), threat.roughness(x, theta))
    with pytest.raises(ThreatError, match="no eps on roughness"):
        Flow(0.1, measure="roughness")
    with pytest.raises(ThreatError, match="no eps on roughness"):
        threat.with_eps(0.1)
    with pytest.raises(ThreatError, match="measure must be"):
        Flow(measure="tv")


# ---------------------------------------------------------------------------- Rotation


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quarter_turns_are_those_of_rot90(padding, quarters, dtype):
    for side in (5, 6):
        x = images(height=side, width=side, dtype=dtype)
        moved = Rotation(padding=padding).apply(x, torch.full((len(x), 1), 90.0 * quarters, dtype=dtype))
        torch.testing.assert_close(moved, torch.rot90(x, quarters, (2, 3)), rtol=0, atol=1e-5)


def test_a_rotation_and_back_is_near_the_image():
    x = torch.linspace(0, 1, 21, dtype=torch.float64)
    x = (x[:, None] + x * 0.5)[None, None] / 2  # a plane, which bilinear sampling keeps
    turned = Rotation().apply(x, torch.tensor([[20.0]], dtype=x.dtype))
    back = Rotation().apply(turned, torch.tensor([[-20.0]], dtype=x.dtype))
    middle = (slice(None), slice(None), slice(6, 15), slice(6, 15))
    torch.testing.assert_close(back[middle], x[middle])
    assert (turned - x)[middle].abs().max() > 0.05


def test_what_comes_in_from_outside_is_a_setting():
    x = torch.ones(1, 1, 8, 8)
    angle = torch.tensor([[45.0]])
    assert Rotation(padding="zeros").apply(x, angle)[0, 0, 0, 0] == 0
    for padding in ("border", "reflection"):
        assert torch.equal(Rotation(padding=padding).apply(x, angle), x)
    for kind in (Rotation, Translation):
        with pytest.raises(ThreatError, match="padding must be one of"):
            kind(1, padding="wrap")


# ---------------------------------------------------------------------------- Translation


@pytest.mark.parametrize(("down", "right"), [(1, 0), (0, -2), (2, 1), (-3, 2)])
def test_whole_translations_roll_the_image_in(down, right):
    x = images(height=7, width=8)
    moved = Translation().apply(x, torch.tensor([[down, right]], dtype=x.dtype).expand(3, 2))
    expected = torch.roll(x, (down, right), (2, 3))
    rows, columns = torch.arange(7) - down, torch.arange(8) - right
    known = ((rows >= 0) & (rows < 7))[:, None] & (columns >= 0) & (columns < 8)
    torch.testing.assert_close(moved, expected * known)


def test_half_a_pixel_is_the_mean_of_two():
    x = images()
    moved = Translation().apply(x, torch.tensor([[0.0, 0.5]], dtype=x.dtype).expand(3, 2))
    torch.testing.assert_close(moved[..., 1:], (x[..., 1:] + x[..., :-1]) / 2)
    torch.testing.assert_close(moved[..., 0], x[..., 0] / 2)
