"""The page of a training run: its numbers, its drawing, and what it says of runs that ended in other ways."""

from __future__ import annotations

import json
import re

import pytest
import torch
from torch import nn

import assay
from assay.cli.main import main
from assay.errors import StoreError
from assay.evaluation.report.lines import Series, plot
from assay.training.folder import read_metrics
from assay.training.report import render
from assay.training.report.charts import charts
from assay.training.report.text import command

SPACE = "\N{NO-BREAK SPACE}"


def history(*rows):
    return [
        {"epoch": k + 1, "step": k, "lr": 0.1, "loss": loss, "clean": clean, "robust": robust,
         "quality": None, "images_per_second": 5.0, "seconds": 2.0}
        for k, (loss, clean, robust) in enumerate(rows)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "t"
    x, y = torch.rand(120, 4), torch.arange(120) % 2
    torch.manual_seed(0)
    assay.train(
        nn.Linear(4, 2), (x, y), recipe="fgsmat", threat="linf:0.01", epochs=3, batch=20, out=folder, progress=False,
        clip=1.0, guard=None, average="ema", augment=["Mixup()"], validation=20, label_smoothing=0.1,
    )  # fmt: skip
    return folder


def test_lines_lie_where_their_numbers_say():
    found = plot([Series(name="a", points=[(1, 0.0), (3, 0.5), (5, 1.0)])], axis="x", width=340, height=200)
    assert found.lines[0].points == f"54.0,154.0 {(54 + 312) / 2},84.0 312.0,14.0"
    assert [label for _, label in found.levels] == ["0", "25", "50", "75", f"100{SPACE}%"]


def test_a_free_scale_begins_at_zero_and_ends_above_the_largest():
    found = plot([Series(name="a", points=[(1, 2.4), (2, 1.2)])], axis="x", width=340, height=200, shares=False)
    assert [label for _, label in found.levels] == ["0", "1", "2", "3", "4"]
    assert [float(p.split(",")[1]) for p in found.lines[0].points.split()] == [154 - 140 * 0.6, 154 - 140 * 0.3]


def test_a_logarithmic_axis_puts_equal_factors_at_equal_distances():
    series = [Series(name="a", points=[(100, 0.1), (1000, 0.2), (10000, 0.3)])]
    found = plot(series, axis="x", width=340, height=200, decades=True)
    left, middle, right = (tick.at for tick in found.ticks)
    assert middle - left == pytest.approx(right - middle)
    assert [tick.text for tick in found.ticks] == ["100", "1,000", "10,000"]


def test_the_kept_epoch_is_marked_and_what_was_not_measured_is_not_drawn():
    found = charts(history((2.0, 0.5, 0.4), (1.0, 0.7, 0.3), (0.5, 0.8, 0.2)), 1)
    assert [chart.name for chart in found][1:] == ["Loss", "Learning rate", "Images a second"]
    assert found[0].wide.mark.at == found[0].wide.left
    assert [name for _, name in found[0].keys] == ["clean", "under PGD-10"]
    assert [name for _, name in charts(history((2.0, 0.5, None)), 1)[0].keys] == ["clean"]
    assert len(charts(history((2.0, None, None)), None)) == 3
    assert charts([], None) == []


def test_a_run_leaves_its_page_with_its_numbers(run):
    page = (run / "report.html").read_text(encoding="utf-8")
    record = json.loads((run / "train.json").read_text(encoding="utf-8"))
    best = record["results"]["best"]
    assert f"{100 * best['clean']:.1f}{SPACE}%" in page
    assert f"The network of epoch {best['epoch']} is right" in page
    assert len(re.findall("<polyline", page)) == 2 * 2 + 3
    assert len(re.findall('<tr( class="kept")?><td class="num">', page)) == 3
    embedded = re.search(r'id="assay-training">(.*?)</script>', page, re.DOTALL)
    assert json.loads(embedded[1]) == record
    assert "http:" not in re.sub(r"<script.*", "", page, flags=re.DOTALL)


def test_metrics_come_back_as_they_were_written(run):
    rows = read_metrics(run)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert rows[-1] == json.loads((run / "train.json").read_text(encoding="utf-8"))["results"]["last"]


def test_the_command_on_the_page_names_what_is_not_usual(run):
    settings = json.loads((run / "train.json").read_text(encoding="utf-8"))["settings"]
    text = command(settings).replace(" \\\n   ", "")
    for part in ("--clip 1.0", "--no-guard", "--average 'EMA(decay=0.998)'", "--augment 'Mixup(alpha=1.0)'",
                 "--epochs 3", "--batch 20", "--validation 20", "--label-smoothing 0.1", "--limit 120"):  # fmt: skip
        assert part in text
    assert command(settings, 2).endswith("--devices 2 \\\n    --out runs/again")
    for usual in ("--devices", "--optimizer", "--schedule", "--seed", "--keep", "--compile", "--extra"):
        assert usual not in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"state": "failed", "error": "the loss became nan"}, "the loss became nan"),
        ({"state": "interrupted"}, "Continue with --resume"),
        ({"state": "running"}, "in progress, or was killed: 3 of 3 epochs are done"),
    ],
)
def test_a_run_that_is_not_done_says_so(run, tmp_path, change, said):
    record = json.loads((run / "train.json").read_text(encoding="utf-8"))
    del record["results"]
    (tmp_path / "train.json").write_text(json.dumps(record | change), encoding="utf-8")
    (tmp_path / "metrics.csv").write_bytes((run / "metrics.csv").read_bytes())
    assert said in render(tmp_path).read_text(encoding="utf-8")
    (tmp_path / "metrics.csv").unlink()
    assert "once the first epoch is done" in render(tmp_path).read_text(encoding="utf-8")
    (tmp_path / "metrics.csv").write_text("epoch,step\nx,1\n", encoding="utf-8")
    with pytest.raises(StoreError, match=r"metrics\.csv cannot be read"):
        render(tmp_path)


def test_names_of_data_and_networks_cannot_write_into_the_page(run, tmp_path):
    record = json.loads((run / "train.json").read_text(encoding="utf-8"))
    record["settings"]["data"] = "<script>alert(1)</script>"
    (tmp_path / "train.json").write_text(json.dumps(record), encoding="utf-8")
    assert "<script>alert" not in render(tmp_path).read_text(encoding="utf-8")


def test_assay_report_renders_training_folders(run, capsys):
    (run / "report.html").unlink()
    assert main(["report", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["report"].endswith("report.html")
    assert (run / "report.html").exists()
