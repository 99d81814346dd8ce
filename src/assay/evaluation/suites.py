"""Suites: which attacks are run one after the other, as versioned TOML or as a list of attacks."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from assay import registry
from assay.attacks import Attack
from assay.errors import AccessError, SettingError
from assay.evaluation.flags import Flag
from assay.evaluation.stages import DRAWS, Stage, Suite
from assay.evaluation.suite_file import read_suite, within
from assay.oracle import Access
from assay.threats import Threat


def default_suite(threat: Threat) -> str:
    """The suite that is run when none is named: without a budget the one that looks for small moves, else by norm."""
    if threat.eps is None:
        return "minimal"
    return "standard" if threat.name.lower() in registry.NORMS else "moves"


def load_suite(
    spec: str | os.PathLike[str] | Sequence[tuple[str, Attack]], threat: Threat, budget: float = 1.0
) -> Suite:
    """Read a suite.

    Args:
        spec: A name (``assay list suites``), the path of a ``.toml`` file, or a list of (name, attack).
        threat: What the word THREAT stands for in the file.
        budget: How many times its usual passes a suite may spend: 1 as its page says.

    Raises:
        GrammarError: No suite has this name, or an attack in the file cannot be read.
        SettingError: The file lacks a key or has one too many, an attack of a list has another threat, the
            budget is not positive or nothing grows with it, or the threat has no budget and an attack of the file
            needs one.

    Example:
        >>> import assay
        >>> [stage.name for stage in load_suite("standard", assay.Linf(0.1)).stages]
        ['apgd-margin', 'apgd-ce', 'pursuit', 'relay', 'relay-ce', 'square']
    """
    if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 < budget < math.inf:
        raise SettingError(f"the budget is a positive number, 1 for a suite as it is; got {budget!r}.")
    if isinstance(spec, (str, os.PathLike)):
        text = os.fspath(spec)
        path = Path(text) if text.endswith(".toml") else Path(registry.get("suite", text).target)
        return read_suite(path, threat, float(budget))
    if budget != 1:
        raise SettingError(
            "a list of attacks has a fixed cost: leave the budget out, or name a suite such as standard."
        )
    stages = []
    for item in [spec] if isinstance(spec, Attack) else spec:
        if not (isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], Attack)):
            raise SettingError(
                f"a suite is a name, a .toml file or a list of (name, attack), such as [('pgd', PGD(threat=threat))]; "
                f"got {item!r}."
            )
        name, attack = item
        stages.append(Stage(name=name, attack=within(name, attack, threat)))
    return Suite(name="custom", version=0, stages=tuple(stages))


def fit(suite: Suite, *, classes: int, access: Access, stochastic: bool = False) -> tuple[Suite, list[Flag]]:
    """The stages that this model and threat allow, and a flag for each that was replaced or skipped.

    Args:
        suite: The suite as written.
        classes: Outputs of the model.
        access: What the model grants.
        stochastic: Whether it says that it is random: stages then ask about draws.

    Raises:
        AccessError: Nothing is left.
    """
    stages: list[Stage] = []
    flags = [
        Flag.of("stage-skipped", f"stage {name} was left out: it is not made for this threat.")
        for name in suite.foreign
    ]
    for stage in suite.stages:
        if stage.without_gradients and access is Access.GRADIENTS:
            continue
        fitting = replace(stage, eot=DRAWS) if stochastic and stage.eot is None else stage
        if classes < stage.min_classes:
            few = f"needs {stage.min_classes} classes and the model has {classes}"
            if stage.fallback is None:
                flags.append(Flag.of("stage-skipped", f"stage {stage.name} was left out: it {few}."))
                continue
            fitting = replace(fitting, attack=stage.fallback)
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
