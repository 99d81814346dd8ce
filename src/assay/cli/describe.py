"""What is known about a name: its parameters from its signature, their meaning from its docstring."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from assay import registry
from assay.registry import Entry

_SECTION = re.compile(r"^([A-Z][a-z]+):\s*$")


def describe(entry: Entry) -> dict[str, Any]:
    """Everything that ``assay show`` prints, ready for JSON.

    What is written as a call has ``parameters``: name, type, default (as text; None where required) and meaning.
    Suites, models and data have the content of their file.
    """
    known = entry.as_dict()
    target = known.pop("target")
    if ".json" in target or ".toml" in target:
        return {**known, **_file(Path(target))}
    built = entry.load()
    sections = _sections(inspect.getdoc(built) or "")
    known["about"] = _flowed(sections[""])
    if entry.kind != "loss":
        known["parameters"] = parameters(built)
    for section in ("Deviations", "References"):
        if section in sections:
            known[section.lower()] = _flowed(sections[section])
    if "Raises" in sections:
        known["raises"] = sections["Raises"]
    return known


def parameters(built: Any) -> list[dict[str, str | None]]:
    """Name, type, default and meaning of each parameter of a class or function."""
    meanings = _meanings(_sections(inspect.getdoc(built) or "").get("Args", ""))
    return [
        {
            "name": name,
            "type": str(parameter.annotation).replace("'", ""),
            "default": None if parameter.default is parameter.empty else repr(parameter.default),
            "meaning": meanings.get(name, ""),
        }
        for name, parameter in inspect.signature(built).parameters.items()
    ]


def _file(path: Path) -> dict[str, Any]:
    if path.suffix == ".toml":
        return registry.read_toml(path)
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _sections(docstring: str) -> dict[str, str]:
    """The text of each section, dedented; what stands before the first is named ""."""
    found: dict[str, list[str]] = {"": []}
    current = found[""]
    for line in docstring.splitlines():
        if match := _SECTION.match(line):
            current = found.setdefault(match[1], [])
        else:
            current.append(line)
    return {name: inspect.cleandoc("\n" + "\n".join(lines)).strip() for name, lines in found.items()}


def _flowed(text: str) -> str:
    """The same text with one line for each paragraph."""
    return re.sub(r"(?<!\n)\n(?=\S)", " ", text)


def _meanings(text: str) -> dict[str, str]:
    """Meaning of each name in an Args section: ``name: meaning``, further lines indented."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in text.splitlines():
        match = re.match(r"^(\w+(?:, \w+)*): (.*)", line)
        if match:
            names = match[1].split(", ")
            found.update(dict.fromkeys(names, match[2].strip()))
        elif names and line.startswith(" "):
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
    return found
