"""One name that a user may write, and the kinds of names that there are."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from assay.errors import GrammarError

Kind = Literal[
    "attack",
    "threat",
    "transformation",
    "loss",
    "model",
    "data",
    "suite",
    "recipe",
    "network",
    "optimizer",
    "schedule",
    "average",
    "augmentation",
    "corruption",
    "attribution",
    "change",
    "defense",
]
KINDS: tuple[Kind, ...] = get_args(Kind)

LP = ("linf", "l2", "l1")
NORMS = (*LP, "l0")
SPATIAL = ("flow", "rotation", "translation")
COLOUR = ("recolor", "tonecurve")
EVERY = (*NORMS, *SPATIAL, *COLOUR, "patch", "combined")  # for searches that leave the geometry to the threat


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One name that a user may write.

    Args:
        name: the canonical spelling.
        kind: what it is: an attack, a threat, a transformation, a loss, a model, a data set, a corruption ...
        target: ``package.module:name`` of the object, or the path of the file that describes it.
        summary: one line.
        paper: where the method was published; empty where it has none.
        access: what an attack asks of the model: ``labels``, ``scores`` or ``gradients``; empty for others.
        threats: names of the threats that an attack can use; empty for others.
        inner: the attack (or recipe) that a wrapper runs when none is named; empty for others.
        aliases: shorter names that are understood too.
    """

    name: str
    kind: Kind
    target: str
    summary: str
    paper: str = ""
    access: str = ""
    threats: tuple[str, ...] = ()
    inner: str = ""
    aliases: tuple[str, ...] = ()

    def load(self) -> Any:
        """Import the object that ``target`` names.

        Raises:
            GrammarError: ``target`` is a file, which is read and not imported.
        """
        module, _, attribute = self.target.partition(":")
        if not attribute:
            raise GrammarError(f"{self.kind} {self.name!r} is a file, not an object: {self.target}")
        return getattr(importlib.import_module(module), attribute)

    def as_dict(self) -> dict[str, Any]:
        """The filled fields, ready for JSON."""
        return {key: value for key, value in asdict(self).items() if value}
