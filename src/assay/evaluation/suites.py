"""Suites: which attacks are run one after the other, as versioned TOML or as a list of attacks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from assay import grammar, registry
from assay.attacks import Attack
from assay.errors import AccessError, GrammarError, SettingError, ThreatError
from assay.evaluation.flags import Flag
from assay.evaluation.schema import STAGE_NAME, StageRecord, SuiteRecord
from assay.oracle import Access
from assay.threats import Threat

_KEYS: dict[str, tuple[type, str]] = {
    "name": (str, "text"),
    "attack": (str, "text"),
    "threats": (list, "a list of threat names, such as ['linf', 'l2']"),
    "min_classes": (int, "a whole number"),
    "fallback": (str, "text"),
}


@final
@dataclass(frozen=True, kw_only=True)
class Stage:
    """One attack of a suite, and what replaces it on models with few classes.

    Args:
        name: Lower-case letters, digits and dashes; the folder of its shards is named after it.
        attack: The attack.
        min_classes: Fewest classes that its loss is defined for.
        fallback: The attack for models with fewer classes; without one the stage is skipped there.
    """

    name: str
    attack: Attack
    min_classes: int = 2
    fallback: Attack | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Suite:
    """Attacks in order; each is run on the samples that survived those before it.

    Args:
        name: What reports call it.
        version: Grows with every change of a stage, so that numbers of different versions are told apart.
        stages: The attacks.
        description: One line.
        foreign: Names of stages that the file has for other threats only, and whose absence is to be told.
    """

    name: str
    version: int
    stages: tuple[Stage, ...]
    description: str = ""
    foreign: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        names = [stage.name for stage in self.stages] + list(self.foreign)
        if not names:
            raise SettingError(f"suite {self.name!r} has no stages.")
        for name in names:
            if not STAGE_NAME.fullmatch(name) or name in {"clean", "adv"}:
                raise SettingError(
                    f"a stage cannot be called {name!r}: use lower-case letters, digits and dashes, and neither "
                    "'clean' nor 'adv'."
                )
            if names.count(name) > 1:
                raise SettingError(f"suite {self.name!r} has two stages called {name!r}.")

    def record(self) -> SuiteRecord:
        """As it is written to ``run.json``."""
        stages: list[StageRecord] = [{"name": s.name, "attack": repr(s.attack)} for s in self.stages]
        return {"name": self.name, "version": self.version, "stages": stages}


def default_suite(threat: Threat) -> str:
    """The suite that is run when none is named: without a budget the one that looks for small moves, else by norm."""
    if threat.eps is None:
        return "minimal"
    return "standard" if threat.name.lower() in registry.NORMS else "moves"


def load_suite(spec: str | os.PathLike[str] | Sequence[tuple[str, Attack]], threat: Threat) -> Suite:
    """Read a suite.

    Args:
        spec: A name (``assay list suites``), the path of a ``.toml`` file, or a list of (name, attack).
        threat: What the word THREAT stands for in the file.

    Raises:
        GrammarError: No suite has this name, or an attack in the file cannot be read.
        SettingError: The file lacks a key or has one too many, an attack of a list has another threat, or the threat
            has no budget and an attack of the file needs one.

    Example:
        >>> import assay
        >>> [stage.name for stage in load_suite("standard", assay.Linf(0.1)).stages]
        ['apgd-ce', 'apgd-t', 'square']
    """
    if isinstance(spec, (str, os.PathLike)):
        text = os.fspath(spec)
        path = Path(text) if text.endswith(".toml") else Path(registry.get("suite", text).target)
        return _read(path, threat)
    stages = []
    for item in [spec] if isinstance(spec, Attack) else spec:
        if not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], Attack)):
            raise SettingError(
                f"a suite is a name, a .toml file or a list of (name, attack), such as [('pgd', PGD(threat=threat))]; "
                f"got {item!r}."
            )
        name, attack = item
        stages.append(Stage(name=name, attack=_within(name, attack, threat)))
    return Suite(name="custom", version=0, stages=tuple(stages))


def _within(name: str, attack: Attack, threat: Threat) -> Attack:
    """The attack itself, which must search the run's own threat: what it finds elsewhere says nothing about it."""
    if attack.threat != threat:
        raise SettingError(
            f"stage {name!r} attacks within {attack.threat!r}, the run asks about {threat!r}: give both the same "
            "(in a suite file write THREAT)."
        )
    return attack


def fit(suite: Suite, *, classes: int, access: Access) -> tuple[Suite, list[Flag]]:
    """The stages that this model and threat allow, and a flag for each that was replaced or skipped.

    Args:
        suite: The suite as written.
        classes: Outputs of the model.
        access: What the model grants.

    Raises:
        AccessError: Nothing is left.
    """
    stages: list[Stage] = []
    flags = [
        Flag.of("stage-skipped", f"stage {name} was left out: it is not made for this threat.")
        for name in suite.foreign
    ]
    for stage in suite.stages:
        fitting = stage
        if classes < stage.min_classes:
            few = f"needs {stage.min_classes} classes and the model has {classes}"
            if stage.fallback is None:
                flags.append(Flag.of("stage-skipped", f"stage {stage.name} was left out: it {few}."))
                continue
            fitting = replace(stage, attack=stage.fallback)
            flags.append(Flag.of("fallback", f"stage {stage.name} {few}: {fitting.attack!r} was run in its place."))
        if fitting.attack.access > access:
            needs, grants = fitting.attack.access.name.lower(), access.name.lower()
            flags.append(
                Flag.of(
                    "stage-skipped",
                    f"stage {stage.name} was left out: it needs {needs} and the model grants {grants}.",
                )
            )
        else:
            stages.append(fitting)
    if not stages:
        raise AccessError(
            f"no stage of suite {suite.name!r} can be run on this model and threat: "
            + " ".join(flag.message for flag in flags)
            + " Give attacks that fit (`assay list attacks` tells what each needs), such as Square for scores within a "
            "budget, or the suite black-box (without a budget minimal-black-box)."
        )
    return replace(suite, stages=tuple(stages)), flags


def _read(path: Path, threat: Threat) -> Suite:
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
            stages.append(_stage(content["name"], table, threat))
        elif not per_threat:
            foreign.append(table["name"])
    if not stages and not foreign:
        raise SettingError(f"suite {content['name']!r} has no attacks for {threat!r}: give some of your own.")
    return Suite(
        name=content["name"],
        version=content["version"],
        stages=tuple(stages),
        description=str(content.get("description", "")),
        foreign=tuple(foreign),
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
        if not isinstance(value, kind) or isinstance(value, bool):
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


def _stage(suite: str, table: dict[str, Any], threat: Threat) -> Stage:
    def read(text: str) -> Attack:
        try:
            attack = grammar.attack(text, names={"THREAT": threat})
        except GrammarError as error:
            if threat.eps is None and isinstance(error.__cause__, ThreatError):
                raise _unbounded(suite, table["name"], threat, error.__cause__) from error
            raise
        return _within(table["name"], attack, threat)

    fallback = table.get("fallback")
    return Stage(
        name=table["name"],
        attack=read(table["attack"]),
        min_classes=table.get("min_classes", 2),
        fallback=read(fallback) if fallback else None,
    )


def _unbounded(suite: str, stage: str, threat: Threat, reason: ThreatError) -> SettingError:
    """An attack of a suite cannot do without a budget: which ways there are."""
    return SettingError(
        f"stage {stage!r} of suite {suite!r} cannot be run: {reason} For robust accuracy within a budget give eps, as "
        f"in {threat.name}:0.1; for the smallest perturbations use the suite minimal, the default without eps."
    )
