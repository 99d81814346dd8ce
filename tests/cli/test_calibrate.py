"""``assay calibrate``: the thresholds, and the defense that holds them."""

from __future__ import annotations

import pytest
import torch

import assay as package
from assay.models import saved
from assay.models.networks import ConvAutoencoder

BASE = ("calibrate", "digits-mlp", "--data", "digits", "--limit", "200")


@pytest.fixture
def magnet(tmp_path):
    """MagNet with untrained autoencoders, as text."""
    for name, pooled in (("a", True), ("b", False)):
        torch.manual_seed(0)
        net = ConvAutoencoder(pooled=pooled)
        saved.save(tmp_path / name, f"ConvAutoencoder(pooled={pooled})", net.state_dict(), {})
    return f"MagNet('{tmp_path / 'a'}', '{tmp_path / 'b'}')"


def test_what_it_answers_is_a_defense_with_thresholds(assay, magnet):
    found = assay(*BASE, "--defense", magnet, "--drop", "0.05", "--skip", "100")
    assert found.code == 0
    assert "squared error" in found.said
    text = found.out.strip()
    model = package.defend("digits-mlp", text)
    data = package.load_data("digits").batch(100, 300)
    with torch.no_grad():
        rejected = model(data[0]).argmax(dim=1) == 10
    assert 10 <= int(rejected.sum()) <= 40  # 10 by each of four statistics
    told = assay(*BASE, "--defense", magnet, "--drop", "0.05", "--skip", "100", "--json", "--quiet").json
    assert told["defense"] == text
    assert list(told["thresholds"].values()) == list(model.defenses[0].thresholds)


def test_mistakes(assay, magnet):
    for more, says in (
        (("--defense", "BitDepth(bits=3)"), "rejects nothing"),
        (("--defense", magnet, "--drop", "0.001"), "at least 1000"),
        (("--defense", magnet, "--skip", "9999"), "leaves nothing"),
    ):
        found = assay(*BASE, *more)
        assert (found.code, says in " ".join(found.said.split())) == (2, True)
