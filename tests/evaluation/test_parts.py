"""Runs part by part: what is computed, what is kept, and what is read again."""

from __future__ import annotations

import pytest
import torch

from assay.errors import SettingError
from assay.evaluation.parts import Asked
from assay.evaluation.record import Record, RunKind

KIND = RunKind("sums", 1, "assay sum")


@pytest.fixture
def asked():
    x = torch.arange(20.0).reshape(10, 2) / 20
    return Asked.about(torch.nn.Linear(2, 3), (x, torch.zeros(10).long()), limit=None, batch=4, device=None)


def begin(asked, path, *, resume=False):
    return Record.begin(path, KIND, asked.settings, {}, resume=resume, overwrite=False)


def summed(parts):
    return {"sum": float(torch.cat([part["x"] for part in parts]).sum())}


def test_every_sample_is_in_one_part_and_a_stopped_run_reads_what_it_has(asked, tmp_path):
    begun, told = [], []

    def part(start, stop):
        if start == 8 and not begun.count(8):
            begun.append(8)
            raise KeyboardInterrupt
        begun.append(start)
        return {"x": asked.data.batch(start, stop)[0]}

    with pytest.raises(KeyboardInterrupt):
        asked.in_parts(part, summed, begin(asked, tmp_path / "r"), None)
    stopped = Record.open(tmp_path / "r", KIND).run
    assert (stopped["state"], stopped["results"]) == ("interrupted", {"sum": pytest.approx(6.0)})
    begun.clear()
    begun.append(8)  # it is not stopped again
    record = begin(asked, tmp_path / "r", resume=True)
    parts, results = asked.in_parts(part, summed, record, lambda *each: told.append(each[:2]))
    assert begun == [8, 8]
    assert torch.equal(torch.cat([each["x"] for each in parts]), asked.data.x)
    assert told == [(4, 10), (8, 10), (10, 10)]
    assert Record.open(tmp_path / "r", KIND).run["state"] == "done"
    assert results == {"sum": pytest.approx(float(asked.data.x.sum()))}


def test_settings_name_model_and_data(asked):
    assert (asked.settings["model"], asked.settings["samples"], asked.settings["batch"]) == ("Linear", 10, 4)
    named = Asked.about("digits-mlp", "digits", limit=3, batch=2, device="cpu")
    assert (named.name, named.data.name, len(named.data)) == ("digits-mlp", "digits", 3)
    assert named.settings["model_digest"] != asked.settings["model_digest"]


@pytest.mark.parametrize(("settings", "match"), [({"batch": 0}, "batch"), ({"device": "tpu"}, "'tpu' cannot be used")])
def test_what_cannot_be_used_is_refused(settings, match):
    with pytest.raises(SettingError, match=match):
        Asked.about("digits-mlp", "digits", **{"limit": 3, "batch": 2, "device": None, **settings})
