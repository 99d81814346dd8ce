"""``assay attack`` finds what the library finds, and loses nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import assay as package
from assay import grammar, registry
from assay.cli import search
from assay.errors import ModelError

BASE = ("attack", "digits-mlp", "--data", "digits", "--limit", "60")
PGD = (*BASE, "--attack", "pgd", "--set", "steps=3", "--threat", "linf:0.1")


def test_the_numbers_are_those_of_the_library(assay, tmp_path):
    found = assay(*PGD, "--batch", "7", "--seed", "3", "--save", tmp_path / "adv.npz", "--json")
    assert found.code == 0
    data = package.load_data("digits", limit=60)
    x, y, index = data.batch(0, 60)
    result = package.attacks.PGD(threat=package.Linf(0.1), steps=3)(
        package.load_model("digits-mlp"), x, y, seed=3, index=index
    )
    with np.load(tmp_path / "adv.npz") as saved:
        assert set(saved) == set(search.SAVED)
        for name in ("success", "prediction", "forwards", "backwards"):
            assert (saved[name] == getattr(result, name).numpy()).all(), name
        assert np.allclose(saved["x_adv"], result.x_adv, atol=1e-6)
        assert np.allclose(saved["distance"], result.distance, atol=1e-6)
        assert (saved["x"] == x.numpy()).all()
        assert (saved["y"] == y.numpy()).all()
        assert (saved["index"] == index.numpy()).all()
    document = found.json
    begun = result.distance != 0
    assert document["clean_accuracy"] == pytest.approx(float(begun.double().mean()))
    assert document["accuracy"] == pytest.approx(float((~result.success).double().mean()))
    assert document["succeeded"] == int((result.success & begun).sum()) > 0
    assert document["success_rate"] == document["succeeded"] / document["begun"]
    assert document["forwards"] == pytest.approx(float(result.forwards.double().mean()))
    assert document["attack"] == repr(grammar.parse("PGD(threat=Linf(0.1), steps=3)"))
    assert document["saved"] == str(tmp_path / "adv.npz")


def test_the_table_is_for_people(assay):
    found = assay(*PGD)
    assert (found.code, found.out) == (0, "")
    for row in ("accuracy before", "accuracy after", "success rate", "distance median", "backwards a sample"):
        assert row in found.said


def test_quiet(assay):
    found = assay(*PGD, "--quiet", "--json")
    assert found.err == ""
    assert found.json["samples"] == 60


def test_an_attack_that_does_nothing_reports_nothing(assay):
    found = assay(*BASE, "--attack", "pgd", "--threat", "linf:0", "--json").json
    assert found["succeeded"] == 0
    assert found["accuracy"] == found["clean_accuracy"] > 0.9
    assert found["distance"] == {"median": None, "mean": None}


@pytest.mark.parametrize("rule", ["random", "next", "least-likely", "3"])
def test_targets(rule):
    model, data = package.load_model("digits-mlp"), package.load_data("digits", limit=50)
    attack = package.attacks.PGD(threat=package.Linf(0.5), steps=5)
    columns = search.joined(list(search.search(model, data, attack, goal=rule, batch=20)))
    whole = search.joined(list(search.search(model, data, attack, goal=rule, batch=50)))
    assert torch.equal(columns["prediction"], whole["prediction"])
    y, won = columns["y"], columns["success"]
    reached = columns["prediction"][won]
    assert won.float().mean() > 0.9
    if rule == "next":
        assert torch.equal(reached, (y[won] + 1) % 10)
    elif rule == "3":
        assert not (y == 3).any()
        assert (reached == 3).all()
    elif rule == "least-likely":
        scores = model(columns["x"]).scatter(1, y[:, None], torch.inf)
        assert torch.equal(reached, scores.argmin(dim=1)[won])
    else:
        assert (reached != y[won]).all()
        assert len(reached.unique()) > 5


def test_a_query_budget_is_kept(assay, tmp_path):
    assay(*PGD, "--set", "restarts=3", "--max-queries", "4", "--save", tmp_path / "adv.npz", "-q")
    with np.load(tmp_path / "adv.npz") as saved:
        assert saved["forwards"].max() == 4


@pytest.mark.parametrize("name", registry.names("attack"))
def test_every_attack_runs_by_its_short_form(assay, name):
    settings = {
        "Square": ("queries=20",),
        "Transfer": ("surrogate=digits-mlp",),
        "SimBA": ("steps=200",),
        "ZOO": ("steps=50", "search_steps=3"),
    }
    quick = [part for each in settings.get(name, ()) for part in ("--set", each)]
    budget = {"linf": "0.3", "l2": "3", "l1": "12", "l0": "20", "flow": "0.3", "rotation": "60"}
    threat = registry.get("attack", name).threats[0]
    found = assay(*BASE, "--attack", name.lower(), "--threat", f"{threat}:{budget[threat]}", *quick, "--json")
    assert found.code == 0
    assert found.json["succeeded"] > 0


MISTAKES = [
    ((*BASE, "--attack", "pgd"), 2, "pgd needs a threat"),
    ((*PGD, "--set", "stepz=3"), 2, "Did you mean steps"),
    ((*PGD, "--set", "steps=4"), 2, "given twice"),
    ((*PGD, "--set", "rel_step=a"), 2, "found 'a'"),
    ((*BASE, "--attack", "PGD(threat=Linf(0.1))", "--threat", "linf:0.2"), 2, "is given too"),
    ((*BASE, "--attack", "fgms", "--threat", "linf:0.2"), 2, "Did you mean FGSM"),
    ((*BASE, "--attack", "__import__('os')", "--threat", "linf:0.2"), 2, "unknown name '__import__'"),
    ((*BASE, "--attack", "pgd", "--threat", "linf"), 2, "needs a budget"),
    ((*PGD, "--targeted", "sideways"), 2, "unknown target 'sideways'"),
    ((*PGD, "--targeted", "10"), 2, "there is no class 10"),
    ((*PGD, "--limit", "0"), 2, "limit"),
    ((*PGD, "--save", "adv.txt"), 2, "must end in .npz"),
    (("attack", "digits-mlq", *PGD[2:]), 2, "Did you mean 'digits-mlp'"),
    (("attack", "fashion-cnn", *PGD[2:]), 2, "cannot take the data 'digits'"),
    (("attack", "digits-mlp", "--data", "digit", *PGD[4:]), 2, "no data named 'digit'"),
]


@pytest.mark.parametrize(("arguments", "code", "says"), MISTAKES, ids=[says for *_, says in MISTAKES])
def test_mistakes(refused, arguments, code, says):
    refused(arguments, code, says)


def test_a_file_that_cannot_be_written_is_noticed_before_the_work(assay, tmp_path, monkeypatch, no_work):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(search, "search", no_work)
    found = assay(*PGD, "--save", tmp_path / "file" / "adv.npz")
    assert found.code == 3
    assert "is not a folder. Choose another --save" in found.said


def test_numbers_are_shown_even_when_the_inputs_cannot_be_saved(assay, tmp_path, monkeypatch, full_disk):
    monkeypatch.setattr(search, "save", full_disk)
    found = assay(*PGD, "--save", tmp_path / "adv.npz", "--json")
    assert found.code == 3
    assert "(No space left on device): only the numbers above are left" in found.said
    assert "--resume" not in found.said
    assert found.json["samples"] == 60
    assert found.json["saved"] is None


def test_what_was_done_before_ctrl_c_is_saved_and_summed_up(assay, tmp_path, monkeypatch):
    whole = search.search

    def stopped(*arguments, **settings):
        chunks = whole(*arguments, **settings)
        yield next(chunks)
        yield next(chunks)
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "search", stopped)
    found = assay(*PGD, "--batch", "20", "--save", tmp_path / "adv.npz", "--json")
    assert found.code == 130
    assert "Stopped after 40 of 60 samples" in found.said
    assert found.json["interrupted"] is True
    assert found.json["samples"] == 40
    with np.load(tmp_path / "adv.npz") as saved:
        assert len(saved["y"]) == 40


def test_what_was_done_before_a_server_fell_is_saved_and_summed_up(assay, tmp_path, monkeypatch):
    whole = search.search

    def broken(*arguments, **settings):
        yield next(whole(*arguments, **settings))
        raise ModelError("the server gave no answer in 6 tries.")

    monkeypatch.setattr(search, "search", broken)
    found = assay(*PGD, "--batch", "20", "--save", tmp_path / "adv.npz", "--json")
    assert found.code == 3
    assert "Stopped after 20 of 60 samples" in found.said
    assert "no answer in 6 tries" in found.said
    assert (found.json["samples"], found.json["interrupted"]) == (20, False)
    with np.load(tmp_path / "adv.npz") as saved:
        assert len(saved["y"]) == 20


def test_ctrl_c_before_anything_was_done(assay, monkeypatch, stopped_at_once):
    monkeypatch.setattr(search, "search", stopped_at_once)
    found = assay(*PGD, "--json")
    assert (found.code, found.out) == (130, "")
    assert "before the first chunk" in found.said


def test_a_model_that_breaks_during_the_run_ends_with_3(assay, tmp_path, monkeypatch):
    (tmp_path / "broken_model.py").write_text(
        "import torch\n"
        "class Broken(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        z = x.flatten(1)[:, :10]\n"
        "        return z if len(x) == 1 else z * float('nan')\n"
        "def model():\n"
        "    return Broken()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = assay("attack", "broken_model:model", *PGD[2:])
    assert (found.code, found.out) == (3, "")
    assert "NaN" in found.said


def test_cuda_is_not_silently_replaced(assay, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = assay(*PGD, "--device", "cuda")
    assert found.code == 2
    assert "finds no CUDA device" in found.said
    assert assay(*PGD, "--device", "cpu", "-q").code == 0


def test_views_of_the_inputs_can_be_searched_on(assay):
    eot = "EOT(Noise(0.2), draws=4)"
    found = assay(*PGD, "--eot", eot, "--json").json
    data = package.load_data("digits", limit=60)
    x, y, index = data.batch(0, 60)
    attack = package.attacks.PGD(threat=package.Linf(0.1), steps=3)
    result = attack(package.load_model("digits-mlp"), x, y, index=index, eot=grammar.eot(eot))
    assert found["eot"] == eot
    assert found["forwards"] == pytest.approx(float(result.forwards.double().mean()))
    assert found["accuracy"] == pytest.approx(float((~result.success).double().mean()))
    plain = assay(*PGD, "--json").json
    assert plain["eot"] is None
    assert plain["forwards"] < found["forwards"] / 3
    assert assay(*PGD, "--eot", "Noise(0.2)", "--limit", "5", "--json").json["eot"] == "EOT(Noise(0.2), draws=10)"
    refused = assay(*PGD, "--eot", "Linf(0.2)")
    assert refused.code == 2
    assert "write random views as EOT(Rotate(20)" in refused.said
