"""``assay attack --picture`` draws the first samples that the attack moved."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import assay as package
from assay.cli import pictures

ROTATED = ("attack", "fashion-cnn", "--data", "fashion-mnist", "--limit", "24", "--attack", "grid", "--threat")


@pytest.mark.parametrize("targeted", [(), ("--targeted", "next")])
def test_the_picture_is_that_of_the_library(assay, tmp_path, targeted):
    path = tmp_path / "a.png"
    found = assay(*ROTATED, "rotation:60", *targeted, "--batch", "5", "--picture", path, "--json")
    assert found.code == 0
    assert found.json["picture"] == str(path)
    assert found.json["succeeded"] >= 4
    model, data = package.load_model("fashion-cnn"), package.load_data("fashion-mnist", limit=24)
    x, y, index = data.batch(0, 24)
    goal = package.Targeted((y + 1) % 10) if targeted else y
    attack = package.attacks.GridSearch(threat=package.Rotation(60.0))
    result = attack(model, x, goal, index=index, keep_moves=True)
    before = model(x).argmax(dim=1)
    expected = package.picture(attack.threat, x, result, before=before, classes=data.classes)
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(expected))


def test_nothing_moved_and_mistakes(assay, refused, tmp_path, monkeypatch, full_disk):
    path = tmp_path / "a.png"
    found = assay(*ROTATED, "rotation:0.001", "--picture", path, "--json")
    assert (found.code, found.json["picture"]) == (0, None)
    assert "no sample was moved" in found.said
    assert not path.exists()
    refused((*ROTATED, "rotation:60", "--picture", "a.jpg"), 2, "must end in .png")
    monkeypatch.setattr(pictures, "write_atomically", full_disk)
    found = assay(*ROTATED, "rotation:60", "--picture", path)
    assert found.code == 3
    assert "success rate" in found.said
    assert "choose another --picture" in found.said
