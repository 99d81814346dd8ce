"""Every attack that takes flows, rotations or translations keeps the contract there, where no exact radius is known."""

from __future__ import annotations

import pytest
import torch

from assay import registry
from assay.attacks import PGD
from assay.errors import AccessError, ThreatError
from assay.goals import Targeted, Untargeted
from assay.oracle import Access
from assay.testing import Counting
from assay.testing.models import Gradientless, curved
from assay.threats import Combined, Flow, Linf, Recolor, Rotation

EPS = {"flow": 0.5, "rotation": 40.0, "translation": 2.0}
QUICK: dict[str, dict[str, object]] = {
    "PGD": {"steps": 6, "restarts": 2},
    "APGD": {"steps": 8},
    "AdamSearch": {"steps": 8},
    "StAdv": {"steps": 6, "searches": 2},
    "GridSearch": {"points": 5},
    "RandomSearch": {"draws": 6, "refine": 4},
    "PDPGD": {"steps": 5, "restarts": 2},
}
# The others are settings of these, or wrappers around them.
PAIRS = [(name, kind) for name in QUICK for kind in EPS if kind in registry.get("attack", name).threats]
every_pair = pytest.mark.parametrize(("name", "kind"), PAIRS)


def build(name, kind, eps=None, bounds=(0.0, 1.0)):
    threat = registry.get("threat", kind).load()(EPS[kind] if eps is None else eps, bounds=bounds)
    return registry.get("attack", name).load()(threat=threat, **QUICK[name])


def setting(n=6, bounds=(0.0, 1.0)):
    """A curved network of colour images, right on all of them; the last one is of one colour."""
    low, high = bounds
    x = torch.rand(n, 2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * (high - low) + low
    model = curved(60, 4, bounds)
    return model, x, model(x).argmax(1).detach()


@pytest.mark.parametrize("threat", [Flow(0.1), Rotation(9), Recolor(0.1), Combined(Linf(0.1), Flow(0.1))], ids=repr)
def test_messages_do_not_name_another_batch_than_the_users(threat):
    x = torch.rand(7, 30)
    with pytest.raises(ThreatError, match=r"inputs (of|have the) shape \(b, 30\)"):
        PGD(threat=threat)(torch.nn.Linear(30, 3), x, torch.zeros(7, dtype=torch.int64))


@every_pair
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-2.0, 3.0), (0.0, 255.0)])
@pytest.mark.parametrize("targeted", [False, True])
def test_results_are_honest_and_attacks_win(name, kind, bounds, targeted):
    model, x, y = setting(12, bounds)
    goal = Targeted((y + 1) % 4) if targeted else Untargeted(y)
    attack = build(name, kind, bounds=bounds)
    result = attack(model, x, goal)
    won = result.success
    assert int(won.sum()) >= (1 if targeted else 4)
    assert torch.equal(goal.reached(model(result.x_adv)), won)
    assert torch.equal(result.prediction, model(result.x_adv).argmax(1))
    assert torch.equal(result.x_adv[~won], x[~won])
    assert result.distance[~won].isinf().all()
    assert (result.distance[won] <= EPS[kind] * (1 + 1e-12)).all()
    assert (result.distance[won] > 0).all()
    assert result.x_adv.min() >= bounds[0]
    assert result.x_adv.max() <= bounds[1]


@every_pair
def test_counts_are_true_and_budgets_are_kept(name, kind):
    model, x, y = setting()
    watched = Counting(model)
    result = build(name, kind)(watched, x, y)
    assert (watched.forwards, watched.backwards) == (int(result.forwards.sum()), int(result.backwards.sum()))
    for budget in (1, 3):
        assert build(name, kind)(model, x, y, max_queries=budget).forwards.max() <= budget
    wrong = build(name, kind)(model, x, (y + 1) % 4)
    assert (wrong.distance == 0).all()
    assert (wrong.forwards == 1).all()


@every_pair
def test_batches_and_order_do_not_matter(name, kind):
    model, x, y = setting()
    index, attack = torch.tensor([40, 7, 1_000_000_007, 3, 12, 0]), build(name, kind)
    whole = attack(model, x, y, seed=1, index=index)
    for rows in (torch.tensor([0]), torch.tensor([4]), torch.tensor([5, 2, 1])):
        for part in (
            attack(model, x[rows], y[rows], seed=1, index=index[rows]),
            attack(model, x[rows], y[rows], seed=1, index=index[rows], micro_batch=2),
        ):
            assert torch.equal(part.success, whole.success[rows])
            assert torch.equal(part.forwards, whole.forwards[rows])
            torch.testing.assert_close(part.x_adv, whole.x_adv[rows], rtol=0, atol=1e-6)


@every_pair
def test_one_budget_per_sample_and_none_at_all(name, kind):
    model, x, y = setting()
    eps = torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0, 0.0], dtype=x.dtype) * EPS[kind]
    result = build(name, kind, eps)(model, x, y)
    assert (result.distance[result.success] <= eps[result.success] * (1 + 1e-12)).all()
    assert not result.success[[0, 5]].any()
    attack = build(name, kind, 0.0)
    assert not attack(model, x, y).success.any()
    torch.testing.assert_close(attack.perturb(model, x, y), x, rtol=0, atol=1e-12)


@every_pair
def test_moves_for_training_are_allowed_and_help(name, kind):
    model, x, y = setting(12)
    attack = build(name, kind)
    moved = attack.perturb(model, x, y, seed=3)
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert torch.equal(moved, attack.perturb(model, x, y, seed=3))
    before, after = (model(z).log_softmax(1).gather(1, y[:, None]) for z in (x, moved))
    assert (after < before).double().mean() >= 0.75


@every_pair
def test_what_moves_change_nothing_is_never_won(name, kind):
    """Images of one colour, seen through a flow, and turned or shifted ones where colour comes in from outside."""
    model, x, _ = setting()
    x = x.mean(dim=(2, 3), keepdim=True).expand_as(x).contiguous()
    y = model(x).argmax(1).detach()
    threat = registry.get("threat", kind).load()
    threat = threat(EPS[kind]) if kind == "flow" else threat(EPS[kind], padding="border")
    result = registry.get("attack", name).load()(threat=threat, **QUICK[name])(model, x, y)
    assert not result.success.any()
    assert torch.equal(result.x_adv, x)


@every_pair
def test_access_is_what_is_declared(name, kind):
    model, x, y = setting()
    attack = build(name, kind)
    if attack.access > Access.LABELS:
        with pytest.raises(AccessError):
            attack(Gradientless(model, attack.access - 1, labels=attack.access is Access.SCORES), x, y)
