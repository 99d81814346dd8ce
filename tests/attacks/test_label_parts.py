"""What attacks from decisions alone are made of: bisection, starts, probes, rays; and the settings they refuse."""

from __future__ import annotations

import pytest
import torch

from assay.attacks import OPT, Boundary, GeoDA, HopSkipJump, SignOPT, survey
from assay.attacks.bisection import bisect, to_boundary
from assay.attacks.decisions import wins, wins_among
from assay.attacks.rays import asking, lengths, shorter
from assay.attacks.starts import TRIED, find_near_start, find_start
from assay.attacks.survey import probe, unit, unit_each
from assay.errors import SettingError, ThreatError
from assay.goals import Untargeted
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.testing.problems import Affine, Constant
from assay.threats import L0, L1, L2, Linf


def asked(problem, n=4, threat=None, **settings):
    """An oracle that has judged the clean inputs, and how often its model was asked."""
    x, y = problem.inputs(n, dtype=torch.float64)
    model, rows = problem.model(torch.float64), []

    def counted(inputs):
        rows.append(len(inputs))
        return model(inputs)

    oracle = Oracle(counted, x, Untargeted(y), threat or L2(), access=Access.LABELS, **settings)
    oracle.judge_clean()
    rows.clear()
    return oracle, rows


def test_brackets_are_halved_as_often_as_each_needs():
    edge = torch.tensor([0.3, 0.7, 0.123, 0.9], dtype=torch.float64)
    tolerance = torch.tensor([0.5, 1e-3, 1e-9, 1e-3], dtype=torch.float64)
    count = torch.zeros(4)

    def ask(at, rows):
        count.add_(rows)
        return (at >= edge) & rows

    rows = torch.tensor([True, True, True, False])
    high = bisect(ask, torch.zeros_like(edge), torch.ones_like(edge), tolerance, rows)
    assert count.tolist() == [1, 10, 30, 0]
    assert ((high >= edge) & (high <= edge + tolerance))[:3].all()
    assert high[3] == 1


def test_bisection_ends_where_floats_do():
    edge = torch.tensor([1 / 3])
    calls = []
    bisect(lambda at, rows: calls.append(1) or at >= edge, torch.zeros(1), torch.ones(1), torch.zeros(1), edge > 0)
    assert len(calls) <= 24


@pytest.mark.parametrize("clipping", [False, True])
def test_moves_come_back_to_the_boundary(clipping):
    oracle, _ = asked(Affine(classes=2))
    theta, found = find_start(oracle, Keyed(0, torch.arange(4), dtype=torch.float64))
    assert found.all()
    near = to_boundary(oracle, theta, 1e-6, clipping=clipping)
    assert wins(oracle, near).all()
    assert not wins(oracle, near * (1 - 1e-4)).any()
    if clipping:
        limit = near.flatten(1).abs().amax(dim=1).reshape(-1, 1, 1, 1)
        assert torch.equal(near, theta.clamp(-limit, limit))


def test_only_wanted_candidates_are_asked_about():
    oracle, rows = asked(Affine(classes=2))
    moves = torch.linspace(-1, 1, 4 * 5 * 48, dtype=torch.float64).reshape(4, 5, 3, 4, 4)
    every = wins(oracle, moves)
    rows.clear()
    wanted = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 1, 1, 1, 1], [1, 0, 0, 0, 1]]).bool()
    assert torch.equal(wins_among(oracle, moves, wanted), every & wanted)
    assert sum(rows) == 8


def test_a_model_without_other_classes_is_given_up_after_so_many_starts():
    oracle, rows = asked(Constant())
    theta, found = find_start(oracle, Keyed(0, torch.arange(4), dtype=torch.float64))
    assert not found.any()
    assert not theta.any()
    assert sum(rows) == 4 * TRIED


@pytest.mark.parametrize("tried", [1, 3, 30])
def test_of_several_classes_the_nearest_is_the_start(tried):
    oracle, rows = asked(Affine(classes=4))
    generator = torch.Generator().manual_seed(0)
    given = torch.rand(30, 3, 4, 4, dtype=torch.float64, generator=generator)
    theta, found = find_near_start(
        oracle, Keyed(0, torch.arange(4), dtype=torch.float64), given, tried=tried, tolerance=1e-6
    )
    spent = sum(rows)
    assert found.all()
    assert wins(oracle, theta).all()
    theta = to_boundary(oracle, theta, 1e-6, clipping=False).flatten(1).norm(dim=1)
    kinds = 0
    for i in range(4):
        order = (given - oracle.x[i]).flatten(1).norm(dim=1).argsort()
        one, best, seen = oracle.at(torch.tensor([i])), torch.inf, set()
        for number, move in enumerate((given - oracle.x[i])[order]):
            label = int(one.labels(move[None]))
            if label != int(one.goal.classes) and label not in seen and (number < tried or not seen):
                seen.add(label)
                best = min(best, float(to_boundary(one, move[None], 1e-6, clipping=False).norm()))
        assert theta[i] == pytest.approx(best, rel=1e-5)
        kinds = max(kinds, len(seen))
    assert kinds == {1: 1, 3: 2, 30: 3}[tried]
    assert spent <= 4 * (30 + 3 * 20)


def test_probes_tell_the_normal_and_do_not_depend_on_what_is_held_together(monkeypatch):
    problem = Affine(classes=2)
    oracle, _ = asked(problem)
    theta = (problem.optimum(oracle.x, oracle.goal.classes, "l2") - oracle.x).double() * (1 + 1e-9)
    weight, _ = problem.weights()
    sign = (1 - 2 * oracle.goal.classes)[:, None]
    true = unit(((weight[1] - weight[0]) * sign).reshape(oracle.x.shape))

    def propose(rows, drawn, k):
        noise = unit_each(drawn.normal(k, 3, 4, 4))
        return theta[rows][:, None] + 1e-3 * noise, noise

    def normal(**held):
        for name, value in held.items():
            monkeypatch.setattr(survey, name, value)
        rng = Keyed(0, torch.arange(4), dtype=torch.float64)
        return probe(oracle, rng, 5000, propose).normal(baseline=True)

    first = normal(_VALUES=48 * 100)
    assert ((first * true).flatten(1).sum(dim=1) > 0.95).all()
    assert torch.allclose(first, normal(_AT_ONCE={"cpu": 1, "cuda": 1}), atol=1e-12)


def test_lengths_along_rays_are_those_of_the_half_space():
    problem = Affine(classes=2, boxed=False)
    oracle, _ = asked(problem)
    x, y = oracle.x, oracle.goal.classes
    weight, bias = problem.weights()
    slope = ((weight[1] - weight[0]) * (1 - 2 * y)[:, None]).reshape(x.shape)
    gap = (x.flatten(1) @ (weight[1] - weight[0]) + bias[1] - bias[0]).abs()
    ray = unit(slope) * 0.8 + 0.6 * unit(slope.flip(-1))
    ray = unit(ray)
    exact = gap / (ray * slope).flatten(1).sum(dim=1)
    inside = (x + ray * exact.reshape(-1, 1, 1, 1) * 1.2).clamp(0, 1) == x + ray * exact.reshape(-1, 1, 1, 1) * 1.2
    usable = inside.flatten(1).all(dim=1) & (exact > 0)
    tolerance, everyone = torch.full_like(exact, 1e-6), torch.ones_like(usable)
    ask = asking(oracle, ray)
    for guess in (0.85, 0.999, 1.1):
        found = lengths(ask, guess * exact, tolerance, everyone)
        assert torch.allclose(found[usable], exact[usable], atol=2e-6)
    assert shorter(ask, 0.99 * exact, tolerance, usable).isinf().all()
    assert torch.allclose(shorter(ask, 1.19 * exact, tolerance, usable)[usable], exact[usable], atol=2e-6)


def test_low_frequencies_are_all_that_probes_hold():
    problem = Affine(classes=2, shape=(2, 12, 10))
    x, y = problem.inputs(3, dtype=torch.float64)
    seen = []
    model = problem.model(torch.float64)

    def watched(inputs):
        seen.append(inputs)
        return model(inputs)

    GeoDA(threat=L2(), queries=60, frequencies=3)(watched, x[:1], y[:1], micro_batch=512)
    probes = max(seen, key=len)
    middle = probes.mean(dim=0).flatten()
    noise = (probes.flatten(1) - middle)[:, (middle > 0.01) & (middle < 0.99)]  # others are clipped
    assert len(probes) == 60
    assert int((torch.linalg.svdvals(noise) > 1e-9).sum()) == 2 * 3 * 3
    full = GeoDA(threat=L2(), queries=60, frequencies=None)(model, x, y)
    assert full.success.all()


REFUSED = [
    *((HopSkipJump, name) for name in ("steps", "probes", "max_probes", "gamma")),
    *((attack, name) for attack in (OPT, SignOPT) for name in ("steps", "directions", "probes", "alpha", "beta")),
    *((Boundary, name) for name in ("steps", "every", "around", "nearer", "adaptation")),
    *((GeoDA, name) for name in ("queries", "ratio", "sigma", "tolerance", "frequencies")),
]


@pytest.mark.parametrize(("attack", "name"), REFUSED)
def test_settings_out_of_range_are_refused(attack, name):
    with pytest.raises(SettingError, match=name):
        attack(threat=L2(), **{name: 0})


@pytest.mark.parametrize(
    ("attack", "threat"),
    [(HopSkipJump, L1()), (HopSkipJump, L0()), (GeoDA, L0()), (OPT, Linf()), (SignOPT, Linf()), (Boundary, Linf())],
)
def test_other_threats_are_refused(attack, threat):
    with pytest.raises(ThreatError, match=f"{attack.__name__} works in L2"):
        attack(threat=threat)
