"""Transfer asks the target for one decision per surrogate, and what it finds is what the inner attack finds."""

from __future__ import annotations

import functools

import pytest
import torch
from torch import nn

import assay
from assay import grammar
from assay.attacks import APGD, DIFGSM, FMN, MIFGSM, PGD, Square, Transfer
from assay.errors import AccessError, GrammarError, ModelError, SettingError
from assay.goals import Targeted
from assay.models import Function, LabelsOnly, ScoresOnly
from assay.testing.case import audit

THREAT = assay.Linf(0.2)
INNER = MIFGSM(threat=THREAT)


@functools.cache
def digits():
    """A target, and images that it reads."""
    model, data = assay.load_model("digits-mlp"), assay.load_data("digits", limit=200)
    x, y, _ = data.batch(0, 200)
    right = model(x).argmax(1) == y
    return model, x[right], y[right]


@functools.cache
def other(seed=0):
    """Another network for the same task, trained in a second."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(64, 40), nn.Tanh(), nn.Linear(40, 10))
    x, y, _ = assay.load_data("digits").batch(200, 1200)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    return net.eval()


class Asked(nn.Module):
    """Answers with labels alone and counts the inputs."""

    def __init__(self, model):
        super().__init__()
        self.model, self.access, self.rows = model, assay.Access.LABELS, 0

    def forward(self, x):
        self.rows += len(x)
        with torch.no_grad():
            return self.model(x).argmax(1)


def test_the_target_as_its_own_surrogate_falls_as_in_the_open():
    model, x, y = digits()
    moved = INNER.perturb(model, x, y)
    result = Transfer(surrogate="digits-mlp", attack=INNER)(LabelsOnly(model), x, y)
    assert torch.equal(result.success, model(moved).argmax(1) != y)
    assert torch.equal(result.x_adv[result.success], moved[result.success])
    open_rate = PGD(threat=THREAT, steps=10)(model, x, y).success.double().mean()
    assert result.success.double().mean() > open_rate - 0.03
    audit(Transfer(surrogate="digits-mlp", attack=INNER)(model, x, y), model, x, y, THREAT)


def test_moves_transfer_and_noise_does_not():
    model, x, y = digits()
    generator = torch.Generator().manual_seed(0)
    noise = 0.2 * torch.randn(x.shape, generator=generator).sign()
    by_noise = (model((x + noise).clamp(0, 1)).argmax(1) != y).double().mean()
    won = Transfer(surrogate=other(), attack=INNER)(LabelsOnly(model), x, y).success.double().mean()
    assert won > by_noise + 0.4
    nothing = Transfer(surrogate=other(), attack=MIFGSM(threat=assay.Linf(0.0)))(LabelsOnly(model), x, y)
    assert not nothing.success.any()


def test_one_question_for_each_surrogate():
    model, x, y = digits()
    target = Asked(model)
    one = Transfer(surrogate=other(), attack=INNER)(target, x, y)
    assert one.forwards.eq(2).all()  # the clean input and the move
    assert one.backwards.eq(0).all()
    assert target.rows == int(one.forwards.sum())
    target = Asked(model)
    two = Transfer(surrogate=(other(), other(1)), attack=INNER)(target, x, y)
    assert torch.equal(two.forwards, torch.where(one.success, 2, 3))
    assert target.rows == int(two.forwards.sum())
    assert (two.success >= one.success).all()
    assert two.success.sum() > one.success.sum()


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_a_budget_is_kept_and_its_successes_are_a_prefix(budget):
    model, x, y = digits()
    attack = Transfer(surrogate=(other(), other(1)), attack=INNER)
    target, full = Asked(model), attack(LabelsOnly(model), x, y)
    result = attack(target, x, y, max_queries=budget)
    assert result.forwards.max() <= budget
    assert target.rows <= budget * len(x)
    assert torch.equal(result.success, full.success & (full.forwards <= budget))


def test_an_ensemble_is_a_surrogate():
    model, x, y = digits()
    both = Transfer(surrogate=assay.models.Ensemble(other(), other(1)), attack=INNER)(LabelsOnly(model), x, y)
    assert both.forwards.eq(2).all()
    assert both.success.double().mean() > 0.4
    named = Transfer(surrogate="Ensemble('digits-mlp', 'digits-mlp')", attack=INNER)(LabelsOnly(model), x, y)
    assert torch.equal(named.success, Transfer(surrogate="digits-mlp", attack=INNER)(LabelsOnly(model), x, y).success)


@pytest.mark.parametrize(
    "inner",
    [
        DIFGSM(threat=THREAT),
        PGD(threat=THREAT, steps=5, restarts=2, neighbours=2, kernel_radius=1, momentum=1.0),
        APGD(threat=THREAT, steps=10),
        Square(threat=THREAT, queries=30),
        FMN(threat=assay.Linf(), steps=10),
    ],
    ids=lambda inner: type(inner).__name__,
)
def test_results_do_not_depend_on_batches(inner):
    model, x, y = digits()
    x, y, attack = x[:8], y[:8], Transfer(surrogate=other(), attack=inner)
    whole = attack(LabelsOnly(model), x, y, seed=5)
    for rows in torch.arange(8).split(3):
        part = attack(LabelsOnly(model), x[rows], y[rows], seed=5, index=rows)
        assert torch.allclose(part.x_adv, whole.x_adv[rows], atol=1e-6)
        assert torch.equal(part.success, whole.success[rows])


def test_targets():
    model, x, y = digits()
    goal = Targeted((y + 1) % 10)
    strong = Transfer(surrogate="digits-mlp", attack=MIFGSM(threat=assay.Linf(0.4)))(LabelsOnly(model), x, goal)
    assert strong.success.double().mean() > 0.5
    assert torch.equal(strong.prediction[strong.success], goal.classes[strong.success])


def test_one_budget_for_each_sample_and_float64():
    model, x, y = digits()
    eps = torch.where(torch.arange(len(x)) % 2 == 0, 0.0, 0.3).double()
    attack = Transfer(surrogate="digits-mlp", attack=MIFGSM(threat=assay.Linf(eps)))
    result = attack(Function(lambda v: model(v.float()).argmax(1), access="labels", takes="torch"), x.double(), y)
    assert not result.success[::2].any()
    assert result.success[1::2].double().mean() > 0.8
    assert result.x_adv.dtype == torch.float64


def test_surrogates_and_training_are_left_as_they_were():
    model, x, y = digits()
    net = nn.Sequential(other(), nn.Dropout(0.5)).train()
    net[0].eval()
    attack = Transfer(surrogate=(net, other(1)), attack=INNER)
    moved = attack.perturb(LabelsOnly(model), x, y)
    assert net.training
    assert net[1].training
    assert not net[0].training
    assert all(parameter.grad is None for parameter in model.parameters())
    won = attack(LabelsOnly(model), x, y).success
    assert torch.equal(model(moved).argmax(1) != y, won)


def test_a_large_batch_goes_through_the_surrogate_in_parts():
    model, x, y = digits()
    rows = []
    net = nn.Sequential(nn.Identity(), other())
    net[0].register_forward_hook(lambda *args: rows.append(len(args[-1])))
    x, y = x.repeat(4, 1, 1, 1), y.repeat(4)
    Transfer(surrogate=net, attack=INNER)(LabelsOnly(model), x, y)
    assert len(x) > 256 >= max(rows)


def test_it_is_read_and_written():
    text = "Transfer(surrogate=('fashion-cnn', 'runs/s'), attack=PGD(threat=Linf(0.1), momentum=1, diverse=0.5))"
    attack = grammar.attack(text)
    assert grammar.attack(repr(attack)) == attack
    assert attack.threat == assay.Linf(0.1)
    assert grammar.attack("transfer", "linf:0.2", ["surrogate=digits-mlp"]) == Transfer(
        surrogate="digits-mlp", attack=INNER
    )
    with pytest.raises(GrammarError, match="needs surrogate"):
        grammar.attack("transfer", "linf:0.2")


def test_it_is_a_stage_of_an_evaluation(tmp_path):
    model, x, y = digits()
    attack = Transfer(surrogate="digits-mlp", attack=INNER)
    run = assay.evaluate(LabelsOnly(model), (x, y), threat=THREAT, suite=[("t", attack)], out=tmp_path / "r", chunk=64)
    assert run.robust_accuracy == pytest.approx(1 - attack(model, x, y).success.double().mean().item())


@pytest.mark.parametrize(
    ("surrogate", "inner", "error", "message"),
    [
        ((), INNER, SettingError, "needs a surrogate"),
        (3, INNER, SettingError, "a surrogate is a MODEL"),
        ("", INNER, SettingError, "a surrogate is a MODEL"),
        ("digits-mlp", "pgd", SettingError, "attack is the attack on the surrogate"),
        ("digits-mlq", INNER, ModelError, "Did you mean 'digits-mlp'"),
        ("fashion-cnn", INNER, ModelError, "does not take inputs of shape"),
        (ScoresOnly(nn.Identity()), INNER, AccessError, "the surrogate ScoresOnly grants scores"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), INNER, ModelError, "knows 3 classes"),
    ],
)
def test_mistakes_are_named(surrogate, inner, error, message):
    model, x, y = digits()
    with pytest.raises(error, match=message):
        Transfer(surrogate=surrogate, attack=inner)(LabelsOnly(model), x, y)
