"""What exists under which name: read without importing torch, loaded at first use.

Attacks, threats, transformations, corruptions, losses and the parts of training are rows of tables; models, data sets
and suites are found beside the files that describe them. A new attack is one row, and everything else (the grammar, the
command line, the contract tests) finds it by this row.

Example:
    >>> from assay import registry
    >>> registry.get("threat", "linf").target
    'assay.threats:Linf'
"""

from __future__ import annotations

import difflib
import importlib
import json
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from assay.errors import GrammarError
from assay.registry.attacks import ATTACKS
from assay.registry.defenses import DEFENSES
from assay.registry.entry import COLOUR, EVERY, KINDS, LP, NORMS, SPATIAL, Entry, Kind
from assay.registry.explanations import ATTRIBUTIONS, CHANGES
from assay.registry.parts import CORRUPTIONS, LOSSES, THREATS, TRANSFORMATIONS
from assay.registry.training import AUGMENTATIONS, AVERAGES, NETWORKS, OPTIMIZERS, RECIPES, SCHEDULES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["COLOUR", "EVERY", "KINDS", "LP", "NORMS", "SPATIAL", "Entry", "Kind"]

_PACKAGE = Path(__file__).resolve().parent.parent
_LISTED = 30  # names that an error lists; more would hide what it says


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file; a ValueError says what is wrong with it."""
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _suites() -> Iterable[Entry]:
    for path in sorted((_PACKAGE / "evaluation" / "suites").glob("*.toml")):
        suite = read_toml(path)
        yield Entry(name=suite["name"], kind="suite", target=str(path), summary=suite.get("description", ""))


def _cards(kind: Kind, folder: Path) -> Iterable[Entry]:
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem):
        card = json.loads(path.read_text(encoding="utf-8"))
        yield Entry(
            name=card["name"],
            kind=kind,
            target=str(path),
            summary=card["summary"],
            threats=(card["threat"],) if card.get("threat") else (),
        )


_SOURCES: dict[Kind, Callable[[], Iterable[Entry]]] = {
    "attack": lambda: ATTACKS,
    "threat": lambda: THREATS,
    "transformation": lambda: TRANSFORMATIONS,
    "loss": lambda: LOSSES,
    "recipe": lambda: RECIPES,
    "network": lambda: NETWORKS,
    "optimizer": lambda: OPTIMIZERS,
    "schedule": lambda: SCHEDULES,
    "average": lambda: AVERAGES,
    "augmentation": lambda: AUGMENTATIONS,
    "corruption": lambda: CORRUPTIONS,
    "attribution": lambda: ATTRIBUTIONS,
    "change": lambda: CHANGES,
    "defense": lambda: DEFENSES,
    "model": lambda: _cards("model", _PACKAGE / "models" / "weights"),
    "data": lambda: _cards("data", _PACKAGE / "data" / "shipped"),
    "suite": _suites,
}


_READERS: dict[Kind, str] = {"model": "assay.models:load_model"}


def reader(kind: Kind) -> Callable[..., Any]:
    """What turns the text that stands for one of this kind into the thing itself; imported at first use.

    It is for parts of the package that take such a text as a setting and lie below the one that reads it.

    Example:
        >>> reader("model").__name__
        'load_model'
    """
    module, _, name = _READERS[kind].partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


@cache
def _table(kind: Kind) -> dict[str, Entry]:
    if kind not in _SOURCES:
        raise GrammarError(f"unknown kind {kind!r}; there are {', '.join(KINDS)}")
    return {entry.name: entry for entry in _SOURCES[kind]()}


def entries(kind: Kind) -> tuple[Entry, ...]:
    """All entries of one kind, in the order of their table."""
    return tuple(_table(kind).values())


def names(kind: Kind) -> tuple[str, ...]:
    """All canonical names of one kind, in the order of their table."""
    return tuple(_table(kind))


def find(kind: Kind, name: str) -> Entry | None:
    """The entry of this name or alias, upper and lower case, ``-`` and ``_`` aside; None where there is none."""
    wanted = _folded(name)
    return next((e for e in entries(kind) if wanted in map(_folded, (e.name, *e.aliases))), None)


def get(kind: Kind, name: str) -> Entry:
    """The entry of this name.

    Raises:
        GrammarError: there is none; the message offers near names.
    """
    entry = find(kind, name)
    if entry is None:
        raise GrammarError(f"unknown {kind} {name!r}. {hint(name, names(kind))}")
    return entry


def near(name: str, candidates: Iterable[str]) -> list[str]:
    """Up to three candidates that look like the name, the nearest first."""
    folded = {_folded(candidate): candidate for candidate in candidates}
    return [folded[match] for match in difflib.get_close_matches(_folded(name), folded, n=3, cutoff=0.55)]


def hint(name: str, candidates: Iterable[str]) -> str:
    """A sentence that leads from a wrong name to a right one."""
    candidates = list(candidates)
    close = near(name, candidates)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    if len(candidates) > _LISTED:
        return "`assay list` tells what there is."
    return f"There are {', '.join(candidates)}." if candidates else "There are none."


def _folded(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")
