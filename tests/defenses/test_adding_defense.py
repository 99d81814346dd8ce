"""The page that leads to a new defense is true: its code runs, and the defense is the one that is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import assay

GUIDE = (Path(__file__).parents[2] / "docs" / "defenses.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def adding(page):
    return page("defense.md", "dithered.py")


def test_the_code_on_the_page_runs(adding):
    with adding.example() as defense_class:
        names = {"assay": assay, "Dithered": defense_class}
        for block in adding.blocks[1:]:
            exec(block, names)
        x = torch.rand(4, 1, 8, 8)
        alone = names["model"](x[2:3], seed=1, index=torch.tensor([2]))
        assert torch.allclose(names["model"](x, seed=1)[2:3], alone, atol=1e-5)
    assert "stands at" in names["found"].table()


def test_the_page_prints_the_file(adding):
    assert adding.printed_as_filed()


def test_every_defense_is_in_the_guide():
    rows = re.findall(r"^\| `(\w+)\(", GUIDE, re.MULTILINE)
    assert set(rows) == set(assay.registry.names("defense"))
