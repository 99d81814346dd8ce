"""Attributional robustness of a data set: what is measured, kept, continued and drawn."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import assay
from assay.attacks import PGD
from assay.attribution import Explained, Gradient, Manipulation, SmoothGrad, TopK, heat
from assay.attribution.similarity import centre_shift, kendall_tau, top_k
from assay.attributional.comparison import mean
from assay.attributional.page import render
from assay.attributional.work import Work, moved_at_random
from assay.drawing.heat import heat_map
from assay.errors import InputError, ModelError, SettingError, StoreError, ThreatError
from assay.rng import derive

THREAT = assay.Linf(0.1)
QUICK = {"attack": PGD(threat=THREAT, steps=5), "limit": 40, "batch": 16}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return assay.attribute("digits-mlp", "digits", **QUICK, out=tmp_path_factory.mktemp("runs") / "a")


def test_the_numbers_are_those_of_the_attack(found):
    """Held against one call of the attack on all samples at once."""
    model = assay.load_model("digits-mlp")
    x, y, index = assay.load_data("digits", limit=40).batch(0, 40)
    right = model(x).argmax(1) == y
    x, y, index = x[right], y[right], index[right]
    goal = Explained.of(model, x, y, index=index)
    result = QUICK["attack"](model, x, goal, seed=derive(0, "search"), index=index)
    after = heat(Gradient()(model, result.x_adv, y))
    metrics = found.results["metrics"]
    assert (found.results["samples"], found.results["right"]) == (40, len(x))
    for key, wanted in (("top_k", top_k), ("kendall", kendall_tau), ("centre", centre_shift)):
        assert metrics[key]["attack"]["value"] == pytest.approx(float(wanted(goal.before, after).mean()), abs=1e-6)
    assert found.results["changed"] == pytest.approx(float(result.success.double().mean()))
    assert found.results["forwards"] == pytest.approx(float(result.forwards.double().mean()))
    random = moved_at_random(THREAT, x, derive(0, "random"), index)
    held = model(random).argmax(1) == y
    other = top_k(goal.before, heat(Gradient()(model, random, y)))[held]
    assert metrics["top_k"]["random"]["value"] == pytest.approx(float(other.mean()), abs=1e-6)
    assert metrics["top_k"]["random"]["samples"] == int(held.sum())


def test_the_attack_does_more_than_a_random_move_of_the_same_size(found):
    results = found.results
    assert results["kept"] == 1.0
    assert results["metrics"]["top_k"]["attack"]["high"] < results["metrics"]["top_k"]["random"]["low"]


@pytest.mark.parametrize("threat", [THREAT, assay.L2(0.5), assay.L1(3.0)], ids=repr)
def test_random_moves_are_as_large_as_the_threat_allows(threat):
    x = torch.full((4, 1, 8, 8), 0.5)
    index = torch.arange(4)
    moved = moved_at_random(threat, x, 3, index)
    torch.testing.assert_close(threat.size(x, moved - x), threat.budget(x), rtol=1e-4, atol=0)
    assert torch.equal(moved_at_random(threat, x[2:], 3, index[2:]), moved[2:])
    assert not torch.equal(moved_at_random(threat, x, 4, index), moved)


def test_results_do_not_depend_on_the_parts(found):
    other = assay.attribute("digits-mlp", "digits", **QUICK | {"batch": 7})
    assert other.path is None
    for key, row in found.results["metrics"].items():
        for column, each in row.items():
            assert other.results["metrics"][key][column]["value"] == pytest.approx(each["value"], abs=1e-9)


def test_a_run_that_was_stopped_goes_on_where_it_was(found, tmp_path, monkeypatch):
    def stop(done, total, results):
        if done >= 32:
            raise KeyboardInterrupt

    arguments = {**QUICK, "out": tmp_path / "b"}
    with pytest.raises(KeyboardInterrupt):
        assay.attribute("digits-mlp", "digits", **arguments, step=stop)
    run = json.loads((tmp_path / "b" / "run.json").read_text())
    assert (run["state"], run["results"]["samples"]) == ("interrupted", 32)
    assert "Unfinished" in render(tmp_path / "b").read_text()
    begun, part = [], Work.part
    monkeypatch.setattr(Work, "part", lambda self, start, stop: begun.append(start) or part(self, start, stop))
    again = assay.attribute("digits-mlp", "digits", **arguments, resume=True)
    assert begun == [32]
    assert again.results == found.results


def test_a_damaged_part_is_computed_again(found, tmp_path):
    arguments = {**QUICK, "out": tmp_path / "c"}
    assay.attribute("digits-mlp", "digits", **arguments)
    file = tmp_path / "c" / "shards" / "00000016.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert assay.attribute("digits-mlp", "digits", **arguments, resume=True).results == found.results


def test_what_is_there_is_not_overwritten(found):
    with pytest.raises(StoreError, match="--resume"):
        assay.attribute("digits-mlp", "digits", **QUICK, out=found.path)
    with pytest.raises(StoreError, match="seed: 0 -> 1"):
        assay.attribute("digits-mlp", "digits", **QUICK, out=found.path, resume=True, seed=1)


def test_the_page_shows_images_maps_and_the_table(found):
    page = (found.path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 5 * 12
    for words in ("top-k intersection", "SSIM", "map of a random move", f"{found.results['right']} of 40"):
        assert words in page
    assert f"{found.results['metrics']['top_k']['attack']['value']:.3f}" in page


def test_noise_that_the_search_saw_does_not_measure():
    """SmoothGrad's maps are measured with other draws than those that were attacked: an own number, a little higher."""
    search = {**QUICK, "attribution": SmoothGrad(draws=1, std=0.3), "limit": 20}
    model = assay.load_model("digits-mlp")
    x, y, index = assay.load_data("digits", limit=20).batch(0, 20)
    goal = Explained.of(model, x, y, index=index, attribution=search["attribution"])
    seen = 1 - QUICK["attack"](model, x, goal, seed=derive(0, "search"), index=index).worth.clamp_min(0).mean()
    assert assay.attribute("digits-mlp", "digits", **search).results["metrics"]["top_k"]["attack"]["value"] > float(
        seen
    )


def test_masks_say_where_maps_should_lie():
    masks = torch.zeros(40, 8, 8, dtype=torch.bool)
    masks[:, :, :4] = True
    row = assay.attribute("digits-mlp", "digits", **QUICK, masks=masks).results["metrics"]["inside"]
    model = assay.load_model("digits-mlp")
    x, y, _ = assay.load_data("digits", limit=40).batch(0, 40)
    right = model(x).argmax(1) == y
    share = heat(Gradient()(model, x[right], y[right]))[:, :, :4].sum((1, 2)).mean()
    assert row["before"]["value"] == pytest.approx(float(share), abs=1e-6)
    assert set(row) == {"before", "attack", "random"}


def test_a_run_does_not_go_on_with_other_masks(tmp_path):
    masks = torch.ones(40, 8, 8, dtype=torch.bool)
    assay.attribute("digits-mlp", "digits", **QUICK, masks=masks, out=tmp_path / "m")
    masks[3, 2] = False
    with pytest.raises(StoreError, match="masks"):
        assay.attribute("digits-mlp", "digits", **QUICK, masks=masks, out=tmp_path / "m", resume=True)


def test_a_manipulation_leads_to_the_map_of_the_next_sample():
    found = assay.attribute("digits-mlp", "digits", **QUICK | {"change": Manipulation(), "batch": 40}).results
    parts = assay.attribute("digits-mlp", "digits", **QUICK | {"change": "manipulation", "batch": 13}).results
    value = found["metrics"]["kendall"]["attack"]["value"]
    assert parts["metrics"]["kendall"]["attack"]["value"] == pytest.approx(value, abs=1e-9)
    assert found["changed"] > 0.5


def test_vectors_have_no_ssim_and_wrong_decisions_no_explanation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.rand(12, 6)
    decided = model(x).argmax(1)
    found = assay.attribute(model, (x, decided), threat=THREAT, change=TopK(k=2)).results
    assert "ssim" not in found["metrics"]
    assert found["right"] == 12
    none = assay.attribute(model, (x, (decided + 1) % 3), threat=THREAT).results
    assert (none["right"], none["metrics"]) == (0, {})


def test_a_mean_is_of_what_is_defined():
    assert mean(torch.tensor([float("nan")])) is None
    one = mean(torch.tensor([2.0, float("nan")]))
    assert (one.value, one.low, one.samples) == (2.0, None, 1)
    many = mean(torch.arange(101.0))
    assert many.high - many.value == pytest.approx(1.96 * 29.3 / 101**0.5, rel=1e-2)


def test_maps_are_drawn_darker_where_more_counts():
    drawn = heat_map(torch.linspace(0, 1, 50).reshape(1, 50))
    light = [sum(drawn.getpixel((i, 0))) for i in range(50)]
    assert light == sorted(light, reverse=True)
    assert light[0] > 700 > 100 > light[-1]
    with pytest.raises(InputError, match="cannot be drawn"):
        heat_map(torch.rand(2, 2, 2))


def test_what_cannot_be_used_is_refused():
    with pytest.raises(SettingError, match="threat"):
        assay.attribute("digits-mlp", "digits")
    with pytest.raises(ThreatError, match="budget"):
        assay.attribute("digits-mlp", "digits", threat="linf")
    with pytest.raises(ThreatError, match=r"moves under Linf\(0\.1\), and the threat is Linf\(0\.3\)"):
        assay.attribute("digits-mlp", "digits", threat="linf:0.3", attack=QUICK["attack"])
    with pytest.raises(ModelError, match="random numbers"):
        assay.attribute("Defended('digits-mlp', InputNoise(0.1))", "digits", threat=THREAT)
    with pytest.raises(SettingError, match="batch"):
        assay.attribute("digits-mlp", "digits", threat=THREAT, batch=0)
    with pytest.raises(InputError, match="3 masks for 10"):
        assay.attribute("digits-mlp", "digits", threat=THREAT, limit=10, masks=torch.ones(3, 8, 8).bool())
    with pytest.raises(InputError, match="masks"):
        assay.attribute("digits-mlp", "digits", threat=THREAT, limit=4, masks=torch.ones(4, 3, 3).bool())
