"""Success over queries in the report: the chart's geometry, the table, and a run that stopped at its total."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import assay
from assay.attacks import FGSM, Square
from assay.evaluation.queries import numbers
from assay.evaluation.report import render
from assay.evaluation.report.queries import query_chart
from assay.evaluation.report.summary import command
from assay.models import ScoresOnly

LINF = assay.Linf(0.05)
DASH = "\N{EN DASH}"


def stage(name: str, spent: list[int], success: list[bool], known: int | None = None) -> dict[str, Any]:
    return {"name": name, "queries": numbers(torch.tensor(spent), torch.tensor(success), known)}


def test_the_line_steps_up_where_samples_fell() -> None:
    found = query_chart([stage("square", [1, 10, 100, 1000], [False, True, True, False])])
    assert found is not None
    plot = found.wide
    places = [tuple(map(float, point.split(","))) for point in plot.lines[0].points.split()]
    third = (plot.right - plot.left) / 3
    across = [plot.left + third * power for power in (0, 1, 1, 2, 2, 3, 3)]
    assert [x for x, _ in places] == pytest.approx(across, abs=0.02)
    tall = plot.bottom - plot.top
    assert [(plot.bottom - y) / tall for _, y in places] == pytest.approx([0, 0, 0.25, 0.25, 0.5, 0.5, 0.5], abs=1e-3)
    assert [tick.text for tick in plot.ticks] == ["1", "10", "100", "1,000"]
    assert found.narrow.width < plot.width


def test_rows_say_what_is_known() -> None:
    found = query_chart([stage("a", [50, 400], [True, False], 500), {"name": "white"}, stage("b", [9], [False])])
    assert found is not None
    assert [(row.name, row.style, row.median, row.mean) for row in found.rows] == [
        ("a", 0, "50.0", "50.0"),
        ("b", 1, DASH, DASH),
    ]
    shares = [share.replace("\N{NO-BREAK SPACE}", " ") for share, _ in found.rows[0].at]
    assert shares == ["50.0 %", DASH, DASH]
    assert query_chart([{"name": "white"}]) is None


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(12, 8, generator=torch.Generator().manual_seed(2))
    return x, network()(x).argmax(dim=1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(8, 4).eval().requires_grad_(False)


def test_the_page_shows_them_for_attacks_without_gradients_only(tmp_path: Path, data: Any) -> None:
    suite = [("fgsm", FGSM(threat=assay.Linf(0.001))), ("square", Square(threat=assay.Linf(0.001), queries=5))]
    options: Any = {"threat": "linf:0.001", "suite": suite, "progress": False}
    found = assay.evaluate(network().requires_grad_(True), data, **options, out=tmp_path / "run", max_queries=50)
    page = (tmp_path / "run" / "report.html").read_text()
    section = page[page.index("Success over queries") :]
    assert section.count('<polyline class="success') == 2  # wide and narrow, of square alone
    row = re.search(r'<line class="success style-0".*?</svg>(\w+)</th>(.*?)</tr>', section)
    assert row is not None
    assert row[1] == "square"
    assert "queries" not in found.results["stages"][0]
    assert "--max-queries 50" in command(json.loads((tmp_path / "run" / "run.json").read_text())["settings"])
    suite = [("fgsm", FGSM(threat=assay.Linf(0.001)))]
    assay.evaluate(network().requires_grad_(True), data, **{**options, "suite": suite}, out=tmp_path / "white")
    assert "Success over queries" not in (tmp_path / "white" / "report.html").read_text()


def test_a_stopped_run_says_so(tmp_path: Path, data: Any) -> None:
    suite = [("square", Square(threat=LINF, queries=50))]
    options: Any = {"threat": LINF, "suite": suite, "progress": False, "out": tmp_path / "run"}
    assay.evaluate(ScoresOnly(network()), data, **options, total_queries=150)
    page = Path(render(tmp_path / "run")).read_text()
    assert "stopped when its total of queries was used up" in page
    assert "queries-spent" in page
