from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from assay.evaluation.schema import Environment, Settings
from assay.evaluation.shards import Shard
from assay.evaluation.store import Store

ENVIRONMENT: Environment = {
    "assay": "0",
    "torch": "0",
    "numpy": "0",
    "python": "0",
    "device": "cpu",
    "platform": "test",
    "commit": None,
    "threads": 1,
}


@pytest.fixture(scope="session")
def start() -> Callable[..., BaseProcess]:
    """Starts code, which knows the given names, in a process of its own, with its own memory.

    It is forked from a process that holds torch already, whose import takes seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["assay.attacks", "assay.evaluation"])

    def begin(code: str, **names: Any) -> BaseProcess:
        process = context.Process(target=exec, args=(code, names))
        process.start()
        return process

    return begin


@pytest.fixture
def settings() -> Settings:
    return {
        "model": "m",
        "model_digest": "0",
        "data": "d",
        "data_digest": "0",
        "classes": None,
        "threat": "Linf(0.1)",
        "goal": "untargeted",
        "suite": {
            "name": "custom",
            "version": 0,
            "stages": [
                {"name": "first", "attack": "FGSM(threat=Linf(0.1))"},
                {"name": "second", "attack": "FGSM(threat=Linf(0.1))"},
            ],
        },
        "seed": 0,
        "limit": None,
        "samples": 5,
        "chunk": 3,
        "save_adv": False,
    }


@pytest.fixture
def environment() -> Environment:
    return ENVIRONMENT


@pytest.fixture
def store(tmp_path: Path, settings: Settings) -> Store:
    return Store.begin(tmp_path / "run", settings, ENVIRONMENT)


@pytest.fixture
def fill() -> Callable[[Store], None]:
    return fill_store


def fill_store(store: Store) -> None:
    """Five samples: 0 is wrong from the start, 1 breaks in the first stage, 3 in the second, 2 and 4 hold."""
    label = torch.tensor([0, 1, 2, 0, 1])
    prediction = torch.tensor([1, 1, 2, 0, 1])
    broken_by = {"first": {1}, "second": {3}}
    alive = [1, 2, 3, 4]
    for start, stop in store.chunks:
        rows = torch.arange(start, stop)
        columns = {
            "index": rows,
            "label": label[rows],
            "prediction": prediction[rows],
            "confidence": torch.ones(len(rows)),
        }
        store.write_shard(Shard(stage="clean", start=start, stop=stop, columns=columns, seconds=0.5))
    for stage in ("first", "second"):
        for start, stop in store.chunks:
            rows = torch.tensor([i for i in alive if start <= i < stop], dtype=torch.int64)
            success = torch.tensor([i in broken_by[stage] for i in rows.tolist()], dtype=torch.bool)
            store.write_shard(
                Shard(stage=stage, start=start, stop=stop, columns=attack_columns(rows, label, prediction, success))
            )
        alive = [i for i in alive if i not in broken_by[stage]]


def attack_columns(
    rows: torch.Tensor, label: torch.Tensor, prediction: torch.Tensor, success: torch.Tensor
) -> dict[str, Any]:
    return {
        "index": rows,
        "label": label[rows],
        "prediction": prediction[rows],
        "adv_prediction": torch.where(success, 9, prediction[rows]),
        "success": success,
        "distance": torch.where(success, 0.05 + 0.01 * rows, torch.inf),
        "forwards": torch.full_like(rows, 10),
        "backwards": torch.full_like(rows, 4),
    }
