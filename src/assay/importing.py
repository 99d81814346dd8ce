"""Importing what a user names: ``package.module:name`` objects and optional packages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from assay import registry
from assay.errors import AssayError, MissingExtraError


def near(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the names most like ``name``, with a leading blank; empty when none is near.

    Args:
        name: what was written.
        known: what could have been meant.

    Example:
        >>> near("fashion-cn", ["fashion-cnn", "digits-mlp"])
        " Did you mean 'fashion-cnn'?"
    """
    found = registry.near(name, known)
    return f" Did you mean {' or '.join(repr(match) for match in found)}?" if found else ""


def named_object(spec: str, error: type[AssayError]) -> Any:
    """The object that ``package.module:name`` stands for; modules in the current directory are found too.

    Args:
        spec: such as "mynets.resnet:robust"; the name may be dotted.
        error: what to raise when it cannot be had.

    Raises:
        AssayError: of the given kind, when the module cannot be imported or has no such name.

    Example:
        >>> named_object("math:sqrt", ValueError)(4.0)
        2.0
    """
    module_name, _, path = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as missing:
        if missing.name is None or not f"{module_name}.".startswith(f"{missing.name}."):
            raise error(f"importing {module_name!r} failed: {missing}.") from missing
        raise error(
            f"no module named {missing.name!r} (from {spec!r}); searched the current directory and sys.path."
        ) from missing
    except (Exception, SystemExit) as failed:
        raise error(f"importing {module_name!r} failed: {type(failed).__name__}: {failed}.") from failed
    for part in path.split("."):
        if not hasattr(found, part):
            raise error(f"{module_name!r} has no {path!r}.{near(part, vars(found))}")
        found = getattr(found, part)
    return found


def optional(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        module: name of the package.
        extra: the extra of assay that brings it.
        purpose: what it is needed for, as the start of the message.

    Raises:
        MissingExtraError: when it is not installed, or does not fit the other packages.
    """
    try:
        return importlib.import_module(module)
    except Exception as failed:  # a package built for another torch raises RuntimeError while it is imported
        raise MissingExtraError(
            f"{purpose} needs {module!r}, which could not be imported ({type(failed).__name__}: {failed}): "
            f"pip install 'assay[{extra}]'."
        ) from failed


def options(text: str, known: Iterable[str], error: type[AssayError]) -> tuple[str, dict[str, str]]:
    """Split ``NAME?key=value&key=value``.

    Args:
        text: the name with its options.
        known: the keys that may be given.
        error: what to raise for an unknown key or a missing value.

    Raises:
        AssayError: of the given kind.

    Example:
        >>> options("photos?size=224", ["size"], ValueError)
        ('photos', {'size': '224'})
    """
    known = list(known)
    name, _, tail = text.partition("?")
    chosen = {}
    for part in filter(None, tail.split("&")):
        key, _, value = part.partition("=")
        if key not in known or not value:
            raise error(
                f"cannot use the option {part!r} in {text!r}: known are {', '.join(f'{key}=...' for key in known)}."
            )
        chosen[key] = value
    return name, chosen
