"""What tests of several folders share."""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

ADDING = Path(__file__).parents[1] / "docs" / "adding"


class Page:
    """A page on adding something of one's own, and the file of the example that it prints."""

    def __init__(self, name, example):
        self.text = (ADDING / name).read_text(encoding="utf-8")
        self.blocks = re.findall(r"```python\n(.*?)```", self.text, re.DOTALL)
        self.file = ADDING / example

    @contextmanager
    def example(self):
        """The class that the file defines."""
        spec = importlib.util.spec_from_file_location(self.file.stem, self.file)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield getattr(module, _class(self.file.read_text(encoding="utf-8")).name)
        del sys.modules[spec.name]

    def printed_as_filed(self):
        """Whether the class on the page and in the file are the same, docstrings and checks of settings aside."""
        shown, filed = (_parts(_class(text)) for text in (self.blocks[0], self.file.read_text(encoding="utf-8")))
        return shown == filed and len(shown) > 1


def _class(text):
    return next(node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))


def _parts(cls):
    found = {}
    for node in cls.body:
        if isinstance(node, ast.FunctionDef) and node.name != "__post_init__":
            body = node.body[1:] if ast.get_docstring(node) else node.body
            found[node.name] = [ast.dump(statement) for statement in body]
        elif isinstance(node, ast.AnnAssign):
            found[node.target.id] = ast.dump(node)
    return found


@pytest.fixture(scope="session")
def page():
    """Opens a page on adding something of one's own."""
    return Page
