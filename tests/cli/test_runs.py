"""``assay report`` and ``assay export``."""

from __future__ import annotations

import csv
import sys
import types
import webbrowser

import pytest

from assay.cli.rows import COLUMNS
from assay.evaluation.store import Store


def test_report_is_written_again(assay, finished):
    page = finished / "report.html"
    page.unlink()
    found = assay("report", finished)
    assert (found.code, found.out) == (0, "")
    assert str(page) in found.err
    assert "<html" in page.read_text(encoding="utf-8")
    assert assay("report", finished, "--json").json == {"report": str(page)}


def test_report_opens_the_browser_on_request(assay, finished, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    assay("report", finished)
    assert opened == []
    assay("report", finished, "--open")
    assert opened == [(finished / "report.html").resolve().as_uri()]


def test_export_holds_every_row(assay, finished, tmp_path):
    found = assay("export", finished, "--out", tmp_path / "rows.csv", "--json")
    assert found.code == 0
    with (tmp_path / "rows.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == found.json["rows"]
    store = Store.open(finished)
    results = store.run["results"]
    by_stage = {stage: [row for row in rows if row["stage"] == stage] for stage in store.stages}
    assert len(by_stage["clean"]) == 40
    wrong = [row for row in by_stage["clean"] if row["success"] == "True"]
    assert 40 - len(wrong) == results["clean_accuracy"]["correct"]
    assert all((row["distance"] == "0.0") == (row["success"] == "True") for row in by_stage["clean"])
    assert sum(stage["broken"] for stage in results["stages"]) > 0
    for stage in results["stages"]:
        mine = by_stage[stage["name"]]
        assert len(mine) == stage["asked"]
        assert sum(row["success"] == "True" for row in mine) == stage["broken"]
        assert sum(int(row["forwards"]) for row in mine) == stage["forwards"]
        assert {row["attack"] for row in mine} <= {stage["attack"]}
        for row in mine:
            assert (row["success"] == "True") == (row["adv_prediction"] != row["label"])
            assert (row["success"] == "True") == (float(row["distance"]) <= 0.1 + 1e-6)


def test_parquet_names_the_extra_where_it_is_missing(assay, finished, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    found = assay("export", finished, "--out", tmp_path / "rows.parquet")
    assert found.code == 2
    assert "assay[parquet]" in found.said
    assert not (tmp_path / "rows.parquet").exists()


def test_parquet_hands_the_rows_to_pyarrow(assay, finished, tmp_path, monkeypatch):
    class Table(list):
        num_rows = property(len)
        from_pylist = classmethod(lambda cls, rows: cls(rows))

    arrow, parquet = types.ModuleType("pyarrow"), types.ModuleType("pyarrow.parquet")
    arrow.Table = Table
    parquet.write_table = lambda table, file: file.write(repr([row["index"] for row in table]).encode())
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", parquet)
    found = assay("export", finished, "--format", "parquet", "--out", tmp_path / "rows", "--json")
    assert found.code == 0
    assert found.json["rows"] > 40
    assert (tmp_path / "rows").read_text().startswith("[0, 1, 2,")


@pytest.mark.parametrize("command", [["report"], ["export", "--out", "rows.csv"]])
def test_what_is_no_run(assay, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert assay(*command, tmp_path / "nowhere").code == 2
    found = assay(*command, tmp_path)
    assert found.code == 3
    assert "run.json" in found.said


def test_a_damaged_shard_is_named(assay, finished, tmp_path):
    import shutil

    shutil.copytree(finished, tmp_path / "copy")
    shard = next((tmp_path / "copy" / "shards").rglob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-5])
    found = assay("export", tmp_path / "copy", "--out", tmp_path / "rows.csv")
    assert found.code == 3
    assert "damaged" in found.said
    assert "--resume" in found.said
    assert not (tmp_path / "rows.csv").exists()
