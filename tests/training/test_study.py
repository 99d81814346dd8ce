"""The trade-off study: which networks it trains, on what, what it writes, and that a stopped one goes on."""

from __future__ import annotations

import csv
import functools
import json
import sys
import xml.etree.ElementTree as ElementTree

import pytest
import torch

import assay
from assay import grammar
from assay.cli.main import main
from assay.errors import AssayError, SettingError, StoreError, ThreatError
from assay.training.study import plan as plans
from assay.training.study.page import charts
from assay.training.study.plan import Plan
from assay.training.study.record import row

LINF = assay.Linf(0.1)


@pytest.fixture(scope="module")
def data():
    """Images of two classes that differ in one half, so that a little training tells them apart."""
    draw = torch.Generator().manual_seed(0)
    y = torch.arange(96) % 2
    x = 0.5 + 0.1 * torch.randn(96, 1, 8, 8, generator=draw)
    x[:, :, :4] += 0.3 * (2 * y - 1).view(-1, 1, 1, 1)
    return x.clamp(0, 1), y


SETTINGS = {
    "threat": "linf:0.1", "recipes": ["standard", "fgsmat"], "eps": [0, 0.1], "samples": [16, "all"], "epochs": 2,
    "batch": 32, "optimizer": "AdamW(lr=2e-2)", "progress": False,
}  # fmt: skip


def run(data, out, **settings):
    x, y = data
    return assay.study("DigitsMLP()", (x[:64], y[:64]), test=(x[64:], y[64:]), out=out, **(SETTINGS | settings))


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    return run(data, tmp_path_factory.mktemp("studies") / "s")


def test_networks_that_two_charts_share_are_trained_once():
    plan = Plan(threat=LINF, recipes=("standard", "pgdat", "trades"), eps=(0.1, 0, 0.05), samples=(10, 40), all=40)
    points = [(point.recipe, point.eps, point.samples) for point in plan.points]
    assert len(points) == len(set(points)) == 2 + 2 * 3
    assert [(p.recipe, p.eps) for p in plan.over_eps("trades")] == [("standard", 0), ("trades", 0.05), ("trades", 0.1)]
    assert [(p.eps, p.samples) for p in plan.over_samples("pgdat")] == [(0.1, 10), (0.1, 40)]
    assert [(p.eps, p.samples) for p in plan.over_samples("standard")] == [(0, 10), (0, 40)]
    assert plan.over_eps("pgdat")[1].built(LINF).against == assay.Linf(0.05)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"threat": assay.Linf()}, ThreatError, "budget above 0"),
        ({"eps": (-0.1,)}, SettingError, "not be negative"),
        ({"samples": (50,)}, SettingError, "between 1 and the 40"),
        ({"recipes": ("pgdat", "pgdat")}, SettingError, "once"),
        ({"recipes": ()}, SettingError, "at least one recipe"),
        ({"recipes": ("pgda",)}, AssayError, "PGDAT"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_refused(changes, error, words):
    usual = {"threat": LINF, "recipes": ("pgdat",), "eps": (0, 0.1), "samples": (40,), "all": 40}
    with pytest.raises(error, match=words):
        Plan(**usual | changes)


def test_numbers_of_samples():
    assert plans.shares(None, 8) == (1, 2, 8)
    with pytest.raises(SettingError, match="whole numbers"):
        plans.shares(["half"], 8)


def test_every_network_is_measured_on_the_test_data_and_written(done):
    names = [(row["recipe"], row["eps"], row["samples"]) for row in done.rows]
    assert names == [("standard", 0, 64), ("standard", 0, 16), ("fgsmat", 0.1, 64), ("fgsmat", 0.1, 16)]
    with (done.path / "study.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    for found, line in zip(done.rows, table, strict=True):
        folder = done.path / found["folder"]
        card = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        assert card["evaluation"]["samples"] == 32
        assert card["evaluation"]["robust_accuracy"]["value"] == found["robust_accuracy"]
        assert float(line["robust_accuracy"]) == found["robust_accuracy"]
        assert found["difference"] == pytest.approx(found["adversarial_error"] - found["clean_error"])
        x, y = torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64)
        assert assay.load_model(str(folder))(x).shape == (len(y), 10)
    best = done.rows[2]
    assert best["clean_accuracy"] > 0.9
    assert best["robust_accuracy"] > 0.5


def test_all_take_as_many_steps_and_all_recipes_see_the_same_samples(done):
    records = [json.loads((done.path / row["folder"] / "train.json").read_text(encoding="utf-8")) for row in done.rows]
    taken = [record["settings"]["epochs"] * record["settings"]["samples"] for record in records]
    assert taken == [128] * 4
    assert records[1]["settings"]["data"].endswith(", 16 drawn at random")
    assert len({record["settings"]["data_digest"] for record in records}) == 2


def test_steps_stay_as_many_where_samples_do_not_fill_the_batches(data, tmp_path):
    found = run(data, tmp_path / "s", recipes=["standard"], eps=[0], samples=[40, 64])
    runs = [json.loads((found.path / row["folder"] / "train.json").read_text(encoding="utf-8")) for row in found.rows]
    assert [each["settings"]["epochs"] for each in runs] == [2, 4]
    assert [each["results"]["last"]["step"] for each in runs] == [4, 4]


def test_a_study_that_was_killed_goes_on(data, done, tmp_path, monkeypatch):
    calls = []

    @functools.wraps(assay.train)
    def train(*args, **settings):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(settings["out"])
        return assay.train(*args, **settings)

    monkeypatch.setattr(sys.modules["assay.training.study.study"], "train", train)
    with pytest.raises(KeyboardInterrupt):
        run(data, tmp_path / "s")
    assert len(json.loads((tmp_path / "s" / "study.json").read_text(encoding="utf-8"))["runs"]) == 2
    assert "2 networks still to be trained" in (tmp_path / "s" / "report.html").read_text(encoding="utf-8")
    with pytest.raises(StoreError, match="--resume"):
        run(data, tmp_path / "s")
    with pytest.raises(SettingError, match="epochs"):
        run(data, tmp_path / "s", resume=True, epochs=3)
    calls.clear()
    found = run(data, tmp_path / "s", resume=True)
    assert len(calls) == 2
    assert found.rows == done.rows


def test_lines_go_through_the_networks_of_their_recipe():
    plan = Plan(threat=LINF, recipes=("standard", "pgdat"), eps=(0, 0.1), samples=(10, 40), all=40)

    def made(recipe, eps, samples, clean, robust):
        part = {"low": 0.0, "high": 1.0}
        results = {"clean_accuracy": part | {"value": clean}, "robust_accuracy": part | {"value": robust}}
        return row(recipe, eps, samples, 1, f"{recipe}{eps}{samples}", results)

    rows = [made("standard", 0.0, 40, 0.9, 0.25), made("pgdat", 0.1, 40, 0.8, 0.5), made("pgdat", 0.1, 10, 0.75, 0.0)]
    found = dict(charts(plan, rows))
    error = found["Adversarial error"]
    heights = {
        line.name: [round((error.bottom - y) / (error.bottom - error.top), 3) for _, y in line.dots]
        for line in error.lines
    }
    assert heights == {"standard": [0.75], "pgdat": [1.0, 0.5]}
    frontier = found["Robust over clean accuracy, by training eps"]
    assert {line.name: [text for *_, text in line.texts] for line in frontier.lines} == {
        "standard": ["0"],
        "pgdat": ["0", "0.1"],
    }
    assert charts(plan, []) == []


def test_the_figure_is_an_image_of_its_own_and_the_page_leads_to_each_run(done):
    root = ElementTree.parse(done.path / "study.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(root.findall(".//{*}polyline")) == 4 * 2
    page = (done.path / "report.html").read_text(encoding="utf-8")
    for found in done.rows:
        assert f'href="{found["folder"]}/report.html"' in page
        assert (done.path / found["folder"] / "report.html").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"keep": "best"}, "does not take keep"), ({"colour": 1}, "does not take colour")],
)
def test_settings_that_a_study_makes_itself_are_refused(data, tmp_path, settings, words):
    with pytest.raises(SettingError, match=words):
        run(data, tmp_path / "s", **settings)
    with pytest.raises(SettingError, match="as text"):
        assay.study(torch.nn.Linear(2, 2), data, threat=LINF, out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_folder_of_something_else_is_left_alone(data, tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(StoreError, match="something else"):
        run(data, tmp_path, overwrite=True)


def test_the_command_line(tmp_path, capsys):
    out = tmp_path / "s"
    code = main(
        ["study", "DigitsMLP()", "--data", "digits", "--limit", "150", "--threat", "linf:0.1", "--recipes",
         "FastAT(rel_step=1.0)", "--eps", "1/10", "--samples", "all", "--epochs", "1",
         "--out", str(out), "--json", "--quiet"]
    )  # fmt: skip
    assert code == 0
    (found,) = json.loads(capsys.readouterr().out)["runs"]
    assert (found["recipe"], found["eps"], found["samples"]) == ("FastAT(rel_step=1.0)", 0.1, 120)
    assert grammar.recipe(found["recipe"], LINF)
    (out / "report.html").unlink()
    assert main(["report", str(out)]) == 0
    assert (out / "report.html").exists()
    assert main(["study", "DigitsMLP()", "--data", "digits", "--threat", "linf:0.1", "--eps", "x", "--out", "y"]) == 2
