"""What names and calls in an expression mean: attacks, threats, recipes and whatever else the registry holds.

A call is fitted to the signature of what it builds before that is built, so that every mistake is shown at
its place together with what could stand there. Parameters are read from the signatures, never listed here.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from assay import registry
from assay.errors import AssayError, GrammarError
from assay.expression import CONSTANTS, Expression

if TYPE_CHECKING:
    from assay.threats import Threat

_EQUALS = re.compile(r"(?P<name>[A-Za-z_][\w-]*)\s*=\s*(?P<arguments>[^=]*)", re.DOTALL)
_SHORT = re.compile(r"(?P<name>[A-Za-z_][\w-]*)(?::(?P<arguments>.*))?", re.DOTALL)
_CALLED = tuple(kind for kind in registry.KINDS if kind not in ("loss", "model", "data", "suite"))  # written as calls


class Calls(Expression):
    """Gives names and calls their meaning: those of the registry."""

    def __init__(
        self,
        text: str,
        *,
        names: Mapping[str, object] | None = None,
        threat: Threat | None = None,
        short: bool = False,
        default: bool = False,
    ) -> None:
        text = text.strip()
        self._wanted: registry.Kind | None = None  # what the outermost call has to build
        self.default = default  # the text is a default: settings may replace what it says
        self.names = names or {}
        self.threat = threat
        match = _SHORT.fullmatch(text) if short else None
        source = None
        if match and match["name"] not in self.names:  # the call has every character at the same place
            source = f"{match['name'].replace('-', '_')}({match['arguments'] or ''})"
        meant = _EQUALS.fullmatch(text) if short else None
        if meant and registry.find("threat", meant["name"]):
            raise GrammarError(f"a threat is written {meant['name']}:{meant['arguments']}; found {text!r}.")
        super().__init__(text, source)

    def read(self, expect: type | None = None, settings: Mapping[str, Any] | None = None) -> Any:
        """The object that the text describes; settings join its outermost call."""
        kind = "" if expect is None else expect.__name__.lower()
        self._wanted = next((k for k in registry.KINDS if k == kind), self._wanted)
        if self._wanted == kind and registry.find(self._wanted, self._called()) is None and _callable(self._called()):
            raise self._unexpected(kind, None)
        if isinstance(self.tree, ast.Call):
            found = self._build(self.tree, settings or {}, 0)
        elif settings:
            raise self.error("settings can only be added to an attack", self.tree)
        else:
            found = self.visit(self.tree)
        if expect is not None and not isinstance(found, expect):
            raise self._unexpected(expect.__name__.lower(), found)
        return found

    def read_kind(self, kind: registry.Kind, settings: Mapping[str, Any]) -> Any:
        """As `read`, for an object that the registry holds under this kind."""
        self._wanted = kind
        called = self._called()
        if registry.find(kind, called) is None and (called == "" or _callable(called)):
            raise self._unexpected(kind, None if called else self.read(settings=settings))
        return self.read(settings=settings)

    def _called(self) -> str:
        """The name of the outermost call; empty where there is none."""
        called = self.tree.func if isinstance(self.tree, ast.Call) else None
        return called.id if isinstance(called, ast.Name) else ""

    def _unexpected(self, kind: str, found: Any) -> AssayError:
        """The error of a text that describes another kind of thing: this object, or what the outermost call builds."""
        known = [name for k in registry.KINDS if k == kind for name in registry.names(k)]
        entry = _callable(self._called())
        what = f"{entry.name}, {_a(entry.kind)}" if entry else repr(found)
        close = registry.near(entry.name, known) if entry else []
        lead = f" Did you mean {' or '.join(f'{name}(...)' for name in close)}?" if close else ""
        offer = f" Known: {', '.join(known)}." if known and not close else ""
        return self.error(f"expected {_a(kind)}, found {what}.{lead}{offer}", self.tree)

    def name(self, node: ast.Name) -> Any:
        """Names from outside, constants, and losses (by their own name)."""
        if node.id in self.names:
            return self.names[node.id]
        if loss := registry.find("loss", node.id):
            return loss.name
        if entry := _callable(node.id):
            raise self.error(f"{entry.name} is written as a call: {entry.name}(...)", node)
        if node.id.casefold() in CONSTANTS:
            return super().name(node)
        known = [*self.names, *_callables(), *registry.names("loss")]
        raise self.error(f"unknown name {node.id!r}. {registry.hint(node.id, known)}", node)

    def call(self, node: ast.Call, depth: int) -> Any:
        """Build what is called."""
        return self._build(node, {}, depth)

    def _build(self, node: ast.Call, settings: Mapping[str, Any], depth: int) -> Any:
        if not isinstance(node.func, ast.Name):
            raise self.error("only names that `assay list` shows can be called", node.func)
        entry = _callable(node.func.id)
        if entry is None:
            known = registry.names(self._wanted) if self._wanted and node is self.tree else _callables()
            raise self.error(f"unknown name {node.func.id!r}. {registry.hint(node.func.id, known)}", node.func)
        target = entry.load()
        signature = inspect.signature(target)
        arguments, keywords = self._given(node, entry, signature, depth)
        self._add(node, entry, signature, keywords, settings)
        self._add_threat(node, entry, signature, keywords)
        self._check(node, entry, signature, arguments, keywords)
        try:
            return target(*arguments, **keywords)
        except (AssayError, TypeError, ValueError, ArithmeticError) as error:
            lead = "" if str(error).startswith(entry.name) else f"{entry.name}: "
            raise self.error(f"{lead}{error}", node) from error

    def _given(
        self, node: ast.Call, entry: registry.Entry, signature: inspect.Signature, depth: int
    ) -> tuple[list[Any], dict[str, Any]]:
        """The values of the arguments as written."""
        for part in node.args:
            if isinstance(part, ast.Starred):
                raise self.error("* and ** cannot be used here", part)
        for keyword in node.keywords:
            if keyword.arg is None:
                raise self.error("* and ** cannot be used here", keyword.value)
            self._known(entry, keyword.arg, signature, keyword)
            if sum(other.arg == keyword.arg for other in node.keywords) > 1:
                raise self.error(f"{keyword.arg!r} is given twice", keyword)
        arguments = [self.visit(argument, depth + 1) for argument in node.args]
        return arguments, {str(k.arg): self.visit(k.value, depth + 1) for k in node.keywords}

    def _add(
        self,
        node: ast.Call,
        entry: registry.Entry,
        signature: inspect.Signature,
        keywords: dict[str, Any],
        settings: Mapping[str, Any],
    ) -> None:
        """Join settings from outside to a call; ``attack.name`` goes to the inner attack of a wrapper.

        A wrapper of recipes has ``recipe.name`` in its place.
        """
        part = "recipe" if "recipe" in signature.parameters else "attack"
        lead = f"{part}."
        inner = {name[len(lead) :]: given for name, given in settings.items() if name.startswith(lead)}
        for name, given in settings.items():
            if name.startswith(lead) and entry.inner:
                continue
            self._known(entry, name, signature, node)
            if name in keywords and not self.default:
                raise self.error(f"{name!r} is given here and as a setting", node)
            keywords[name] = given
        if entry.inner and part not in keywords:
            reader = Calls(entry.inner, names=self.names, threat=self.threat, short=True, default=True)
            keywords[part] = reader.read(settings=inner)
        elif inner:
            raise self.error(f"the inner {part} is written out: put its settings there", node)

    def _add_threat(
        self, node: ast.Call, entry: registry.Entry, signature: inspect.Signature, keywords: dict[str, Any]
    ) -> None:
        if self.threat is None or entry.kind not in ("attack", "recipe") or "threat" not in signature.parameters:
            return
        own = keywords.setdefault("threat", self.threat)
        if own is not self.threat and repr(own) != repr(self.threat) and self._wanted == "attack":
            place = next((k for k in node.keywords if k.arg == "threat"), node)
            raise self.error(f"{entry.name} has the threat {own!r}, but {self.threat!r} is given too: keep one", place)

    def _known(self, entry: registry.Entry, name: str, signature: inspect.Signature, node: ast.AST) -> None:
        if name not in signature.parameters:
            close = registry.near(name, signature.parameters)
            lead = f" Did you mean {' or '.join(close)}?" if close else ""
            raise self.error(f"{entry.name} has no {name!r}.{lead} It takes {', '.join(signature.parameters)}.", node)

    def _check(
        self,
        node: ast.Call,
        entry: registry.Entry,
        signature: inspect.Signature,
        arguments: list[Any],
        keywords: dict[str, Any],
    ) -> None:
        """Say what is wrong before the constructor does: too many arguments, a missing one, a wrong type."""
        parameters = signature.parameters.values()
        places = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
        endless = any(p.kind is p.VAR_POSITIONAL for p in places)
        if len(arguments) > len(places) and not endless:
            listed = ", ".join(signature.parameters)
            manner = f"takes only {listed}" if places else f"takes its settings by name: {listed}"
            raise self.error(f"{entry.name} {manner}", node.args[len(places)])
        filled = {*keywords, *(p.name for p in places[: len(arguments)])}
        for name in [p.name for p in places if p.kind is p.VAR_POSITIONAL and p.name in keywords]:
            raise self.error(f"{entry.name} takes its {name} one after the other, without {name}=", node)
        needed = [p.name for p in parameters if p.default is p.empty and p.kind is not p.VAR_POSITIONAL]
        if missing := [name for name in needed if name not in filled]:
            cure = ": give --threat, or threat=Linf(8/255)" if "threat" in missing else ""
            raise self.error(f"{entry.name} needs {' and '.join(missing)}{cure}", node)
        if twice := [p.name for p in places[: len(arguments)] if p.name in keywords]:
            raise self.error(f"{twice[0]!r} is given twice", node)
        self._check_types(node, entry, signature, signature.bind(*arguments, **keywords).arguments, keywords)

    def _check_types(
        self,
        node: ast.Call,
        entry: registry.Entry,
        signature: inspect.Signature,
        bound: Mapping[str, Any],
        keywords: dict[str, Any],
    ) -> None:
        """Hold each value against its annotation; a whole number where a float belongs becomes one."""
        written: dict[str, ast.expr] = dict(zip(signature.parameters, node.args, strict=False))
        written |= {str(keyword.arg): keyword.value for keyword in node.keywords}
        for name, given in bound.items():
            parameter = signature.parameters[name]
            annotation = _annotation(parameter)
            each = [(given, written.get(name, node))]
            if parameter.kind is parameter.VAR_POSITIONAL:
                each = list(zip(given, node.args[-len(given) :], strict=True))
            for one, place in each:
                if not _fits(one, annotation):
                    raise self.error(f"{name} of {entry.name} has to be {annotation}, found {one!r}", place)
            if name in keywords and type(given) is int and "int" not in annotation:
                keywords[name] = float(given)  # so that 1 and 1.0 give one repr


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _callable(name: str) -> registry.Entry | None:
    return next((entry for kind in _CALLED if (entry := registry.find(kind, name))), None)


def _callables() -> tuple[str, ...]:
    return tuple(name for kind in _CALLED for name in registry.names(kind))


def _annotation(parameter: inspect.Parameter) -> str:
    found = parameter.annotation
    return found.__name__ if isinstance(found, type) else str(found)


def _fits(given: Any, annotation: str) -> bool:
    """Whether a value is of an annotated type; one that the annotation's words cannot tell is not judged."""
    kinds = {part.strip() for part in annotation.split("|")}
    if isinstance(given, bool):
        return "bool" in kinds
    if isinstance(given, int):
        return bool(kinds & {"int", "float"})
    if isinstance(given, float):
        return "float" in kinds
    if isinstance(given, str):
        return "str" in kinds or "Literal" in annotation
    if given is None:
        return "None" in kinds
    known = {"Attack", "Defense", "Threat", "Transformation"}
    return not kinds <= known or bool(kinds & {cls.__name__ for cls in type(given).__mro__})
