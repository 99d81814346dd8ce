"""The page that leads to a new recipe is true: its code runs, and the recipe is the one that is printed."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

import assay

FOLDER = Path(__file__).parents[2] / "docs" / "adding"
PAGE = (FOLDER / "recipe.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
CONTRACT = (Path(__file__).parent / "recipes" / "test_contract.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def recipe_class():
    spec = importlib.util.spec_from_file_location("half_adversarial", FOLDER / "half_adversarial.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module.HalfAdversarial
    del sys.modules[spec.name]


def test_the_code_on_the_page_runs(recipe_class):
    names = {"assay": assay, "HalfAdversarial": recipe_class}
    for block in BLOCKS[1:]:
        exec(block, names)
    assert isinstance(names["found"], assay.Training)


def test_the_page_prints_the_file():
    shown = ast.parse(BLOCKS[0]).body[0]
    source = ast.parse((FOLDER / "half_adversarial.py").read_text(encoding="utf-8"))
    filed = next(node for node in source.body if isinstance(node, ast.ClassDef))

    def parts(cls):
        found = {}
        for node in cls.body:
            if isinstance(node, ast.FunctionDef) and node.name != "__post_init__":
                body = node.body[1:] if ast.get_docstring(node) else node.body
                found[node.name] = [ast.dump(statement) for statement in body]
            elif isinstance(node, ast.AnnAssign):
                found[node.target.id] = ast.dump(node)
        return found

    assert parts(shown) == parts(filed)


def test_the_page_names_rules_of_the_contract():
    named = re.findall(r"`([a-z]+(?:_[a-z]+){3,})`", PAGE)
    assert len(named) >= 8
    for name in named:
        assert f"def test_{name}(" in CONTRACT


def test_every_recipe_is_in_the_guide():
    guide = (FOLDER.parent / "training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", guide, re.MULTILINE)
    for entry in assay.registry.entries("recipe"):
        assert {entry.name.lower(), *entry.aliases} & set(rows), entry.name
