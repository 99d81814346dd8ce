"""``assay physical`` counts what the library counts."""

from __future__ import annotations

import pytest

import assay as package
from assay import physical
from assay.transformations import Blur, Noise

BASE = ("physical", "fashion-cnn", "--data", "fashion-mnist", "--limit", "24", "--threat", "linf:0.05")
QUICK = (*BASE, "--set", "steps=4", "--camera", "[Blur(1.5), Noise(0.1)]", "--photos", "4")


@pytest.mark.parametrize("draws", [0, 3])
def test_the_numbers_are_those_of_the_library(assay, draws):
    found = assay(*QUICK, "--draws", draws, "--seed", "3", "--batch", "10", "--json", "--quiet")
    assert (found.code, found.err) == (0, "")
    model, data = package.load_model("fashion-cnn"), package.load_data("fashion-mnist", limit=24)
    x, y, index = data.batch(0, 24)
    camera = (Blur(1.5), Noise(0.1))
    eot = package.EOT(*camera, draws=draws) if draws else None
    x_adv = package.attacks.PGD(threat=package.Linf(0.05), steps=4).perturb(model, x, y, seed=3, index=index, eot=eot)
    counts = physical.measure(model, x, x_adv, y, camera, photos=4, seed=3, index=index)
    assert {name: found.json[name] for name in counts.as_dict()} == counts.as_dict()
    assert found.json["adversarial"] > 0
    assert found.json["eot"] == (repr(eot) if draws else None)
    assert found.json["camera"] == ["Blur(1.5)", "Noise(0.1)"]


def test_the_table_is_for_people(assay):
    found = assay(*QUICK, "--draws", "2")
    assert (found.code, found.out) == (0, "")
    for row in ("clean photographs right", "success after the camera", "destruction rate", "2 views a step"):
        assert row in found.said


def test_nothing_is_destroyed_that_was_never_there(assay):
    found = assay(*BASE[:-1], "linf:0", "--draws", "0", "--photos", "1", "--json").json
    assert (found["adversarial"], found["destruction_rate"], found["fooled"]) == (0, None, 0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--camera", "Blur(1)"), "a camera is a list of transformations"),
        (("--camera", "[Linf(0.1)]"), "a camera is a list of transformations"),
        (("--camera", "[Blurr(1)]"), "Did you mean Blur"),
    ],
)
def test_cameras_that_cannot_be_are_refused(refused, options, says):
    refused((*BASE, *options), 2, says)


def test_an_attack_needs_a_threat(refused):
    refused(BASE[:-2], 2, "needs a threat")
