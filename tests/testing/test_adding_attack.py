"""The page that leads to a new attack is true: its attack runs, passes the contract, and is the one that is printed."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch

import assay
from assay.testing import CHECKS, Case, check_attack

FOLDER = Path(__file__).parents[2] / "docs" / "adding"
PAGE = (FOLDER / "attack.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def attack_class():
    spec = importlib.util.spec_from_file_location("decaying_ascent", FOLDER / "decaying_ascent.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module.DecayingAscent
    del sys.modules[spec.name]


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
@pytest.mark.parametrize("check", CHECKS)
def test_the_example_passes_every_check(attack_class, check, norm):
    CHECKS[check](Case(factory=lambda threat: attack_class(threat=threat), norm=norm))


def test_the_code_on_the_page_runs(attack_class):
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names = {"assay": assay, "torch": torch, "DecayingAscent": attack_class}
    short = 'norms=["linf"], only=["counts_are_true"]'  # every check runs in the test above
    for block in blocks[1:]:
        exec(block.replace('norms=["linf", "l2", "l1", "l0"]', short), names)
    assert names["check_attack"] is check_attack


def test_the_page_prints_the_file(attack_class):
    """Class body on the page and in the file are the same statements, docstrings and setting checks aside."""
    shown = ast.parse(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]).body[0]
    source = ast.parse((FOLDER / "decaying_ascent.py").read_text(encoding="utf-8"))
    filed = next(node for node in source.body if isinstance(node, ast.ClassDef))

    def parts(cls):
        found = {}
        for node in cls.body:
            if isinstance(node, ast.FunctionDef) and node.name == "run":
                body = node.body[1:] if ast.get_docstring(node) else node.body
                found["run"] = [ast.dump(statement) for statement in body]
            elif isinstance(node, ast.AnnAssign):
                found[node.target.id] = ast.dump(node)
        return found

    assert parts(shown) == parts(filed)


def test_the_page_explains_every_check():
    for name in CHECKS:
        assert f"`{name}`" in PAGE
