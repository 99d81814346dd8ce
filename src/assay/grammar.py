"""One notation for settings: an attack or a threat is written as the call that builds it.

The same text works on the command line, in suite files, in ``run.json`` and as ``repr``. It is read against
the registry: known names, literals and arithmetic on numbers. Nothing is ever evaluated as code.

Example:
    >>> from assay import grammar
    >>> grammar.threat("linf:8/255")
    Linf(0.03137254901960784)
    >>> grammar.value("(2**3 - 1) / 2")
    3.5
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from assay.calls import Calls
from assay.errors import GrammarError
from assay.expression import CONSTANTS

if TYPE_CHECKING:
    from assay.attacks import Attack
    from assay.threats import Threat
    from assay.transformations import EOT

T = TypeVar("T")

_WORD = re.compile(r"[A-Za-z_][\w-]*")


@overload
def parse(text: str, expect: type[T], *, names: Mapping[str, object] | None = None) -> T: ...
@overload
def parse(text: str, expect: None = None, *, names: Mapping[str, object] | None = None) -> Any: ...
def parse(text: str, expect: type[T] | None = None, *, names: Mapping[str, object] | None = None) -> Any:
    """Read one expression.

    Args:
        text: for instance ``PGD(threat=Linf(8/255), steps=100)``; names in any case.
        expect: the type that the result must have; any when None.
        names: further names that the text may use, such as ``THREAT`` in suite files.

    Raises:
        GrammarError: the text could not be read, a name or a parameter is unknown, or a setting is out of its
            range; the message shows the place and what could stand there.

    Example:
        >>> parse("[1, 2.5, -3**2, 'a', None]")
        [1, 2.5, -9, 'a', None]
    """
    return Calls(text, names=names).read(expect)


def value(text: str) -> Any:
    """Read the value of one setting: an expression, or a bare word, which stands for itself.

    Raises:
        GrammarError: as in `parse`.

    Example:
        >>> value("8/255"), value("dlr")
        (0.03137254901960784, 'dlr')
    """
    return _value(text, None)


def threat(text: str) -> Threat:
    """Read a threat: ``Linf(8/255)``, or short ``linf:8/255``, or ``linf`` for one without a budget.

    Raises:
        GrammarError: as in `parse`.

    Example:
        >>> threat("l2:0.5")
        L2(0.5)
    """
    from assay.threats import Threat

    return cast("Threat", Calls(text, short=True).read(Threat))


def eot(text: str) -> EOT:
    """Read an expectation over transformations: ``EOT(Rotate(20), Brightness(0.1), draws=10)``.

    A transformation alone, or a list of some, stands for one with its default number of draws.

    Raises:
        GrammarError: as in `parse`.

    Example:
        >>> eot("EOT(Rotate(20), draws=5)").draws, eot("[Rotate(20), Noise(0.1)]")
        (5, EOT(Rotate(20), Noise(0.1), draws=10))
    """
    from assay.transformations import EOT, Transformation

    found = parse(text)
    alone = found if isinstance(found, list) else [found]
    if alone and all(isinstance(each, Transformation) for each in alone):
        return EOT(*alone)
    if not isinstance(found, EOT):
        raise GrammarError(f"write random views as EOT(Rotate(20), Noise(0.05), draws=10); found {found!r}.")
    return found


def attack(
    text: str,
    threat: Threat | str | None = None,
    settings: Mapping[str, Any] | Iterable[str] = (),
    *,
    names: Mapping[str, object] | None = None,
) -> Attack:
    """Read an attack: a full call, or a name to which threat and settings are added.

    Args:
        text: ``pgd``, ``PGD(steps=100)`` or ``PGD(threat=Linf(8/255), steps=100)``.
        threat: for every attack in the text that names none; a wrapper passes it to its inner attack.
        settings: parameters of the outermost attack, as a mapping or as texts ``name=value``; a wrapper's
            ``attack.name`` sets its inner attack. Text values are read by the grammar.
        names: as in `parse`.

    Raises:
        GrammarError: as in `parse`; also when the text has another threat than the one given, or when a
            setting is given twice.

    Example:
        >>> attack("fgsm", threat="linf:0.1").steps
        1
    """
    from assay.attacks import Attack

    common = parse_threat(threat) if isinstance(threat, str) else threat
    reader = Calls(text, names=names, threat=common, short=True)
    return cast("Attack", reader.read(Attack, _settings(settings, common)))


def recipe(text: str, threat: Threat | str | None = None, settings: Mapping[str, Any] | Iterable[str] = ()) -> Any:
    """Read a training recipe: a full call, or a name to which threat and settings are added.

    Args:
        text: ``trades``, ``TRADES(beta=6)`` or ``TRADES(attack=PGD(threat=Linf(8/255), steps=10), beta=6)``.
        threat: for every attack in the text that names none; those that name another keep it.
        settings: parameters of the recipe, as a mapping or as texts ``name=value``; ``attack.name`` sets its attack.

    Raises:
        GrammarError: as in `attack`.
    """
    common = parse_threat(threat) if isinstance(threat, str) else threat
    return Calls(text, threat=common, short=True).read_kind("recipe", _settings(settings, common))


def named(text: str, expect: type[T]) -> T:
    """Read a part of training, such as a schedule or a network: a call, or the name of one without settings.

    Args:
        text: for instance ``Cosine(warmup=0.1)``, or ``cosine``.
        expect: the type that the result must have.

    Raises:
        GrammarError: as in `parse`.
    """
    return cast("T", Calls(text, short=True).read(expect))


parse_threat = threat  # inside `attack` the name stands for its parameter


def _settings(settings: Mapping[str, Any] | Iterable[str], common: Threat | None) -> dict[str, Any]:
    """The settings by name, their texts read."""
    pairs: list[tuple[str, Any]] = []
    if isinstance(settings, Mapping):
        pairs.extend(settings.items())
    else:
        for setting in settings:
            name, equals, text = setting.partition("=")
            if not equals or not name.strip():
                raise GrammarError(f"a setting is written name=value, for instance steps=100; found {setting!r}.")
            pairs.append((name.strip(), text.strip()))
    found: dict[str, Any] = {}
    for name, given in pairs:
        if name in found:
            raise GrammarError(f"the setting {name!r} is given twice.")
        found[name] = _setting(name, given, common) if isinstance(given, str) else given
    return found


def _setting(name: str, text: str, common: Threat | None) -> Any:
    last = name.rpartition(".")[2]
    try:
        if last == "threat":
            return threat(text)
        if last == "recipe":
            return recipe(text, common)
        return attack(text, common) if last == "attack" else _value(text, common)
    except GrammarError as error:
        raise GrammarError(f"in the setting {name}: {error}") from error


def _value(text: str, common: Threat | None) -> Any:
    text = text.strip()
    if _WORD.fullmatch(text) and text.casefold() not in CONSTANTS:
        return text
    return Calls(text, threat=common).read()
