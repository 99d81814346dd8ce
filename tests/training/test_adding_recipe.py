"""The page that leads to a new recipe is true: its code runs, and the recipe is the one that is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import assay

GUIDE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
CONTRACT = (Path(__file__).parent / "recipes" / "test_contract.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def adding(page):
    return page("recipe.md", "half_adversarial.py")


def test_the_code_on_the_page_runs(adding):
    with adding.example() as recipe_class:
        names = {"assay": assay, "HalfAdversarial": recipe_class}
        for block in adding.blocks[1:]:
            exec(block, names)
    assert isinstance(names["found"], assay.Training)


def test_the_page_prints_the_file(adding):
    assert adding.printed_as_filed()


def test_the_page_names_rules_of_the_contract(adding):
    named = re.findall(r"`([a-z]+(?:_[a-z]+){3,})`", adding.text)
    assert len(named) >= 8
    for name in named:
        assert f"def test_{name}(" in CONTRACT


def test_every_recipe_is_in_the_guide():
    rows = re.findall(r"^\| `(\w+)` \|", GUIDE, re.MULTILINE)
    for entry in assay.registry.entries("recipe"):
        assert {entry.name.lower(), *entry.aliases} & set(rows), entry.name
