"""A defense shown twice: what attacks leave that do not know of it, and what those leave that do."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import assay
from assay.defenses import BitDepth, Defense, InputDefense, InputNoise, with_rejection
from assay.errors import ModelError, SettingError
from assay.evaluation import Store
from assay.evaluation.defended import bare
from assay.evaluation.report.summary import command
from assay.testing.problems import Affine

PROBLEM = Affine(shape=(1, 3, 3), classes=2, boxed=False)
ATTACK = [("pgd", assay.attacks.PGD(threat=assay.Linf(0.1), steps=10))]


class Masked(InputDefense):
    """Changes nothing, and lets no gradient through: what it claims is all that it does."""

    differentiable = False
    gradient = "straight-through"

    def __init__(self):
        super().__init__()
        self.seen = []

    def transform(self, x):
        self.seen.append((len(x), x.requires_grad))
        return x


class Flipped(InputDefense):
    """The network was trained on negatives: attacks that do not know of it go the wrong way."""

    def transform(self, x):
        return 1 - x


class Picky(Defense):
    """Rejects inputs whose first pixel is not near a half."""

    rejects = True

    def forward(self, model, x):
        return with_rejection(model(x), 100 * ((x[:, 0, 0, 0] - 0.5).abs() - 0.03))


class Negatives(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = PROBLEM.model()

    def forward(self, x):
        return self.network(1 - x)


def data(n=24):
    x, _ = PROBLEM.inputs(n)
    x = 0.5 + 0.4 * (x - 0.5)
    x[:, 0, 0, 0] = 0.5
    return x, PROBLEM.model()(x).argmax(dim=1)


def shown(model, defense, **options):
    return assay.evaluate(
        model, data(), threat=assay.Linf(0.1), suite=ATTACK, defense=defense, progress=False, **options
    )


def fates(found):
    return found.results["defense"]["claimed"]["correct"], found.results["defense"]["stands"]["correct"]


def exact():
    x, y = data()
    return int((PROBLEM.distance(x, y, "linf") > 0.1).sum())


def test_attacks_that_know_leave_what_can_be_left():
    found = shown(Negatives(), Flipped())
    claimed, stands = fates(found)
    assert found.clean_accuracy == 1
    assert stands == exact() < claimed == 24
    assert "claimed 100.0%, stands at" in found.table()


def test_a_defense_that_does_nothing_claims_nothing():
    assert fates(shown(PROBLEM.model(), Masked())) == (exact(), exact())


def test_attacks_that_do_not_know_never_ask_the_defense():
    defense = Masked()
    found = shown(PROBLEM.model(), defense)
    oblivious, adaptive = found.results["stages"]
    assert [stage["name"] for stage in found.results["stages"]] == ["oblivious-pgd", "adaptive-pgd"]
    assert oblivious["forwards"] == oblivious["asked"] == 24  # the last move of each sample is judged, and no more
    assert oblivious["backwards"] == 0
    assert adaptive["asked"] == 24 - oblivious["broken"]
    assert adaptive["backwards"] > 0
    wanted = sum(n for n, wants in defense.seen if wants)
    assert wanted <= adaptive["backwards"] + 2 * 24  # two gradients of each sample are looked at before


def test_the_run_is_written_down_and_goes_on(tmp_path):
    options = {"threat": "linf:0.1", "suite": ATTACK, "limit": 60, "progress": False, "chunk": 20}
    whole = assay.evaluate("digits-mlp", "digits", defense="BitDepth(bits=2)", out=tmp_path / "a", **options)
    run = json.loads((tmp_path / "a" / "run.json").read_text())
    assert run["settings"]["model"] == "Defended('digits-mlp', BitDepth(bits=2))"
    assert [stage["mode"] for stage in run["settings"]["suite"]["stages"]] == ["oblivious", "adaptive"]
    assert run["results"]["defense"] == whole.results["defense"]
    repeated = " ".join(command(run["settings"]).split())
    assert "evaluate digits-mlp \\ --defense 'BitDepth(bits=2)'" in repeated
    assert repeated.count("--attack") == 1
    store = Store.open(tmp_path / "a")
    for stage in ("oblivious-pgd", "adaptive-pgd"):
        store.shard_path(stage, 20).unlink()
    again = assay.evaluate(
        "digits-mlp", "digits", defense="BitDepth(bits=2)", out=tmp_path / "a", resume=True, **options
    )
    assert again.results["defense"] == whole.results["defense"]
    assert "stands at" in (tmp_path / "a" / "report.html").read_text()
    plain = assay.evaluate(assay.load_model(run["settings"]["model"]), "digits", **options)
    assert plain.robust_accuracy >= whole.robust_accuracy  # the same adaptive attack, without the oblivious one before


def test_random_defenses_are_asked_about_draws_that_do_not_depend_on_chunks():
    found = [shown(PROBLEM.model(), InputNoise(0.05), chunk=chunk) for chunk in (24, 7)]
    assert fates(found[0]) == fates(found[1])
    assert torch.equal(found[0].distances, found[1].distances)
    stages = found[0].store.run["settings"]["suite"]["stages"]
    assert {stage["eot"] for stage in stages} == {"EOT(draws=20)"}
    assert "random-output" not in {flag.code for flag in found[0].flags}
    assert found[0].results["stages"][0]["forwards"] >= 24 * 40  # clean inputs and moves, 20 draws of each


def test_rejected_inputs_are_counted_both_ways():
    found = shown(PROBLEM.model(), Picky())
    numbers = found.results["defense"]
    assert [s["mode"] for s in found.store.run["settings"]["suite"]["stages"]] == ["oblivious", "adaptive", "rejected"]
    assert numbers["claimed"]["correct"] > numbers["stands"]["correct"] > 0
    assert numbers["rejected_lost"]["correct"] == 0  # the first pixel alone makes every input rejected
    assert numbers["clean_rejected"] == 0
    assert found.store.run["settings"]["rejected"] == 2
    assert "where rejected inputs count as lost" in found.table()


def test_another_model_may_stand_in_for_the_bare_one():
    found = shown(Negatives(), Flipped(), surrogate=PROBLEM.model())
    assert fates(found) == (exact(), exact())  # negatives of negatives: the surrogate is the defended model itself


def test_what_does_not_go_together_is_said():
    with pytest.raises(SettingError, match="eps"):
        assay.evaluate(PROBLEM.model(), data(), threat="linf", defense=BitDepth(), progress=False)
    with pytest.raises(SettingError, match="give the defense"):
        assay.evaluate(PROBLEM.model(), data(), threat="linf:0.1", surrogate="digits-mlp", progress=False)
    with pytest.raises(SettingError, match="total_queries"):
        shown(PROBLEM.model(), BitDepth(), total_queries=100)
    with pytest.raises(ModelError, match="--surrogate"):
        shown(PROBLEM.model(), Flipped(), surrogate=nn.Linear(4, 2))
    assert bare(PROBLEM.model()) is not None
