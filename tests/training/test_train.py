"""``assay.train``: what can be given, and what comes back."""

from __future__ import annotations

import csv
import json

import pytest
import torch
from torch import nn

import assay
from assay import train
from assay.errors import AssayError, DataError, GrammarError, ModelError, SettingError, StoreError
from assay.models import load_model, saved
from assay.training import Training
from assay.training.augmentation import Crop, Flip
from assay.training.averaging import EMA
from assay.training.optimizers import SGD
from assay.training.recipes import PGDAT
from assay.training.schedules import Cosine

DIGITS = {"data": "digits", "limit": 100, "epochs": 2, "batch": 16, "progress": False}


def equal(one, other):
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def test_a_module_is_trained_in_place(samples, network, quick):
    model, before = network(), network()
    done = quick(model, samples())
    assert isinstance(done, Training)
    assert done.model is model
    assert not equal(model, before)
    assert not any(module.training for module in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert (done.path, done.stopped, len(done.history)) == (None, "", 2)


def test_adversarial_training_makes_a_network_robust():
    settings = DIGITS | {"limit": None, "batch": 64, "epochs": 6, "threat": "linf:0.1", "optimizer": "AdamW(lr=0.01)"}
    plain = train("DigitsMLP()", recipe="standard", **settings)
    robust = train("DigitsMLP()", recipe="pgdat:steps=5", **settings)
    assert plain.clean_accuracy > 0.85
    assert robust.clean_accuracy > 0.75
    assert robust.robust_accuracy > plain.robust_accuracy + 0.1
    assert robust.history[-1]["robust"] > robust.history[0]["robust"]


def test_the_seed_decides(samples, quick):
    one, same, other = (train("DigitsMLP()", recipe="standard", seed=seed, **DIGITS).model for seed in (3, 3, 4))
    assert equal(one, same)
    assert not equal(one, other)


def test_parts_as_text_and_as_objects(samples, network, quick):
    text = {
        "recipe": "PGDAT(steps=2)",
        "threat": "linf:0.1",
        "optimizer": "SGD(lr=0.05)",
        "schedule": "cosine",
        "average": "EMA(decay=0.9)",
        "augment": ["flip", "Crop(padding=1)"],
    }
    objects = {
        "recipe": PGDAT(threat=assay.Linf(0.1), steps=2),
        "threat": assay.Linf(0.1),
        "optimizer": SGD(lr=0.05),
        "schedule": Cosine(),
        "average": EMA(decay=0.9),
        "augment": [Flip(), Crop(padding=1)],
    }
    one, other = (quick(network(), samples(), **settings) for settings in (text, objects))
    assert equal(one.model, other.model)


def test_lazy_data_and_tensors_give_the_same_network(samples, network, quick):
    class Lazy:
        def __init__(self, x, y):
            self.x, self.y = x, y

        def __len__(self):
            return len(self.x)

        def __getitem__(self, place):
            return self.x[place], int(self.y[place])

    settings = {"recipe": PGDAT(threat=assay.Linf(0.1), steps=1), "augment": [Flip()], "epochs": 1}
    one, other = (quick(network(), data, **settings) for data in (samples(), Lazy(*samples())))
    assert equal(one.model, other.model)


def test_extra_data(samples, network, quick):
    plain = quick(network(), samples())
    mixed = quick(network(), samples(), extra=samples(30, seed=8), extra_share=0.25)
    assert mixed.history[-1]["step"] == 2 * (65 // 12)
    assert not equal(plain.model, mixed.model)


def test_the_folder(samples, tmp_path):
    out = tmp_path / "run"
    done = train("DigitsMLP(hidden=8)", recipe="pgdat", threat="linf:0.1", out=str(out), **DIGITS)
    assert done.path == out
    names = {path.name for path in out.iterdir()}
    assert {"train.json", "metrics.csv", "checkpoint.pt", "model.json", "model.safetensors"} <= names
    run = json.loads((out / "train.json").read_text())
    assert run["state"] == "done"
    assert run["results"]["best"] == done.best
    assert (run["settings"]["model"], run["settings"]["parameters"]) == ("DigitsMLP(hidden=8)", 65 * 8 + 90)
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in done.history]
    card = saved.card(out)
    assert card["recipe"].startswith("AdversarialTraining(")
    assert (card["data"], card["threat"]) == ("digits", "Linf(0.1)")
    assert card["held_out_accuracy"]["pgd-10"] == done.robust_accuracy
    assert equal(done.model, load_model(str(out)))


def test_training_goes_on_from_a_model(tmp_path):
    slow = {"recipe": "standard", "optimizer": SGD(lr=1e-9, momentum=0.0, weight_decay=0.0)} | DIGITS
    shipped = load_model("digits-mlp")
    again = train("digits-mlp", out=tmp_path / "a", **slow)
    assert again.clean_accuracy > 0.7
    for p, q in zip(again.model.parameters(), shipped.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)
    further = train(str(tmp_path / "a"), out=tmp_path / "b", **slow)
    for p, q in zip(further.model.parameters(), shipped.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-6)
    assert load_model(str(tmp_path / "b"))(torch.zeros(1, 1, 8, 8)).shape == (1, 10)
    moved = train(str(tmp_path / "a"), recipe="standard", **DIGITS)
    assert not torch.allclose(moved.model.head.weight, shipped.head.weight, atol=1e-4)


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_a_teacher_that_is_named_answers_in_the_precision_of_the_run(precision):
    settings = DIGITS | {"epochs": 1, "precision": precision}
    done = train("DigitsMLP()", recipe="Distillation(teacher='digits-mlp', temperature=2)", **settings)
    assert done.history[0]["loss"] > 0


def test_a_teacher_that_does_not_fit_is_named(samples, network, quick):
    with pytest.raises(ModelError, match="the network digits-mlp cannot take the data"):
        quick(network(), samples(), recipe="Distillation(teacher='digits-mlp')")
    few = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    x, y = torch.rand(32, 1, 8, 8), torch.arange(32) % 3
    with pytest.raises(SettingError, match="teacher digits-mlp answers for 10 classes, the network for 3"):
        quick(few, (x, y), recipe="Distillation(teacher='digits-mlp')")


def test_a_teacher_is_trained_first_and_taken_up_again(samples, network, quick, tmp_path):
    settings = {"recipe": "distillation", "epochs": 2}
    out = tmp_path / "run"
    done = quick(network(), samples(), out=out, **settings)
    assert json.loads((out / "teacher" / "train.json").read_text())["state"] == "done"
    again = quick(network(), samples(), out=out, resume=True, **settings)
    assert equal(done.model, again.model)


def test_it_tells_how_it_goes(samples, network, quick, capsys):
    quick(network(), samples(), progress=True, optimizer="AdamW(lr=0.05)")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.split()[0] for line in shown.err.splitlines()] == ["epoch", "1/2", "2/2"]
    quick(network(), samples())
    assert capsys.readouterr() == ("", "")


def test_an_eps_of_another_unit_is_told_first(samples, network, quick, capsys):
    quick(network(), samples(), progress=True, threat="linf:8", epochs=1)
    said = " ".join(capsys.readouterr().err.split())
    assert said.startswith("warning: eps 8 lets every input value take any other between 0 and 1. Give eps in the unit")


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"model": "Nothing()"}, AssayError, "Nothing"),
        ({"model": "DigitMLP()"}, ModelError, "no network named 'DigitMLP'. Did you mean 'DigitsMLP'"),
        ({"model": "digit-mlp"}, ModelError, "no network named 'digit-mlp'.*'digits-mlp'"),
        ({"model": nn.Linear(3, 10)}, ModelError, "Linear cannot take the data 'digits'"),
        ({"data": "digitz"}, DataError, "digits"),
        ({"recipe": "pgdat"}, AssayError, "threat"),
        ({"recipe": "pgtat", "threat": "linf:0.1"}, GrammarError, "PGDAT"),
        ({"optimizer": "SGD(lr=-1)"}, GrammarError, "lr of SGD must be a number in"),
        ({"optimizer": "cosine"}, GrammarError, "expected an optimizer, found Cosine"),
        ({"schedule": "SGD()"}, GrammarError, "expected a schedule, found SGD"),
        ({"device": "tpu"}, SettingError, "device must be 'cpu', 'cuda' or one card, such as 'cuda:1'; got 'tpu'"),
        ({"device": "cuda:99"}, SettingError, "there is no device 'cuda:99'"),
    ],
)
def test_refused(settings, error, says):
    with pytest.raises(error, match=says):
        train(**{"model": "DigitsMLP()", "recipe": "standard"} | DIGITS | settings)


def test_a_run_is_not_replaced_unasked(samples, network, quick, tmp_path):
    done = quick(network(), samples(), out=tmp_path)
    with pytest.raises(StoreError, match="--resume"):
        quick(network(), samples(), out=tmp_path)
    assert len(quick(network(), samples(), out=tmp_path, epochs=1, overwrite=True).history) == 1
    assert len(done.history) == 2
