"""The report of a run without a budget, read back as a program would read it."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from assay.evaluation import smallest
from assay.evaluation.merge import share
from assay.evaluation.report import render
from assay.evaluation.report.curve import draw
from assay.evaluation.report.histogram import histogram
from assay.evaluation.report.source import read
from assay.evaluation.report.threat import facts
from assay.evaluation.schema import Settings, settings_hash
from assay.evaluation.shards import Shard
from assay.evaluation.store import Store

NAMES = ("near", "far")
ENVIRONMENT: Any = {
    "assay": "0", "torch": "0", "numpy": "0", "python": "0", "device": "cpu", "platform": "t", "commit": None,
    "threads": 1,
}  # fmt: skip


def make_run(
    folder: Path, *, samples: int = 90, threat: str = "Linf()", missed: int = 0, whole: bool = False, part: bool = False
) -> Store:
    """Samples of which every ninth is wrong; ``near`` comes nearer to two thirds of the others, ``far`` to the rest."""
    stages: Any = [{"name": name, "attack": f"Attack(threat={threat})"} for name in NAMES]
    settings: Settings = {
        "model": "net", "model_digest": "0", "data": "d", "data_digest": "0", "threat": threat, "goal": "untargeted",
        "suite": {"name": "custom", "version": 0, "stages": stages}, "seed": 0, "limit": None, "samples": samples,
        "chunk": 40, "save_adv": False, "classes": None, "minimal": True,
    }  # fmt: skip
    assert settings_hash(settings) != settings_hash({**settings, "minimal": False})
    store = Store.begin(folder, settings, ENVIRONMENT)
    rng = np.random.default_rng(0)
    label = torch.arange(samples) % 3
    prediction = torch.where(torch.arange(samples) % 9 == 0, (label + 1) % 3, label)
    base = torch.from_numpy(rng.gamma(2.0, 1.0, (2, samples)) * 0.05 * (1 + label.numpy()))
    distance = torch.stack([base[0], base[0] * (1 + 0.5 * ((torch.arange(samples) % 3) - 0.5))])
    if whole:
        distance = (distance * 200).ceil()
    distance[:, 1 : 1 + missed] = torch.inf
    images = torch.from_numpy(rng.random((samples, 1, 6, 6))).float()
    for start, stop in store.chunks:
        rows = torch.arange(start, stop)
        columns = {"index": rows, "label": label[rows], "prediction": prediction[rows]}
        store.write_shard(
            Shard(stage="clean", start=start, stop=stop, columns={**columns, "confidence": torch.ones(len(rows))})
        )
        asked = rows[prediction[rows] == label[rows]]
        for number, name in enumerate(NAMES):
            if part and (start, name) != (0, "near"):
                continue
            own = distance[number][asked]
            hit = own.isfinite()
            kept = asked[hit][:4]
            store.write_shard(
                Shard(
                    stage=name, start=start, stop=stop, seconds=1.5,
                    columns={
                        "index": asked, "label": label[asked], "prediction": prediction[asked], "success": hit,
                        "adv_prediction": torch.where(hit, (label[asked] + 1 + number) % 3, label[asked]),
                        "distance": own, "forwards": torch.full_like(asked, 30),
                        "backwards": torch.full_like(asked, 29),
                    },
                    examples={
                        "example_index": kept, "example_x": images[kept],
                        "example_adv": (images[kept] + 0.1).clamp(0, 1),
                    },
                )
            )  # fmt: skip
    if part:
        return store
    table = store.merge()
    shards = [[store.read_shard(name, start) for start, _ in store.chunks] for name in NAMES]
    store.update(
        state="done",
        seconds=3.0,
        results={
            "samples": samples, "clean_accuracy": share(table.clean_correct), "robust_accuracy": None,
            "stages": smallest.stage_results(stages, shards), "curve": smallest.curve(table.distance),
            "distances": smallest.distances(table.distance[table.clean_correct]), "flags": [],
        },
    )  # fmt: skip
    return store


def text_of(path: Path) -> str:
    source = path.read_text(encoding="utf-8")
    body = re.sub(r"<(style|script|title)\b.*?</\1>", "", source, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", body)).replace("&nbsp;", " ")


def test_the_page_states_the_numbers_of_run_json(tmp_path: Path) -> None:
    store = make_run(tmp_path)
    text = text_of(render(tmp_path))
    results: Any = store.run["results"]
    found = results["distances"]
    numbers = {name: f"{found[name]:.4g}" for name in ("median", "low", "high")}
    assert (
        f"Half of the 80 images that are right at first become wrong within Linf {numbers['median']} (95 % interval "
        f"{numbers['low']} to {numbers['high']}), a quarter within {found['quartiles'][0]:.4g}; clean accuracy 88.9 %."
    ) in text
    assert "Linf, without a budget, untargeted" in text
    source = (tmp_path / "report.html").read_text()
    table = source[source.index('<table class="stack"') :]
    bodies = table[: table.index("</table>")].split("<tbody")[1:]
    for body, stage in zip(bodies, results["stages"], strict=True):
        cells = re.findall(r'<td role="cell" class="num"[^>]*>([^<]*)</td>', body)
        assert [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in cells] == [
            "80", "80", f"{100 * stage['smallest'] / 80:.1f} %", f"{stage['median']:.4g}", "30.0", "29.0", "4.5 s",
        ]  # fmt: skip
    nearest = store.merge().stage.bincount(minlength=3).tolist()
    assert nearest[0] == 10
    assert f"{nearest[1]} nearest by near {nearest[2]} nearest by far 10 wrong before any attack" in text
    match = re.search(r'id="assay-run">(.*?)</script>', source, re.S)
    assert match is not None
    assert json.loads(match[1]) == store.run


def test_the_curve_steps_at_every_distance(tmp_path: Path) -> None:
    curve: Any = make_run(tmp_path).run["results"]["curve"]  # type: ignore[index]
    curve = {name: value[:-2] if isinstance(value, list) else value for name, value in curve.items()}
    drawn = draw(curve, facts("Linf()"), 0.1)
    assert drawn is not None
    assert drawn.wide.mark is not None
    assert drawn.wide.mark.name == "median"
    corners = [tuple(map(float, corner.split(","))) for corner in drawn.wide.line.split()]
    assert len(corners) == 2 * len(drawn.wide.points) - 1
    for (x, y), (next_x, next_y) in itertools.pairwise(corners):
        assert (x == next_x) != (y == next_y) or (x, y) == (next_x, next_y)  # along one axis at a time
    assert drawn.budget is None


def test_a_far_sample_does_not_squeeze_the_chart(tmp_path: Path) -> None:
    distance = torch.cat([torch.linspace(0.01, 1.0, 99), torch.tensor([50.0])]).double()
    drawn = draw(dict(smallest.curve(distance)), facts("L2()"), None)
    assert drawn is not None
    assert drawn.farthest == "50"
    assert 1.8 < drawn.end < 2.1
    assert drawn.wide.points[-1].value.startswith("1.0")
    make_run(tmp_path)
    path = tmp_path / "run.json"
    run = json.loads(path.read_text())
    run["results"]["curve"] = smallest.curve(distance)
    path.write_text(json.dumps(run))
    assert "the largest is 50." in text_of(render(tmp_path))


@pytest.mark.parametrize("whole", [False, True])
def test_every_distance_stands_in_a_column(tmp_path: Path, whole: bool) -> None:
    store = make_run(tmp_path, missed=3, whole=whole, threat="L0()" if whole else "Linf()")
    record = read(tmp_path)
    found = store.merge().distance
    found = found[(found > 0) & found.isfinite()]
    chart = histogram(record, float(found.max()))
    assert chart is not None
    assert (chart.beyond, chart.missed) == (0, 3)
    half = histogram(record, float(found.median()))
    assert half is not None
    assert half.beyond == int((found > found.median()).sum())
    for bars in (chart.wide, chart.narrow):
        counts = [int(column.words.rpartition(": ")[2]) for column in bars.columns]
        assert sum(counts) == len(found)
        tallest = max(bars.columns, key=lambda column: column.height)
        assert int(tallest.words.rpartition(": ")[2]) == max(counts)
        assert all(bars.top - 0.01 <= column.y < bars.bottom for column in bars.columns)
        if whole:
            for column, number in zip(bars.columns, counts, strict=True):
                sizes = [float(end.replace(",", "")) for end in column.words.rpartition(": ")[0].split(" to ")]
                assert number == int(((found >= sizes[0]) & (found <= sizes[-1])).sum())
            assert all("." not in tick.text for tick in bars.ticks)
    text = text_of(render(tmp_path))
    assert "For 3 images none was found." in text
    assert "3 never broken" in text


def test_the_gallery_holds_the_nearest_of_each_sample_and_begins_with_the_nearest_of_all(tmp_path: Path) -> None:
    store = make_run(tmp_path, missed=1)
    text = text_of(render(tmp_path))
    cards = re.findall(r"image (\d+) · distance ([\d.]+) · (\w+)", text)
    table = store.merge()
    place = {int(index): row for row, index in enumerate(table.index)}
    assert len(cards) > 8
    for index, distance, stage in cards:
        row = place[int(index)]
        assert stage == table.stages[int(table.stage[row])]
        assert float(distance) == pytest.approx(float(table.distance[row]), rel=1e-3)
    sizes = [float(distance) for _, distance, _ in cards]
    assert sizes == sorted(sizes)
    assert len({index for index, *_ in cards}) == len(cards)


def test_classes_are_told_by_their_median(tmp_path: Path) -> None:
    table = make_run(tmp_path).merge()
    source = render(tmp_path).read_text()
    part = source[source.index('<table class="classes"') :]
    rows = re.findall(r'row">(\d)</th>.*?class="num">([\d.]+)</td>', part[: part.index("</table>")], re.S)
    assert len(rows) == 3
    for label, median in rows:
        mine = table.distance[(table.label == int(label)) & table.clean_correct]
        assert float(median) == pytest.approx(smallest.median(mine), rel=1e-3)
    assert [float(median) for _, median in rows] == sorted(float(median) for _, median in rows)


def test_a_run_that_found_little_or_nothing(tmp_path: Path) -> None:
    make_run(tmp_path / "little", missed=60)
    assert "that are right at first were broken at any distance, fewer than half" in text_of(
        render(tmp_path / "little")
    )
    make_run(tmp_path / "nothing", missed=89)
    text = text_of(render(tmp_path / "nothing"))
    assert "0 of the 80 samples that are right at first were broken" in text
    assert "from which a curve could be drawn" in text
    assert "Smallest distances" not in text


def test_an_unfinished_run_is_told_from_what_was_attacked(tmp_path: Path) -> None:
    store = make_run(tmp_path, part=True)
    text = text_of(render(tmp_path))
    mine = store.read_shard("near", 0).columns["distance"]
    assert f"So far: Half of the {len(mine)} images" in text
    assert f"within Linf {smallest.median(mine):.4g}" in text
    assert "40 of 90 images have been judged so far. Distances can only fall" in text
    assert f"{len(mine)} nearest by near 5 wrong before any attack" in text
    assert "The curve is drawn once the run is done" in text


def test_rendering_again_gives_the_same_page(tmp_path: Path) -> None:
    make_run(tmp_path)
    first = render(tmp_path).read_bytes()
    assert render(tmp_path).read_bytes() == first
