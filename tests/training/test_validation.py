"""What is measured while training, on samples that nothing is learnt from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

import assay
from assay.attacks import PGD
from assay.data import Data
from assay.errors import SettingError
from assay.models import saved
from assay.training.optimizers import SGD
from assay.training.recipes import PGDAT, MultiThreat, Recipe
from assay.training.schedules import Constant
from assay.training.validation import measure
from assay.training.workers import Workers


class Threshold(nn.Module):
    """Class 1 above 0.5: a sample at 0.5 + d resists every eps below d."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return torch.stack([0.5 - x[:, 0], x[:, 0] - 0.5], dim=1) * self.scale


PLACES = torch.tensor([[0.1], [0.35], [0.45], [0.49], [0.52], [0.58], [0.75], [0.9], [0.3], [0.95]])
LABELS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 1, 0])  # the last two are wrong


@pytest.mark.parametrize(("eps", "robust"), [(0.03, 0.6), (0.1, 0.4), (0.2, 0.3)])
def test_accuracies_of_a_known_network(eps, robust):
    data, model = Data(PLACES, LABELS), Threshold()
    found = measure(model, data, (assay.Linf(eps),), Workers("cpu"), seed=0)
    assert (found.clean, found.robust) == (0.8, robust)
    assert model.training
    alone = measure(model, data, (), Workers("cpu"), seed=0)
    assert (alone.clean, alone.robust) == (0.8, None)


class Halves(nn.Module):
    """Class 1 where x0 > 0.5 if x2 > 0.5, else where x0 + x1 > 1: Linf needs half as much for the latter."""

    def forward(self, x):
        margin = torch.where(x[:, 2] > 0.5, x[:, 0] - 0.5, x[:, 0] + x[:, 1] - 1)
        return torch.stack([-margin, margin], dim=1)


LINF, L2 = assay.Linf(0.1), assay.L2(0.12)  # reach 0.1 and 0.12 of the one margin, 0.2 and 0.17 of the other


@pytest.mark.parametrize(
    ("threats", "robust"), [((LINF,), 2), ((L2,), 2), ((LINF, L2), 1), ((L2, LINF), 1), ((LINF, LINF), 2), ((), None)]
)
def test_under_several_threats_the_worst_counts(threats, robust):
    x = torch.tensor([[0.61, 0.5, 1.0], [0.6, 0.585, 0.0], [0.8, 0.5, 0.0], [0.55, 0.5, 1.0], [0.2, 0.5, 1.0]])
    found = measure(Halves(), Data(x, torch.ones(5, dtype=torch.int64)), threats, Workers("cpu"), seed=0)
    assert found.clean == 0.8
    assert found.robust == (None if robust is None else robust / 5)


def test_what_is_trained_against_several_threats_is_measured_under_all(samples, linear, quick, tmp_path, capsys):
    """And under one alone where it is another than these."""
    recipe = MultiThreat(attacks=[PGD(threat=assay.Linf(eps), steps=2) for eps in (0.01, 0.1)], mode="average")
    settings = {"recipe": recipe, "validation": 24, **FAST}
    asked = {"none": None, "smallest": assay.Linf(0.01), "other": assay.Linf(0.02)}
    rates = {}
    for name, threat in asked.items():
        out = tmp_path / name
        done = quick(linear(), samples(), out=out, **settings | {"threat": threat, "progress": name == "smallest"})
        rates[name] = done.robust_accuracy
        within = ["Linf(0.02)"] if name == "other" else ["Linf(0.01)", "Linf(0.1)"]
        assert json.loads((out / "train.json").read_text())["measured"] == within
        assert saved.card(out)["threat"] == " and ".join(within)
        assert ("within all of Linf(0.01), Linf(0.1)" in (out / "report.html").read_text()) is (name != "other")
    assert rates["none"] == rates["smallest"] < rates["other"]
    assert "what PGD-10 leaves within all of Linf(0.01), Linf(0.1)" in " ".join(capsys.readouterr().err.split())


def test_processes_share_the_work():
    data, model, asked = Data(PLACES, LABELS), Threshold(), []
    counts = []
    for rank in range(3):
        workers = Workers("cpu")
        workers.rank, workers.world = rank, 3
        workers.total = lambda *own: counts.append(own) or own
        model.register_forward_pre_hook(lambda _, x, rank=rank: asked.append((rank, len(x[0]))))
        measure(model, data, (assay.Linf(0.1),), workers, seed=0)
    assert [sum(column) for column in zip(*counts, strict=True)] == [8, 4]
    assert max(size for _, size in asked) == 4


@dataclass(frozen=True, kw_only=True)
class Noted(Recipe):
    """Standard training, until it turns to the wrong labels after an epoch; what it learns from is noted."""

    turn: int = 99
    threat: assay.Threat | None = None
    seen: list[int] = field(default_factory=list, repr=False)

    def loss(self, model, batch, views):
        self.seen.extend(batch.index.tolist())
        wrong = (batch.y + 1) % 3
        return nn.functional.cross_entropy(model(batch.x), batch.y if batch.epoch < self.turn else wrong)


FAST = {"optimizer": SGD(lr=2.0, momentum=0.0, weight_decay=0.0), "schedule": Constant(), "threat": assay.Linf(0.02)}


@pytest.mark.parametrize("lazy", [False, True])
def test_nothing_is_learnt_from_what_is_measured(lazy, samples, linear, quick, monkeypatch):
    recipe, held = Noted(), []
    whole = measure

    def noting(model, data, *rest):
        held.append(data.batch(0, len(data))[2].tolist())
        return whole(model, data, *rest)

    monkeypatch.setattr("assay.training.judge.measure", noting)
    data = samples(48)
    if lazy:
        pairs = list(zip(*data, strict=True))
        data = type("Lazy", (), {"__len__": lambda _: 48, "__getitem__": lambda _, place: pairs[place]})()
    quick(linear(), data, recipe=recipe, validation=12, batch=12, epochs=2 if lazy else 3)
    assert held == [held[0]] * (2 if lazy else 3)
    assert len(held[0]) == len(set(held[0])) == 12
    assert sorted(set(recipe.seen)) == sorted(set(range(48)) - set(held[0]))
    assert len(recipe.seen) == 36 * (2 if lazy else 3)


def test_a_tenth_is_held_out_unless_told(samples, linear, quick):
    recipe = Noted()
    quick(linear(), samples(70), recipe=recipe, epochs=1, batch=63)
    assert len(recipe.seen) == 63
    recipe = Noted()
    done = quick(linear(), samples(70), recipe=recipe, epochs=1, batch=70, validation=0)
    assert len(recipe.seen) == 70
    assert (done.best, done.clean_accuracy, done.robust_accuracy) == (None, None, None)
    assert done.history[0]["clean"] is None


def weights_of(model):
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_best_epoch_or_the_last_one_is_kept(keep, samples, linear, quick, tmp_path):
    settings = {"recipe": Noted(turn=2), "validation": 12, "guard": None, "keep": keep, **FAST}
    done = quick(linear(), samples(), epochs=4, out=tmp_path / "run", **settings)
    scores = [row["robust"] for row in done.history]
    assert max(scores[:2]) > 0.9 > 0.5 > scores[3]
    best = 1 + scores.index(max(scores))
    assert done.best["epoch"] == (best if keep == "best" else 4)
    assert done.robust_accuracy == scores[done.best["epoch"] - 1]
    twin = quick(linear(), samples(), epochs=done.best["epoch"], **settings | {"keep": "last"})
    for found, expected in zip(weights_of(done.model), weights_of(twin.model), strict=True):
        assert torch.equal(found, expected)
    card = saved.card(tmp_path / "run")
    assert card["epoch"] == done.best["epoch"]
    assert card["held_out_accuracy"] == {"clean": done.clean_accuracy, "pgd-10": done.robust_accuracy}
    found = saved.weights(tmp_path / "run")
    assert all(torch.equal(value, found[name]) for name, value in done.model.state_dict().items())


def test_the_guard_stops_a_collapse(samples, linear, quick, tmp_path):
    settings = {"recipe": Noted(turn=3, threat=FAST["threat"]), "validation": 12, "epochs": 7, **FAST}
    done = quick(linear(), samples(), out=tmp_path / "run", keep="last", **settings)
    last = done.history[-1]
    assert 4 <= last["epoch"] < 7
    assert done.best["epoch"] <= 3
    assert done.best["robust"] - last["robust"] > 0.2
    assert "catastrophic overfitting" in done.stopped
    assert f"the network of epoch {done.best['epoch']} is kept" in done.stopped
    assert json.loads((tmp_path / "run" / "train.json").read_text())["results"]["stopped"] == done.stopped
    again = quick(linear(), samples(), out=tmp_path / "run", keep="last", resume=True, **settings)
    assert len(again.history) == len(done.history)
    through = quick(linear(), samples(), guard=None, **settings)
    assert (len(through.history), through.stopped) == (7, "")


def test_what_defends_against_nothing_may_lose_all_robustness(samples, linear, quick):
    done = quick(linear(), samples(), recipe=Noted(turn=3), validation=12, epochs=7, **FAST)
    rates = [row["robust"] for row in done.history]
    assert max(rates) - rates[-1] > 0.2
    assert (len(rates), done.stopped) == (7, "")


def test_the_best_epoch_of_what_defends_against_nothing_has_most_right(samples, linear, quick):
    done = quick(linear(), samples(), recipe=Noted(turn=3), validation=12, epochs=7, **FAST)
    assert done.best["clean"] == max(row["clean"] for row in done.history)


def test_among_equally_robust_epochs_the_best_has_most_right(samples, linear, quick):
    threat = assay.Linf(0.9)  # leaves nothing
    recipe = PGDAT(threat=assay.Linf(0.01), steps=1)
    settings = {"recipe": recipe, "validation": 12, "epochs": 7, **FAST, "threat": threat}
    done = quick(linear(), samples(), **settings)
    assert {row["robust"] for row in done.history} == {0.0}
    assert done.history[0]["clean"] < done.best["clean"] == max(row["clean"] for row in done.history)


def test_patience(samples, linear, quick):
    settings = {"recipe": Noted(turn=2), "validation": 12, "epochs": 9, "guard": None, **FAST}
    done = quick(linear(), samples(), patience=3, **settings)
    assert len(done.history) == done.best["epoch"] + 3
    assert "no better epoch in 3" in done.stopped
    assert len(quick(linear(), samples(), **settings).history) == 9


def test_averaged_weights_are_what_is_measured_and_kept(samples, linear, quick):
    settings = {"recipe": PGDAT(threat=assay.Linf(0.02), steps=1), "validation": 12, "keep": "last", **FAST}
    done = quick(linear(), samples(), average="EMA(decay=0.9)", **settings)
    plain = quick(linear(), samples(), **settings)
    assert not torch.equal(done.model[1].weight, plain.model[1].weight)
    data = Data.of(samples())
    found = measure(done.model, data, (assay.Linf(0.02),), Workers("cpu"), 0)
    assert found.clean > 0.5


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"validation": 72}, "leaves nothing of 72 samples"),
        ({"validation": -1}, "not be negative"),
        ({"validation": 0, "patience": 2}, "patience needs samples to measure on"),
        ({"patience": 0}, "at least 1 epoch"),
        ({"guard": 1.5}, "between 0 and 1"),
        ({"keep": "first"}, "'best' or 'last'"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"epochs": 2.5}, "epochs must be a whole number; got 2.5"),
        ({"batch": "8"}, "batch must be a whole number; got '8'"),
        ({"recipe": PGD(threat=assay.Linf(0.1))}, "recipe must be one of `assay list recipes`.*got PGD"),
        ({"optimizer": torch.optim.SGD}, "optimizer must be one of `assay list optimizers`"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"clip": 0.0}, "clip must be positive"),
        ({"warmup": -1.0}, "warmup must not be negative"),
        ({"epochs": 2, "warmup": 3.0}, "longer than the 2 epochs"),
        ({"precision": "16-mixed"}, "precision must be one of 32-true"),
    ],
)
def test_refused(settings, says, samples, linear, quick):
    with pytest.raises(SettingError, match=says):
        quick(linear(), samples(), **settings)
