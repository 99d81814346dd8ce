"""The report: rendered from synthetic run directories and read back as a program would read it."""

from __future__ import annotations

import base64
import hashlib
import html
import io
import json
import re
import shlex
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from assay import Linf
from assay.errors import StoreError
from assay.evaluation.report import render
from assay.evaluation.report.summary import command
from assay.evaluation.schema import settings_hash
from assay.evaluation.shards import Shard
from assay.evaluation.stats import wilson
from assay.evaluation.suites import load_suite

VOID = {"br", "hr", "img", "input", "link", "meta", "wbr"}
TIMES = "\N{MULTIPLICATION SIGN}"
FLAG = {
    "code": "gradient-masking",
    "severity": "error",
    "message": "Square broke 31 samples that every gradient attack left standing.",
    "cure": "Look for layers without useful gradients.",
    "link": "https://assay.example/checks/gradient-masking",
}


@dataclass
class Page:
    """A rendered report: its source, its visible text and the tags that it is made of."""

    html: str
    text: str
    tags: list[tuple[str, dict[str, str | None]]]

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        wanted = {name.strip("_"): value for name, value in attributes.items()}
        return [found for name, found in self.tags if name == tag and wanted.items() <= found.items()]


class Reader(HTMLParser):
    """Checks that every tag is closed in order, and collects tags and visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute stands twice in <{tag}>"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"style", "script", "title"} & set(self.open):
            self.words.append(data)


def page(path: Path) -> Page:
    source = path.read_text(encoding="utf-8")
    reader = Reader()
    reader.feed(source)
    reader.close()
    assert reader.open == []
    return Page(source, re.sub(r"\s+", " ", "".join(reader.words)), reader.tags)


def share(correct: int, samples: int) -> dict[str, Any]:
    low, high = wilson(correct, samples)
    value = correct / samples if samples else 0.0
    return {"value": value, "low": low, "high": high, "correct": correct, "samples": samples}


def make_run(
    folder: Path,
    *,
    samples: int = 200,
    classes: int = 10,
    clean: float = 0.86,
    breaks: tuple[float, ...] = (0.15, 0.04, 0.01),
    names: tuple[str, ...] = ("apgd-ce", "apgd-targeted", "square"),
    threat: str = "Linf(0.1)",
    eps: float | None = 0.1,
    shape: tuple[int, ...] = (1, 28, 28),
    bounds: tuple[float, float] = (0.0, 1.0),
    examples: int = 8,
    chunk: int = 64,
    state: str = "done",
    finished_chunks: int | None = None,
    flags: list[dict[str, str]] | None = None,
    model: str = "fashion-cnn-pgd",
    images: np.ndarray[Any, Any] | None = None,
    labels: np.ndarray[Any, Any] | None = None,
    more_settings: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a run directory whose run.json agrees with its shards; returns run.json."""
    rng = np.random.default_rng(7)
    if labels is None:
        labels = rng.integers(0, classes, samples)
    stages = [
        {"name": name, "attack": f"APGD(threat={threat}, loss='ce', steps={10 * (i + 1)})"}
        for i, name in enumerate(names[: len(breaks)])
    ]
    settings: dict[str, Any] = {
        "model": model, "model_digest": "9f2c51aa0e6b77d0", "data": "fashion-mnist", "data_digest": "51c0ffee12345678",
        "threat": threat, "goal": "untargeted", "suite": {"name": "quick", "version": 1, "stages": stages},
        "seed": 0, "limit": samples, "samples": samples, "chunk": chunk, "save_adv": False, "classes": None,
        **(more_settings or {}),
    }  # fmt: skip
    digest = settings_hash(settings)

    def other(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        step = 1 + rng.geometric(0.5, len(rows)) % max(classes - 1, 1)
        return (labels[rows] + step) % classes

    rows = np.arange(samples)
    prediction = labels.copy()
    wrong = rng.random(samples) > clean * (0.6 + 0.4 * np.cos(labels)) ** 0.2
    prediction[wrong] = other(rows[wrong])
    distance = np.full(samples, np.inf)
    distance[wrong] = 0.0
    alive = ~wrong
    broken_by = np.where(wrong, 0, -1)
    adv_prediction = prediction.copy()
    for number, rate in enumerate(breaks, 1):
        hit = alive & (rng.random(samples) < rate * (1 + np.sin(labels)))
        alive &= ~hit
        broken_by[hit] = number
        adv_prediction[hit] = other(rows[hit])
        distance[hit] = (eps or 1.0) * np.sqrt(rng.random(hit.sum()) * 0.999 + 0.001)
    totals = [{"asked": 0, "broken": 0, "forwards": 0, "backwards": 0, "seconds": 0.0} for _ in stages]
    for k, start in enumerate(range(0, samples, chunk)):
        if finished_chunks is not None and k > finished_chunks:
            break
        part = rows[start : start + chunk]
        _write(folder, 0, "clean", start, start + len(part), digest, {
            "index": part, "label": labels[part], "prediction": prediction[part],
            "confidence": np.full(len(part), 0.9),
        })  # fmt: skip
        if finished_chunks is not None and k == finished_chunks:
            break
        for number, stage in enumerate(stages, 1):
            asked = part[(broken_by[part] == -1) | (broken_by[part] >= number)]
            hit = broken_by[asked] == number
            forwards, backwards = np.where(hit, 3, 10 * number), np.where(hit, 2, 10 * number)
            kept = asked[hit][:examples]
            extra = {}
            if len(kept) and examples:
                clean_x = images[kept] if images is not None else rng.uniform(*bounds, (len(kept), *shape))
                noise = np.sign(rng.normal(size=clean_x.shape)) * (eps or 0.3)
                extra = {
                    "example_index": kept,
                    "example_x": clean_x.astype(np.float32),
                    "example_adv": np.clip(clean_x + noise, *bounds).astype(np.float32),
                }
            _write(folder, number, stage["name"], start, start + len(part), digest, {
                "index": asked, "label": labels[asked], "prediction": prediction[asked],
                "adv_prediction": np.where(hit, adv_prediction[asked], prediction[asked]), "success": hit,
                "distance": np.where(hit, distance[asked], np.inf), "forwards": forwards, "backwards": backwards,
            }, extra)  # fmt: skip
            for name, value in zip(
                ("asked", "broken", "forwards", "backwards", "seconds"),
                (len(asked), int(hit.sum()), int(forwards.sum()), int(backwards.sum()), 1.5),
                strict=True,
            ):
                totals[number - 1][name] += value
    correct = left = int((~wrong).sum())
    results = None
    if state == "done":
        stage_results = []
        for stage, total in zip(stages, totals, strict=True):
            left -= int(total["broken"])
            stage_results.append({**stage, **total, "robust_accuracy": left / samples if samples else 0.0})
        grid = np.linspace(0, eps or 1.0, 33)
        shares = [share(int((distance > e * (1 + 1e-9)).sum()), samples) for e in grid]
        found = distance[(distance > 0) & np.isfinite(distance)]
        results = {
            "samples": samples, "clean_accuracy": share(correct, samples), "robust_accuracy": share(left, samples),
            "stages": stage_results,
            "curve": {
                "eps": grid.tolist(), "robust_accuracy": [s["value"] for s in shares],
                "low": [s["low"] for s in shares], "high": [s["high"] for s in shares], "exact": False,
                "note": "Below the budget the curve is an upper bound.",
            },
            "distances": {"median": float(np.median(found)) if len(found) else None, "count": len(found)},
            "flags": flags or [],
        }  # fmt: skip
    run = {
        "schema_version": 1, "kind": "evaluation", "state": state, "settings": settings, "settings_hash": digest,
        "environment": {
            "assay": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.3.4", "python": "3.11.2", "device": "cpu",
            "platform": "Linux-6.1-x86_64", "commit": None, "threads": 2,
        },
        "started": "2026-03-05T14:02:11+00:00",
        "finished": "2026-03-05T14:02:52+00:00" if state == "done" else None,
        "seconds": 41.2 if state == "done" else 12.0, "results": results,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run))
    return run


def _write(
    folder: Path, number: int, stage: str, start: int, stop: int, digest: str,
    columns: dict[str, Any], examples: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    shard = Shard(
        stage=stage, start=start, stop=stop, seconds=1.5,
        columns={name: torch.from_numpy(np.asarray(column)) for name, column in columns.items()},
        examples={name: torch.from_numpy(np.asarray(value)) for name, value in (examples or {}).items()},
    )  # fmt: skip
    path = folder / "shards" / f"{number:02d}-{stage}" / f"{start:08d}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(shard.encode(digest))


def normal(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def rendered(folder: Path, **options: Any) -> tuple[Page, dict[str, Any]]:
    run = make_run(folder, **options)
    path = render(folder)
    assert path == folder / "report.html"
    return page(path), run


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, dict[str, Any]]:
    names = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
    return rendered(tmp_path_factory.mktemp("usual"), flags=[FLAG], more_settings={"classes": names})


def embedded(found: Page) -> Any:
    match = re.search(r'<script type="application/json" id="assay-run">(.*?)</script>', found.html, re.DOTALL)
    assert match is not None
    return json.loads(match[1])


def test_verdict_states_the_numbers_of_run_json(usual: tuple[Page, dict[str, Any]]) -> None:
    found, run = usual
    robust, clean = run["results"]["robust_accuracy"], run["results"]["clean_accuracy"]
    expected = (
        f"{robust['correct']} of 200 images ({100 * robust['value']:.1f} %, 95 % interval "
        f"{100 * robust['low']:.1f} to {100 * robust['high']:.1f} %) withstand every attack tried within Linf 0.1; "
        f"clean accuracy {100 * clean['value']:.1f} %."
    )
    assert expected in normal(found.text)


def test_table_has_a_row_per_stage_that_equals_run_json(usual: tuple[Page, dict[str, Any]]) -> None:
    found, run = usual
    table = normal(found.html[found.html.index('<table class="stack"') :])
    table = table[: table.index("</table>")]
    bodies = table.split("<tbody")[1:]
    assert len(bodies) == len(run["results"]["stages"]) == 3
    for body, stage in zip(bodies, run["results"]["stages"], strict=True):
        cells = re.findall(r'<td role="cell" class="num"[^>]*>([^<]*)</td>', body)
        assert cells == [
            str(stage["asked"]),
            str(stage["broken"]),
            f"{100 * stage['robust_accuracy']:.1f} %",
            f"{stage['forwards'] / stage['asked']:.1f}",
            f"{stage['backwards'] / stage['asked']:.1f}",
            f"{stage['seconds']:.2g} s",
        ]
        assert stage["attack"].replace("'", "&#39;") in body


def test_every_sample_stands_once_in_the_bar_of_outcomes(usual: tuple[Page, dict[str, Any]]) -> None:
    found, run = usual
    (bar,) = found.all("div", class_="bar")
    numbers = [int(number) for number in re.findall(r"(?:^|, )(\d+) ", bar["aria-label"] or "")]
    broken = [stage["broken"] for stage in run["results"]["stages"] if stage["broken"]]
    assert numbers == [
        run["results"]["robust_accuracy"]["correct"],
        *broken,
        200 - run["results"]["clean_accuracy"]["correct"],
    ]
    assert sum(numbers) == 200


def test_curve_draws_every_point_and_names_its_bound(usual: tuple[Page, dict[str, Any]]) -> None:
    found, run = usual
    curve = run["results"]["curve"]
    points = found.all("circle", class_="point")
    assert len(points) == 2 * len(curve["eps"])  # one drawing for wide pages, one for phones
    for point, value, low, high in zip(points, curve["robust_accuracy"], curve["low"], curve["high"], strict=False):
        assert normal(point["data-value"] or "") == f"{100 * value:.1f} %"
        assert normal(point["data-interval"] or "") == f"{100 * low:.1f} to {100 * high:.1f} %"
    heights = [float(point["cy"] or 0) for point in points[: len(curve["eps"])]]
    assert heights == sorted(heights)  # less robust, lower on the page
    assert heights[-1] > heights[0]
    assert curve["note"] in found.text
    assert "Dashed: an upper bound." in found.text


def test_classes_and_confusions_count_every_sample(usual: tuple[Page, dict[str, Any]]) -> None:
    found, run = usual
    table = found.html[found.html.index('<table class="classes"') :]
    table = normal(table[: table.index("</table>")])
    rows = re.findall(r'row">([^<]+)</th>.*?class="num">([\d.]+) %</td>.*?([\d.]+) %</td>.*?>(\d+)</td>', table, re.S)
    assert {name for name, *_ in rows} == set(run["settings"]["classes"])
    robust = sum(float(robust) * int(count) / 100 for _, robust, _, count in rows)
    clean = sum(float(clean) * int(count) / 100 for _, _, clean, count in rows)
    assert robust == pytest.approx(run["results"]["robust_accuracy"]["correct"], abs=0.5)
    assert clean == pytest.approx(run["results"]["clean_accuracy"]["correct"], abs=0.5)
    assert [float(robust) for _, robust, _, _ in rows] == sorted(float(robust) for _, robust, _, _ in rows)
    cells = re.findall(r'<td class="(kept|lost)" [^>]*>(\d*)</td>', found.html)
    assert len(cells) == 100
    assert (
        sum(int(number) for kind, number in cells if kind == "kept" and number)
        == (run["results"]["robust_accuracy"]["correct"])
    )
    assert sum(int(number) for _, number in cells if number) == 200


def test_flags_stand_with_cure_and_link_and_only_web_links_can_be_followed(tmp_path: Path) -> None:
    evil = {**FLAG, "severity": "warning", "code": "evil", "link": "javascript:alert(1)"}
    plain = {**FLAG, "severity": "info", "code": "plain", "link": "docs/checks.md#plain"}
    found, _ = rendered(tmp_path, flags=[FLAG, evil, plain])
    assert [link["href"] for link in found.all("a")] == [FLAG["link"]]
    assert "see docs/checks.md#plain" in found.text
    assert found.text.count(FLAG["message"]) == found.text.count(FLAG["cure"]) == 3
    assert found.html.index(FLAG["message"]) < found.html.index('class="tiles"')


def test_page_needs_nothing_from_outside(usual: tuple[Page, dict[str, Any]]) -> None:
    found, _ = usual
    for tag, attributes in found.tags:
        for name in ("src", "srcset", "data", "poster", "action", "xlink:href"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, name)
        assert tag not in {"link", "iframe", "object", "embed", "base"}
        assert tag == "a" or "href" not in attributes
        assert not any(name.startswith("on") for name in attributes), tag
    style = found.html[found.html.index("<style>") : found.html.index("</style>")]
    assert not re.search(r"url\(|@import|https?:", style)
    policies = [tag["content"] for tag in found.all("meta") if "http-equiv" in tag]
    assert len(policies) == 1
    assert "default-src 'none'" in (policies[0] or "")


def test_the_policy_admits_exactly_the_script_of_the_page(usual: tuple[Page, dict[str, Any]]) -> None:
    found, _ = usual
    scripts = re.findall(r"<script>(.*?)</script>", found.html, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in found.html


def test_embedded_numbers_equal_run_json(usual: tuple[Page, dict[str, Any]]) -> None:
    found, run = usual
    assert embedded(found) == run


def test_accessible_names(usual: tuple[Page, dict[str, Any]]) -> None:
    found, _ = usual
    assert found.all("html", lang="en")
    assert "<title>fashion-cnn-pgd on fashion-mnist" in found.html
    assert all(image.get("alt") for image in found.all("img"))
    assert all(header.get("scope") in {"col", "row"} for header in found.all("th"))
    assert all(svg.get("aria-label") or svg.get("aria-labelledby") for svg in found.all("svg"))
    names = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(names) == len(set(names))


def test_gallery_pictures_are_the_inputs_of_the_shards(tmp_path: Path) -> None:
    images = np.linspace(0, 1, 200)[:, None, None, None] * np.ones((1, 3, 5, 4))
    images[:, 1] = 0.2
    found, _ = rendered(tmp_path, images=images, eps=0.05, threat="Linf(0.05)", breaks=(0.3,), chunk=200)
    sources = [image["src"] or "" for image in found.all("img", class_="crisp")]
    assert len(sources) == 3 * 8
    clean, adversarial, change = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))).astype(float)
        for source in sources[-3:]
    )
    index = int(re.findall(r"image (\d+) ", found.text)[-1])
    assert clean.shape == (5, 4, 3)
    assert np.abs(clean / 255 - np.moveaxis(images[index], 0, -1)).max() <= 0.5 / 255 + 1e-6
    assert f"change {TIMES} 10" in normal(found.text)
    assert np.abs((change - 127.5) - 10 * (adversarial - clean)).max() <= 10 + 1


def test_a_gallery_of_24_colour_images_stays_light(tmp_path: Path) -> None:
    found, _ = rendered(tmp_path, shape=(3, 32, 32), threat="Linf(0.03137254901960784)", eps=8 / 255)
    assert len(found.all("img")) == 3 * 24
    assert len(found.html.encode()) < 1_500_000
    assert "within Linf 8/255 (0.03137)" in found.text
    assert {"0", "2/255", "8/255"} <= set(re.findall(r">([\d/]+)</text>", found.html))


def test_features_are_bars_and_other_shapes_a_sentence(tmp_path: Path) -> None:
    bars, _ = rendered(
        tmp_path / "bars", shape=(12,), bounds=(-1.0, 1.0), threat="L2(1.0, bounds=(-1.0, 1.0))", eps=1.0
    )
    cards = len(bars.all("figure", class_="card"))
    assert cards > 0
    assert len(bars.all("rect")) == 3 * 12 * cards
    assert bars.all("img") == []
    assert "of 200 samples" in bars.text
    video, _ = rendered(tmp_path / "video", shape=(2, 3, 4, 5))
    assert video.all("figure", class_="card") == []
    assert f"Inputs of shape 2 {TIMES} 3 {TIMES} 4 {TIMES} 5 are neither images nor" in video.text


@pytest.mark.parametrize("name", ["</script><script>alert(1)</script>", "<b>x</b> & \"y\" 'z'", "<!--"])
def test_names_are_escaped_everywhere(tmp_path: Path, name: str) -> None:
    flag = {**FLAG, "message": name, "cure": name, "code": name, "link": name}
    found, run = rendered(tmp_path, model=name, flags=[flag], more_settings={"data": name, "classes": [name] * 10})
    assert len(found.all("script")) == 2
    assert name not in found.html
    assert name in found.text
    assert embedded(found) == run


def test_all_robust_and_none_robust(tmp_path: Path) -> None:
    kept, _ = rendered(tmp_path / "kept", breaks=(0.0,), clean=2.0)
    assert "All 200 samples (100.0 %" in normal(kept.text)
    assert "keeps its right class" in kept.text
    assert kept.all("img") == []
    lost, _ = rendered(tmp_path / "lost", breaks=(1000.0,), clean=2.0, classes=3)
    assert "None of the 200 images withstands" in lost.text


def test_no_samples(tmp_path: Path) -> None:
    found, run = rendered(tmp_path, samples=0)
    assert "nothing can be said about this model" in found.text
    assert found.all("svg") == []
    assert embedded(found) == run


@pytest.mark.parametrize("state", ["running", "interrupted"])
def test_an_unfinished_run_is_reported_as_far_as_it_got(tmp_path: Path, state: str) -> None:
    whole = make_run(tmp_path / "whole")
    found, run = rendered(tmp_path / "part", state=state, finished_chunks=2)
    assert run["results"] is None
    words = {"running": "still in progress", "interrupted": "interrupted"}[state]
    assert f"{words}: 192 of 200 images have been judged" in found.text
    judged = re.search(r"At most (\d+) of the 192 images judged so far", found.text)
    assert judged is not None
    assert int(judged[1]) >= whole["results"]["robust_accuracy"]["correct"] - 8
    asked = [int(number) for number in re.findall(r'data-name="Asked">(\d+)<', found.html)]
    broken = [int(number) for number in re.findall(r'data-name="Broken">(\d+)<', found.html)]
    assert asked[1:] == [before - lost for before, lost in zip(asked[:-1], broken[:-1], strict=True)]
    assert asked[0] <= 128


def test_a_run_that_has_just_begun(tmp_path: Path) -> None:
    found, _ = rendered(tmp_path, state="running", finished_chunks=-1)
    assert "nothing can be said" in found.text
    found, _ = rendered(tmp_path, state="running", finished_chunks=0)
    assert "No attack has finished yet" in found.text


def test_a_damaged_shard_is_named_and_the_rest_reported(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "shards" / "01-apgd-ce" / "00000064.safetensors").write_bytes(b"\x10" * 40)
    (tmp_path / "shards" / "00-clean" / "00000128.safetensors").unlink()
    found = page(render(tmp_path))
    assert "01-apgd-ce/00000064.safetensors" in found.text
    assert "1 file of this run cannot be used" in found.text
    assert "of 200 images" in found.text


def test_a_thousand_classes_show_the_weakest(tmp_path: Path) -> None:
    found, _ = rendered(tmp_path, samples=1200, classes=1000, chunk=600)
    assert re.search(r"The 20 weakest of \d{3} classes", found.text)
    assert found.all("table", class_="map") == []
    assert found.all("table", class_="pairs")
    assert len(found.html.encode()) < 1_500_000


def test_huge_and_odd_numbers(tmp_path: Path) -> None:
    run = make_run(tmp_path, breaks=(0.2,))
    run["seconds"] = 9e6
    run["results"]["stages"][0]["forwards"] = 10**15
    run["results"]["curve"]["eps"] = [value * 1e9 for value in run["results"]["curve"]["eps"]]
    (tmp_path / "run.json").write_text(json.dumps(run))
    found = page(render(tmp_path))
    assert "2,500 h 0 min" in normal(found.text)
    assert len(found.all("circle", class_="point")) == 2 * 33
    assert embedded(found) == run


def test_command_repeats_the_run(tmp_path: Path) -> None:
    found, run = rendered(tmp_path / "named")
    line = re.search(r"<pre><code>(.*?)</code></pre>", found.html, re.DOTALL)
    assert line is not None
    assert html.unescape(line[1]) == command(run["settings"])
    quick = load_suite("quick", Linf(0.1)).record()
    words = shlex.split(command({**run["settings"], "suite": quick}).replace("\\\n", " "))
    assert words[:3] == ["assay", "evaluate", "fashion-cnn-pgd"]
    options = dict(zip(words[3::2], words[4::2], strict=True))
    assert options == {
        "--data": "fashion-mnist", "--threat": "Linf(0.1)", "--suite": "quick", "--limit": "200", "--seed": "0",
        "--chunk": "64", "--out": "runs/again",
    }  # fmt: skip
    suite = {**quick, "name": "custom", "version": 0}
    other_version = {**quick, "version": 99}
    first, *rest = quick["stages"]
    other_stage = {**quick, "stages": [{**first, "attack": "APGD(threat=Linf(0.1), steps=7)"}, *rest]}
    for changed in (suite, other_version, other_stage):
        text = command({**run["settings"], "suite": changed})
        assert text.count("--attack ") == 3
        assert "--suite" not in text
    fewer = {**quick, "stages": quick["stages"][:2]}  # one was skipped, as it will be again
    assert "--suite quick" in command({**run["settings"], "suite": fewer})


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"run\.json"):
        render(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read"):
        render(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_rendering_again_gives_the_same_page(tmp_path: Path) -> None:
    make_run(tmp_path)
    first = render(tmp_path).read_bytes()
    assert render(str(tmp_path)).read_bytes() == first
