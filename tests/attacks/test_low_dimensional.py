"""GridSearch and RandomSearch: exhaustive where they say so, by decisions and scores alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from assay import grammar
from assay.attacks import GridSearch, RandomSearch
from assay.errors import SettingError, ThreatError
from assay.goals import Targeted, Untargeted
from assay.losses import margin
from assay.oracle import Access, Oracle
from assay.rng import Keyed
from assay.testing import Counting
from assay.testing.models import Gradientless, curved
from assay.threats import L2, Combined, Flow, Linf, Rotation, Translation


def setting(n=12, side=6, classes=4):
    """A curved network that is right on all of these images."""
    x = torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    model = curved(side * side, classes, (0.0, 1.0))
    return model, x, model(x).argmax(1).detach()


class Shifted(nn.Module):
    """Class 1 exactly where the one bright pixel of an image has moved by a given shift."""

    def __init__(self, down, right):
        super().__init__()
        self.at = 4 + down, 4 + right

    def forward(self, x):
        bright = x[:, 0, self.at[0], self.at[1]] - 0.99
        return torch.stack([-bright, bright], dim=1)


def dot():
    x = torch.zeros(1, 1, 9, 9)
    x[:, :, 4, 4] = 1
    return x, torch.tensor([0])


@pytest.mark.parametrize(("down", "right"), list(itertools.product((-2, 0, 1), (-2, -1, 2))))
def test_the_one_point_that_wins_is_found(down, right):
    x, y = dot()
    result = GridSearch(threat=Translation(2), points=5)(Shifted(down, right), x, y)
    assert result.success.all()
    assert result.distance == max(abs(down), abs(right))
    assert result.x_adv[0, 0, 4 + down, 4 + right] == 1
    too_coarse = GridSearch(threat=Translation(2), points=3)(Shifted(down, right), x, y)
    assert bool(too_coarse.success) == ({abs(down), abs(right)} <= {0, 2})
    beyond = GridSearch(threat=Translation(2), points=5)(Shifted(3, right), x, y)
    assert not beyond.success
    assert beyond.forwards == 26


def test_it_wins_exactly_where_a_point_of_the_grid_does():
    model, x, y = setting(40)
    threat = Rotation(20)
    result = GridSearch(threat=threat, points=9)(model, x, y)
    angles = torch.linspace(-20, 20, 9, dtype=x.dtype)
    wrong = torch.stack(
        [model(threat.apply(x, torch.full((len(x), 1), float(a), dtype=x.dtype))).argmax(1) != y for a in angles]
    )
    assert torch.equal(result.success, wrong.any(dim=0))
    assert 0 < int(result.success.sum()) < 40
    assert (result.forwards[~result.success] == 10).all()
    assert (result.forwards[result.success] <= 10).all()
    assert result.forwards[result.success].float().mean() < 9  # who is broken leaves


def test_each_sample_has_a_grid_of_its_own():
    model, x, y = setting()
    eps = torch.linspace(0, 40, 12, dtype=x.dtype)
    whole = GridSearch(threat=Rotation(eps), points=9)(model, x, y)
    for i in range(12):
        alone = GridSearch(threat=Rotation(float(eps[i])), points=9)(model, x[i : i + 1], y[i : i + 1])
        assert torch.equal(alone.x_adv[0], whole.x_adv[i])
        assert torch.equal(alone.forwards[0], whole.forwards[i])
    assert (whole.distance[whole.success] <= eps[whole.success]).all()


def test_points_for_each_coordinate():
    model, x, y = setting()
    together = Combined(Translation(1), Rotation(20))
    attack = GridSearch(threat=together, points=(3, 3, 5))
    result = attack(model, x, y)
    assert result.forwards.max() <= 46
    for part, points in ((Translation(1), 3), (Rotation(20), 5)):
        alone = GridSearch(threat=part, points=points)(model, x, y)
        assert (result.success >= alone.success).all()  # the middle of the others is in the grid
    assert repr(attack).endswith("points=(3, 3, 5))")
    assert grammar.parse(repr(attack)) == attack
    with pytest.raises(SettingError, match="points has 3 numbers for moves of 1"):
        GridSearch(threat=Rotation(20), points=(3, 3, 5))(model, x, y)


def test_points_outside_the_set_are_projected():
    model = nn.Linear(2, 2).double()
    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    attack = GridSearch(threat=L2(0.3), points=3)
    moves = attack._moves(x, *attack._box(x), attack._units(x))[0]
    assert len(moves) == 9
    assert moves.norm(dim=1).max() <= 0.3 + 1e-12
    assert (moves.norm(dim=1) > 0.29).sum() == 8
    assert attack(model, x, model(x).argmax(1)).forwards <= 10


def test_decisions_are_enough_for_a_grid_and_scores_for_draws():
    model, x, y = setting()
    for attack, access in (
        (GridSearch(threat=Rotation(30), points=9), Access.LABELS),
        (RandomSearch(threat=Rotation(30), draws=9, refine=3), Access.SCORES),
    ):
        watched = Counting(Gradientless(model, access, labels=access is Access.LABELS))
        watched.access = access
        result = attack(watched, x, y)
        assert torch.equal(result.success, attack(model, x, y).success)
        assert result.success.any()
        assert watched.forwards == int(result.forwards.sum())
        assert not result.backwards.any()


@pytest.mark.parametrize("kind", [GridSearch, RandomSearch])
def test_moves_for_training(kind):
    model, x, y = setting(40)
    attack = kind(threat=Rotation(30))
    moved = attack.perturb(model, x, y)
    wrong = model(moved).argmax(1) != y
    assert wrong.float().mean() >= 0.9 * attack(model, x, y).success.float().mean()
    assert torch.equal(moved, attack.perturb(model, x, y))


@pytest.mark.parametrize("targeted", [False, True])
def test_a_grid_gives_training_its_worst_point(targeted):
    model, x, y = setting(40)
    goal = Targeted((y + 1) % 4) if targeted else Untargeted(y)
    angles = torch.linspace(-30, 30, 31, dtype=x.dtype)
    margins = torch.stack([margin(model(Rotation(30).apply(x, a.expand(40, 1))), goal) for a in angles])
    moved = GridSearch(threat=Rotation(30)).perturb(model, x, goal)
    torch.testing.assert_close(margin(model(moved), goal), margins.amax(dim=0), rtol=0, atol=1e-5)
    broken = GridSearch(threat=Rotation(30))(model, x, goal)
    assert (margins.amax(dim=0) > margin(model(broken.x_adv), goal) + 1e-6).any()  # the first break is not the worst
    labels = Gradientless(model, Access.LABELS, labels=True)
    labels.access = Access.LABELS
    first = GridSearch(threat=Rotation(30)).perturb(labels, x, goal)
    assert torch.equal(goal.reached(model(first)), broken.success)


def test_grids_of_many_numbers_are_refused():
    model, x, y = setting(2)
    for threat, points in ((Flow(0.1), 3), (Linf(0.1), 2), (Translation(3), 1001)):
        with pytest.raises(SettingError, match="moves of a few numbers, such as Rotation"):
            GridSearch(threat=threat, points=points)(model, x, y)


# ---------------------------------------------------------------------------- RandomSearch


def test_one_draw_is_the_start():
    model, x, y = setting()
    threat = Rotation(30)
    theta = threat.start(x, Keyed(0, torch.arange(len(x)), dtype=torch.float64))
    moved = RandomSearch(threat=threat, draws=1).perturb(model, x, y)
    assert torch.equal(moved, threat.apply(x, theta))


def test_the_worst_of_more_draws_is_worse():
    model, x, y = setting(30)
    goal, before = Untargeted(y), torch.full((30,), -torch.inf, dtype=torch.float64)
    for draws in (1, 3, 10, 33):
        found = margin(model(RandomSearch(threat=Rotation(30), draws=draws).perturb(model, x, y)), goal)
        assert (found >= before).all()
        assert not torch.equal(found, before)
        before = found


def test_draws_are_the_worst_of_all():
    model, x, y = setting()
    threat, rng = Translation(2), Keyed(0, torch.arange(len(x)), dtype=torch.float64)
    margins = torch.stack([margin(model(threat.apply(x, threat.start(x, rng))), Untargeted(y)) for _ in range(20)])
    moved = RandomSearch(threat=threat, draws=20).perturb(model, x, y)
    torch.testing.assert_close(margin(model(moved), Untargeted(y)), margins.amax(dim=0))


def test_the_walk_comes_near_the_worst_point():
    model, x, y = setting()
    fine = torch.linspace(-30, 30, 601, dtype=x.dtype)
    everywhere = torch.stack([margin(model(Rotation(30).apply(x, a.expand(12, 1))), Untargeted(y)) for a in fine])
    worst = everywhere.amax(dim=0)

    def gap(**settings):
        moved = RandomSearch(threat=Rotation(30), **settings).perturb(model, x, y)
        return (worst - margin(model(moved), Untargeted(y))).clamp_min(0).mean()

    assert gap(draws=20, refine=40) < 0.2 * gap(draws=20)
    assert gap(draws=20, refine=40) < 0.01


@pytest.mark.parametrize(
    "attack",
    [GridSearch(threat=Rotation(30), points=7), RandomSearch(threat=Rotation(30), draws=7, refine=5)],
    ids=["grid", "random"],
)
def test_results_do_not_depend_on_the_batch_and_counts_are_kept(attack):
    model, x, y = setting()
    index = torch.arange(12) * 7
    whole = attack(model, x, y, index=index)
    for rows in (torch.arange(1), torch.tensor([5, 2, 9])):
        part = attack(model, x[rows], y[rows], index=index[rows], micro_batch=2)
        torch.testing.assert_close(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-12)
        assert torch.equal(part.forwards, whole.forwards[rows])
    limited = attack(model, x, y, index=index, max_queries=4)
    assert limited.forwards.max() <= 4
    assert (limited.success <= whole.success).all()


def test_finished_samples_leave():
    model, x, y = setting()
    oracle = Oracle(model, x, Untargeted(1 - y.clamp(max=1)), Rotation(30), access=Access.SCORES)
    oracle.judge_clean()
    asked = oracle.record.forwards.clone()
    won = oracle.record.success.clone()
    RandomSearch(threat=Rotation(30)).run(oracle, x, oracle.goal, Keyed(0, torch.arange(12), dtype=torch.float64))
    assert torch.equal(oracle.record.forwards[won], asked[won])


def test_mistakes():
    for points in (0, (), (3, 0), 2.5, True):
        with pytest.raises(SettingError, match="points must be a whole number"):
            GridSearch(threat=Rotation(30), points=points)
    for settings in ({"draws": 0}, {"refine": -1}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            RandomSearch(threat=Rotation(30), **settings)
    for kind in (GridSearch, RandomSearch):
        with pytest.raises(ThreatError, match=r"needs a budget: write Rotation\(eps\)"):
            kind(threat=Rotation())


@pytest.mark.parametrize("written", ["grid", "GridSearch", "grid-search", "grid:points=31"])
def test_short_names(written):
    assert grammar.attack(written, "rotation:30") == GridSearch(threat=Rotation(30))
    assert grammar.attack("random", "rotation:30") == RandomSearch(threat=Rotation(30))
