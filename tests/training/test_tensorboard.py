"""Scalars for TensorBoard, with a writer of the same interface in its place."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import assay
from assay.training.tensorboard import note

ROW = {"epoch": 2, "step": 9, "lr": 0.1, "loss": 1.5, "clean": 0.5, "robust": None, "quality": None,
       "images_per_second": 7.0, "seconds": 1.0}  # fmt: skip


@pytest.fixture
def written(monkeypatch):
    """What writers were told: (folder, name, value, step)."""
    found = []

    class SummaryWriter:
        def __init__(self, log_dir, *, filename_suffix):
            self.place, self.suffix = log_dir, filename_suffix

        def __enter__(self):
            return self

        def __exit__(self, *error):
            found.append((self.place, "closed", self.suffix, None))

        def add_scalar(self, name, value, step):
            found.append((self.place, name, value, step))

    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return found


def test_an_epoch_is_its_scalars_and_the_file_is_closed(written, tmp_path):
    note(tmp_path, ROW)
    place = str(tmp_path / "tensorboard")
    assert written == [
        (place, "loss/train", 1.5, 2),
        (place, "accuracy/clean", 0.5, 2),
        (place, "schedule/lr", 0.1, 2),
        (place, "speed/images_per_second", 7.0, 2),
        (place, "closed", ".epoch-2", None),
    ]


def test_the_first_epoch_removes_the_events_of_another_run_alone(written, tmp_path):
    place = tmp_path / "tensorboard"
    place.mkdir()
    old, other = place / "events.out.tfevents.1.host.1.epoch-1", place / "notes.txt"
    for file in (old, other):
        file.touch()
    note(tmp_path, ROW)
    assert old.exists()
    note(tmp_path, ROW | {"epoch": 1})
    assert not old.exists()
    assert other.exists()


def test_a_run_writes_every_epoch(written, tmp_path):
    x, y = torch.rand(60, 4), torch.arange(60) % 2
    found = assay.train(
        nn.Linear(4, 2), (x, y), recipe="fgsmat", threat="linf:0.1", epochs=2, batch=20, out=tmp_path, progress=False
    )
    told = [(value, step) for _, name, value, step in written if name == "accuracy/robust"]
    assert told == [(row["robust"], row["epoch"]) for row in found.history]


def test_without_tensorboard_nothing_happens(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    note(tmp_path, ROW | {"epoch": 1})
    assert not any(tmp_path.iterdir())
