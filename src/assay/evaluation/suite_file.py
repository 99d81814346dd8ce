"""Suites as TOML files: stages in order, for a threat and with a budget."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from assay import grammar, registry
from assay.attacks import Attack
from assay.errors import GrammarError, SettingError, ThreatError
from assay.evaluation.stages import Stage, Suite
from assay.threats import Threat

T = TypeVar("T")

_KEYS: dict[str, tuple[type, str]] = {
    "name": (str, "text"),
    "attack": (str, "text"),
    "threats": (list, "a list of threat names, such as ['linf', 'l2']"),
    "min_classes": (int, "a whole number"),
    "fallback": (str, "text"),
    "eot": (str, "text, such as 'EOT(draws=20)'"),
    "without_gradients": (bool, "true or false"),
    "scaled": (list, "a list of settings, such as ['steps']"),
}


def within(name: str, attack: Attack, threat: Threat) -> Attack:
    """The attack itself, which must search the run's own threat: what it finds elsewhere says nothing about it.

    Raises:
        SettingError: It has another one.
    """
    if attack.threat != threat:
        raise SettingError(
            f"stage {name!r} attacks within {attack.threat!r}, the run asks about {threat!r}: give both the same "
            "(in a suite file write THREAT)."
        )
    return attack


def read_suite(path: Path, threat: Threat, budget: float = 1.0) -> Suite:
    """Read a suite file.

    Args:
        path: The file.
        threat: What the word THREAT stands for in it.
        budget: What the settings that a stage names as ``scaled`` are multiplied by.

    Raises:
        GrammarError: An attack in the file cannot be read.
        SettingError: The file lacks a key or has one too many, nothing in it grows with a budget, or the threat has no
            budget and an attack of the file needs one.
    """
    try:
        content = registry.read_toml(path)
    except OSError as error:
        raise SettingError(f"suite {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise SettingError(f"suite {path} is not valid TOML: {error}") from error
    for key, kind in (("name", str), ("version", int), ("stage", list)):
        if not isinstance(content.get(key), kind) or isinstance(content.get(key), bool):
            raise SettingError(f"suite {path} lacks {key!r} (a {kind.__name__}).")
    per_threat = content.get("per_threat", False)
    if not isinstance(per_threat, bool):
        raise SettingError(f"suite {path} has per_threat = {per_threat!r}; it has to be true or false.")
    stages, foreign = [], []
    for number, table in enumerate(content["stage"], start=1):
        _check_keys(path, number, table)
        if threat.name.lower() in _threats(path, number, table, threat):
            stages.append(_stage(content["name"], table, threat, budget))
        elif not per_threat:
            foreign.append(table["name"])
    if not stages and not foreign:
        raise SettingError(f"suite {content['name']!r} has no attacks for {threat!r}: give some of your own.")
    if budget != 1 and not any("scaled" in table for table in content["stage"]):
        raise SettingError(
            f"suite {content['name']!r} has a fixed cost: leave the budget out, or name a suite that grows with it, "
            "such as standard."
        )
    return Suite(
        name=content["name"],
        version=content["version"],
        stages=tuple(stages),
        description=str(content.get("description", "")),
        foreign=tuple(foreign),
        budget=budget,
    )


def _check_keys(path: Path, number: int, table: Any) -> None:
    if not isinstance(table, dict):
        raise SettingError(f"suite {path}: stage {number} is {table!r}; write each stage as a [[stage]] table.")
    missing, unknown = {"name", "attack"} - set(table), set(table) - set(_KEYS)
    if missing or unknown:
        problem = f"lacks {sorted(missing)[0]!r}" if missing else f"has the unknown key {sorted(unknown)[0]!r}"
        raise SettingError(f"suite {path}: stage {number} {problem}; its keys are {', '.join(sorted(_KEYS))}.")
    for key, value in table.items():
        kind, words = _KEYS[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise SettingError(f"suite {path}: stage {number} has {key} = {value!r}; it has to be {words}.")


def _threats(path: Path, number: int, table: dict[str, Any], threat: Threat) -> set[str]:
    """Names of the threats that a stage is made for, in lower case."""
    known = {name.lower() for name in registry.names("threat")} | {threat.name.lower()}
    found = {str(name).lower() for name in table.get("threats", known)}
    if found - known:
        raise SettingError(
            f"suite {path}: stage {number} names the threat {sorted(found - known)[0]!r}; known are "
            f"{', '.join(sorted(known))}."
        )
    return found


def _stage(suite: str, table: dict[str, Any], threat: Threat, budget: float) -> Stage:
    def read(text: str) -> Attack:
        try:
            attack = grammar.attack(text, names={"THREAT": threat})
        except GrammarError as error:
            if threat.eps is None and isinstance(error.__cause__, ThreatError):
                raise _unbounded(suite, table["name"], threat, error.__cause__) from error
            raise
        attack = within(table["name"], attack, threat)
        for setting in table.get("scaled", []):
            attack = _scaled(attack, str(setting), budget, f"stage {table['name']!r} of suite {suite!r}")
        return attack

    fallback = table.get("fallback")
    return Stage(
        name=table["name"],
        attack=read(table["attack"]),
        min_classes=table.get("min_classes", 2),
        fallback=read(fallback) if fallback else None,
        without_gradients=table.get("without_gradients", False),
        eot=grammar.eot(table["eot"]) if "eot" in table else None,
    )


def _scaled(attack: T, setting: str, budget: float, where: str) -> T:
    """The attack with a setting (of its inner attack: ``attack.steps``) multiplied by the budget, at least 1."""
    name, _, inner = setting.partition(".")
    value = getattr(attack, name, None)
    known = is_dataclass(attack) and name in {field.name for field in fields(attack)}
    if inner and known and is_dataclass(value):
        return replace(attack, **{name: _scaled(value, inner, budget, where)})  # type: ignore[type-var]
    if inner or not known or isinstance(value, bool) or not isinstance(value, (int, float)):
        raise SettingError(f"{where} scales {setting!r}, which is no number among the settings of {attack!r}.")
    more = max(1, round(value * budget)) if isinstance(value, int) else value * budget
    return replace(attack, **{name: more})  # type: ignore[type-var]


def _unbounded(suite: str, stage: str, threat: Threat, reason: ThreatError) -> SettingError:
    """An attack of a suite cannot do without a budget: which ways there are."""
    return SettingError(
        f"stage {stage!r} of suite {suite!r} cannot be run: {reason} For robust accuracy within a budget give eps, as "
        f"in {threat.name}:0.1; for the smallest perturbations use the suite minimal, the default without eps."
    )
