from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import assay
from assay.attacks import DeepFool, Square
from assay.evaluation import schema
from assay.evaluation.shards import _ADV_COLUMNS, _ATTACK_COLUMNS, _CLEAN_COLUMNS
from assay.models import ScoresOnly

PAGE = (Path(__file__).parents[2] / "docs" / "run-directory.md").read_text(encoding="utf-8")
TYPES: dict[str, Any] = {
    "settings": schema.Settings,
    "environment": schema.Environment,
    "results": schema.Results,
}


@pytest.mark.parametrize(
    "record",
    [
        schema.Run,
        schema.Settings,
        schema.SuiteRecord,
        schema.StageRecord,
        schema.Environment,
        schema.Results,
        schema.Share,
        schema.StageResult,
        schema.Queries,
        schema.QueryCurve,
        schema.Spent,
        schema.Curve,
        schema.Distances,
        schema.FlagRecord,
    ],
)
def test_every_field_is_documented(record: Any) -> None:
    for field in record.__annotations__:
        assert f"`{field}`" in PAGE, field


def test_every_column_is_documented() -> None:
    for column in {*_CLEAN_COLUMNS, *_ATTACK_COLUMNS, *_ADV_COLUMNS}:
        assert re.search(rf"^\|[^|]*`{column}`", PAGE, flags=re.M), column


def test_a_real_run_has_exactly_these_fields() -> None:
    x, y = torch.rand(6, 4), torch.zeros(6, dtype=torch.int64)
    found = assay.evaluate(nn.Linear(4, 5).eval(), (x, y), threat="linf:0.1", suite="quick", progress=False)
    run: Any = found.store.run
    assert set(run) == schema.Run.__required_keys__
    for name, record in TYPES.items():
        assert set(run[name]) == record.__required_keys__
    assert set(run["results"]["curve"]) == set(schema.Curve.__annotations__)
    assert set(run["results"]["robust_accuracy"]) == set(schema.Share.__annotations__)
    assert set(run["results"]["stages"][0]) == schema.StageResult.__required_keys__
    assert set(run["results"]["distances"]) == schema.Distances.__required_keys__


NOT_THERE = {  # where nothing is limited or defended
    "defense",
    "max_queries",
    "rejected",
    "surrogate",
    "surrogate_digest",
}


def test_a_real_run_without_a_budget_has_all_fields() -> None:
    x, y, threat = torch.rand(6, 4), torch.zeros(6, dtype=torch.int64), assay.Linf()
    suite = [("deepfool", DeepFool(threat=threat))]
    found = assay.evaluate(nn.Linear(4, 5).eval(), (x, y), threat=threat, suite=suite, progress=False)
    run: Any = found.store.run
    for name, record in TYPES.items():
        assert set(run[name]) == set(record.__annotations__) - NOT_THERE
    assert set(run["results"]["stages"][0]) == set(schema.StageResult.__annotations__) - {"queries"}
    assert set(run["results"]["distances"]) == set(schema.Distances.__annotations__)
    assert run["results"]["robust_accuracy"] is None
    assert schema.problem(run) is None
    assert schema.problem({**run, "settings": {**run["settings"], "minimal": 1}}) == "its settings.minimal is '1'"


def test_a_real_run_without_gradients_has_queries() -> None:
    model, x = ScoresOnly(nn.Linear(4, 5).eval()), torch.rand(6, 4)
    y = model(x).argmax(dim=1)
    attacks = [("square", Square(threat=assay.Linf(0.1), queries=5))]
    options: Any = {"threat": "linf:0.1", "suite": attacks, "progress": False, "max_queries": 4, "total_queries": 500}
    run: Any = assay.evaluate(model, (x, y), **options).store.run
    assert set(run) == set(schema.Run.__annotations__)
    assert set(run["queries"]) == set(schema.Spent.__annotations__)
    found = run["results"]["stages"][0]["queries"]
    assert set(found) == set(schema.Queries.__annotations__)
    assert set(found["at"]) == set(found["curve"]) == set(schema.QueryCurve.__annotations__)
    assert schema.problem(run) is None


def test_the_hash_ignores_the_order_of_keys_and_nothing_else(settings: schema.Settings) -> None:
    turned: Any = dict(reversed(list(settings.items())))
    assert schema.settings_hash(turned) == schema.settings_hash(settings)
    for change in ({"seed": 1}, {"limit": 5}, {"model_digest": "1"}, {"chunk": 4}):
        changed: Any = {**settings, **change}
        assert schema.settings_hash(changed) != schema.settings_hash(settings)
