"""Combinations: parts in order, each measured on the input that it is given, and never weaker than one of them."""

from __future__ import annotations

import pytest
import torch

import assay
from assay import grammar
from assay.attacks import PGD, AdamSearch
from assay.errors import GrammarError, ThreatError
from assay.rng import Keyed
from assay.testing.problems import Affine
from assay.threats import L1, L2, Combined, Flow, Linf, Recolor, Rotation, ToneCurve

SMALL = (3, 4, 5)


def combinations(eps=1.0):
    yield Combined(Linf(0.1), L2(0.5), eps=eps)
    yield Combined(L2(0.5), Linf(0.1), L1(2.0), eps=eps)
    yield Combined(Recolor(0.06, resolution=SMALL), Flow(0.3), Linf(0.03), eps=eps)
    yield Combined(Rotation(10.0), ToneCurve(0.1, points=5), eps=eps)


every_one = pytest.mark.parametrize("threat", list(combinations()), ids=lambda t: "-".join(p.name for p in t.parts))


def images(n=3):
    x = torch.rand(n, 3, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x[0, :, 0, :3] = torch.tensor([0.0, 1.0, 0.5])
    return x


def keyed(n, seed=0):
    return Keyed(seed, torch.arange(n), dtype=torch.float64)


def split(threat, x, theta):
    sizes = [part.identity(x)[0].numel() for part in threat.parts]
    pieces = torch.split(theta, sizes, dim=1)
    return [p.reshape(part.identity(x).shape) for p, part in zip(pieces, threat.parts, strict=True)]


@every_one
def test_apply_is_that_of_the_parts_in_order(threat):
    x = images()
    theta = threat.start(x, keyed(3))
    moved = x
    for part, piece in zip(threat.parts, split(threat, x, theta), strict=True):
        moved = part.apply(moved, piece)
    assert torch.equal(threat.apply(x, theta), moved)
    assert float((moved - x).abs().max()) > 0.02


@every_one
def test_the_identity_changes_nothing(threat):
    x = images()
    theta = threat.identity(x)
    assert theta.ndim == 2
    assert float((threat.apply(x, theta) - x).abs().max()) < 1e-6
    assert torch.equal(threat.project(x, theta), theta)
    assert torch.equal(threat.size(x, theta), torch.zeros(3, dtype=torch.float64))
    assert torch.equal(threat.roughness(x, theta), torch.zeros(3, dtype=torch.float64))


@every_one
def test_projection_is_idempotent_and_each_part_is_inside_on_the_input_that_it_is_given(threat):
    x = images()
    theta = threat.project(x, threat.identity(x) + 5 * torch.randn(3, threat.identity(x).shape[1]).double())
    assert torch.allclose(threat.project(x, theta), theta, atol=1e-12)
    assert bool((threat.size(x, theta) <= threat.limit(x)).all())
    assert bool((threat.size(x, theta) > 0.99).all())
    moved = x
    for part, piece in zip(threat.parts, split(threat, x, theta), strict=True):
        assert bool((part.size(moved, piece) <= part.limit(moved)).all())
        if part.name in {"linf", "l2", "l1"}:  # the room is that of the moved input, so that nothing is clipped
            assert float((moved + piece).min()) >= -1e-12
            assert float((moved + piece).max()) <= 1 + 1e-12
        moved = part.apply(moved, piece)


@every_one
def test_starts_are_inside_and_belong_to_samples(threat):
    x = images()
    theta = threat.start(x, keyed(3))
    assert bool((threat.size(x, theta) <= threat.limit(x)).all())
    assert bool((threat.size(x, theta) > 0.2).all())
    alone = threat.start(x[1:2], Keyed(0, torch.tensor([1]), dtype=torch.float64))
    assert torch.allclose(alone[0], theta[1], atol=1e-12)


@every_one
def test_gradients_are_those_of_differences(threat):
    x = 0.2 + 0.6 * images(1)[:, :, :3, :3]
    theta = 0.3 * threat.start(x, keyed(1))
    for part, piece in zip(threat.parts, split(threat, x, theta), strict=True):
        if part.name == "flow":  # places off the edges, where slopes jump
            piece[:] = 0.02 - 0.1 * torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 3)] * 2, indexing="xy"))
    assert torch.autograd.gradcheck(lambda t: threat.apply(x, t), (theta.requires_grad_(),), atol=1e-4)


@every_one
def test_a_step_is_a_share_of_each_parts_budget(threat):
    x, theta = images(), threat.identity(images())
    grad = torch.randn(theta.shape, generator=torch.Generator().manual_seed(1)).double()
    moved = split(threat, x, threat.ascend(x, theta, grad, torch.full((3,), 0.5).double()))
    slopes = split(threat, x, grad)
    for part, piece, slope in zip(threat.parts, moved, slopes, strict=True):
        step = torch.full((3,), 0.5 * part.eps).double()
        assert torch.allclose(piece, part.ascend(x, part.identity(x), slope, step), atol=1e-12)
    assert torch.equal(threat.ascend(x, theta, torch.zeros_like(grad), torch.ones(3).double()), theta)


def test_zero_budgets_leave_the_other_part():
    problem = Affine(shape=(3, 4, 4), classes=3)
    x, y = problem.inputs(6)
    eps = 1.1 * float(problem.distance(x, y, "linf").median())
    model = problem.model()
    alone = PGD(threat=Linf(eps), steps=10, random_start=False)(model, x, y)
    for parts in ((Linf(eps), L2(0.0)), (L2(0.0), Linf(eps)), (Linf(eps), Recolor(0.0, resolution=SMALL))):
        both = PGD(threat=Combined(*parts), steps=10, random_start=False)(model, x, y)
        assert torch.equal(both.success, alone.success)
        assert torch.allclose(both.x_adv, alone.x_adv, atol=1e-6)
    none = PGD(threat=Combined(Linf(0.0), L2(0.0)), steps=3)(model, x, y)
    assert torch.equal(none.success, model(x).argmax(1) != y)
    assert 0 < int(alone.success.sum()) < 6


@pytest.mark.parametrize("make", [PGD, AdamSearch])
def test_two_balls_reach_exactly_as_far_as_both_together(make):
    problem = Affine(shape=(3, 4, 4), classes=2)
    x, y = problem.inputs(8, dtype=torch.float64)
    half = problem.distance(x, y, "linf") / 2
    model = problem.model(torch.float64)
    for share, wins in ((1.05, True), (0.95, False)):
        result = make(threat=Combined(Linf(share * half), Linf(share * half)), steps=20)(model, x, y)
        assert result.success.tolist() == [wins] * 8
        assert make(threat=Linf(share * half), steps=20)(model, x, y).success.sum() == 0


def test_without_eps_the_size_is_the_common_share():
    problem = Affine(shape=(3, 4, 4), classes=2)
    x, y = problem.inputs(4, dtype=torch.float64)
    half = problem.distance(x, y, "linf") / 2
    threat = Combined(Linf(half), Linf(half), eps=None)
    theta = torch.full((4, 96), 0.01).double()
    share = threat.size(x, threat.project(x, theta))
    assert bool((share <= 0.01 / half + 1e-9).all())
    assert threat.with_eps(1.0) == Combined(Linf(half), Linf(half))
    assert Combined(Linf(0.2), L2(1.0)).with_eps(0.5).size(x, threat.identity(x)).tolist() == [0.0] * 4


def test_the_share_limits_all_parts():
    x = torch.full((2, 4), 0.5)
    far = torch.full((2, 8), 9.0)
    for eps in (0.5, torch.tensor([0.5, 0.5])):
        threat = Combined(Linf(0.2), Linf(0.4), eps=eps)
        assert torch.allclose(threat.project(x, far), torch.tensor([0.1] * 4 + [0.2] * 4).expand(2, 8))
        assert torch.allclose(threat.scale(x), torch.tensor([0.1] * 4 + [0.2] * 4).expand(2, 8))


def test_budgets_per_sample_are_selected_in_the_parts_too():
    threat = Combined(Linf(torch.tensor([0.1, 0.2, 0.3])), L2(1.0), eps=torch.tensor([1.0, 0.5, 0.0]))
    part = threat.at(torch.tensor([False, True, True]))
    assert part.eps.tolist() == [0.5, 0.0]
    assert part.parts[0].eps.tolist() == pytest.approx([0.2, 0.3])
    same = Combined(Linf(0.1), L2(1.0))
    assert same.at(torch.tensor([0])) is same


def test_roughness_is_the_sum_of_the_parts():
    x = images()
    threat = Combined(Recolor(0.06, resolution=SMALL), Linf(0.03), Flow(0.3))
    theta = threat.start(x, keyed(3))
    colour, _, flow = split(threat, x, theta)
    expected = threat.parts[0].roughness(x, colour) + threat.parts[2].roughness(x, flow)
    assert torch.allclose(threat.roughness(x, theta), expected)
    assert bool((expected > 1).all())


@pytest.mark.parametrize(
    ("text", "threat"),
    [
        (
            "Combined(Recolor(0.06), Flow(0.05), Linf(8/255))",
            Combined(Recolor(0.06), Flow(0.05), Linf(8 / 255)),
        ),
        ("combined:Linf(0.1), L2(1)", Combined(Linf(0.1), L2(1.0))),
        ("Combined(Linf(0.1), eps=1/2)", Combined(Linf(0.1), eps=0.5)),
        ("Combined(Linf(0.1), eps=None)", Combined(Linf(0.1), eps=None)),
        ("Combined(Combined(Linf(0.1), L2(1)), L1(3))", Combined(Combined(Linf(0.1), L2(1)), L1(3))),
    ],
)
def test_it_is_written_as_the_call_that_builds_it(text, threat):
    assert grammar.threat(text) == threat
    assert grammar.threat(repr(threat)) == threat
    assert repr(grammar.threat(repr(threat))) == repr(threat)
    attack = grammar.attack("pdpgd", text, ["steps=3"])
    assert grammar.attack(repr(attack)) == attack
    assert hash(threat) == hash(grammar.threat(text))


def test_mistakes_in_writing_are_shown_at_their_place():
    for text, words in (
        ("Combined()", "needs at least one threat"),
        ("Combined(Linf(0.1), 0.5)", r"has to be Threat, found 0.5\n.*\n *\^\^\^$"),
        ("Combined(threats=Linf(0.1))", "one after the other"),
        ("Combined(Linf(0.1), L2())", r"write L2\(eps\)"),
        ("Combined(Linf(0.1), Lint(3))", "Did you mean"),
        ("Combined(Linf(0.1), Linf(0.1, bounds=(-1, 1)))", "same bounds"),
    ):
        with pytest.raises(GrammarError, match=words):
            grammar.threat(text)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(ThreatError, match="same bounds"):
        Combined(Linf(0.1), Linf(0.1, bounds=(-1, 1)))
    with pytest.raises(ThreatError, match="needs a budget"):
        Combined(Linf(0.1), L2())
    with pytest.raises(ThreatError, match="at least one"):
        Combined()
    with pytest.raises(ThreatError, match="takes threats"):
        Combined(0.1)
    with pytest.raises(ThreatError, match="ToneCurve"):
        PGD(threat=Combined(Linf(0.1), assay.Recolor(0.1)))(
            torch.nn.Flatten(), torch.rand(2, 1, 4, 4), torch.tensor([0, 1])
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_budget_per_sample_in_any_type_serves_wide_inputs(dtype):
    x = 0.3 + 0.4 * torch.rand(4, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    threat = Combined(Flow(0.1), Linf(0.3), eps=torch.ones(4, dtype=dtype))
    far = threat.project(x, torch.full_like(threat.identity(x), 9.0))
    assert (threat.size(x, far) > 0.99).all()
    assert (threat.size(x, far) <= threat.limit(x)).all()
