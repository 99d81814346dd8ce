"""Runs that show a defense twice: to attacks that do not know of it, and to attacks that do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from assay.attacks import Attack
from assay.attacks.transfer import Transfer
from assay.defenses import Defense
from assay.errors import GrammarError, ModelError, SettingError
from assay.evaluation.merge import Table, share
from assay.evaluation.schema import DefenseResult, Mode, StageRecord
from assay.evaluation.stages import Stage, Suite
from assay.goals import Untargeted
from assay.models import Defended
from assay.models.defended import read_defense, written
from assay.models.load import load_model, recorded
from assay.oracle import Access
from assay.threats import Threat


def around(
    model: Any,
    defense: Defense | str | Sequence[Defense | str],
    name: str | None,
    threat: Threat,
    *,
    device: torch.device,
    by_name: bool,
) -> tuple[Any, str | None]:
    """The defended model, and what reports call it.

    It is text where the model is text and the defenses are in the registry, so that other processes can load it.

    Args:
        model: What is defended.
        defense: With what.
        name: What reports call the model.
        threat: The run's threat.
        device: Where a model goes that is loaded here.
        by_name: Other processes have to load it.

    Raises:
        GrammarError: A defense cannot be read, by other processes where there are some.
        SettingError: There is none, or the threat has no budget: what a defense claims is an accuracy at an eps.
    """
    if threat.eps is None:
        raise SettingError(
            f"what a defense claims and what stands is told at an eps: give one, as in {threat.name}:0.1."
        )
    several = [defense] if isinstance(defense, (Defense, str)) else list(defense)
    defenses = [read_defense(each) if isinstance(each, str) else each for each in several]
    told = written(name or (recorded(model) if isinstance(model, str) else type(model).__name__), defenses)
    if not isinstance(model, str):
        return Defended(model, *defenses), told
    try:
        for each in defenses:
            read_defense(repr(each))
    except GrammarError:
        if by_name:
            raise
        return Defended(load_model(model, device=device), *defenses), told
    return written(model, defenses), told


def bare(model: Any) -> Any:
    """The model behind the defenses."""
    parts = model.modules() if isinstance(model, nn.Module) else ()
    found = next((part for part in parts if isinstance(part, Defended)), None)
    return model if found is None else found.model


def source(model: Any, surrogate: Any, x: Tensor) -> Any:
    """What attacks that do not know of the defense attack: the surrogate, or the bare model when None.

    Raises:
        ModelError: It does not take the inputs, as a network that was trained on encoded ones.
    """
    found = load_model(surrogate, device=x.device) if isinstance(surrogate, str) else surrogate
    found = bare(model) if found is None else found
    try:
        with torch.no_grad():
            found(x[:1])
    except (RuntimeError, ValueError) as error:
        raise ModelError(
            f"attacks that do not know of the defense need a model that takes inputs of shape {tuple(x.shape[1:])}, "
            f"and the one behind the defense does not ({str(error).splitlines()[0]}): name another with --surrogate."
        ) from error
    return found


def twice(suite: Suite, *, rejects: bool) -> Suite:
    """The stages as attacks on the bare model, judged on the defended one, and then as attacks on the defended one.

    Where inputs are rejected, a third round takes samples of which a rejected input is found: the other reading.
    """
    white = [stage for stage in suite.stages if stage.attack.access is Access.GRADIENTS] or suite.stages
    rounds: list[tuple[Mode, Sequence[Stage]]] = [
        ("oblivious", white),
        ("adaptive", suite.stages),
        ("rejected", suite.stages if rejects else ()),
    ]
    stages = [
        replace(stage, name=f"{mode}-{stage.name}", mode=mode, fallback=None) for mode, some in rounds for stage in some
    ]
    return replace(suite, stages=tuple(stages))


def posed(stage: Stage, surrogate: Any) -> Attack:
    """The attack of a stage: where it does not know of the defense, one on the bare model."""
    if stage.mode != "oblivious":
        return stage.attack
    return Transfer(surrogate=surrogate, attack=stage.attack)


def goal(stage: Stage, y: Tensor, rejected: int | None) -> Untargeted:
    """What a stage looks for without a target; being rejected is no success but in the round of that name."""
    return Untargeted(y, rejected=None if stage.mode == "rejected" else rejected)


def result(stages: list[StageRecord], table: Table, rejected: int | None) -> DefenseResult:
    """What a defense claims and what stands, from the samples' fates.

    Args:
        stages: All stages, which follow each other in rounds.
        table: The per-sample worst case.
        rejected: The decision that stands for a rejected input.
    """

    def after(mode: str) -> Tensor:
        last = max(number for number, stage in enumerate(stages, start=1) if stage.get("mode") == mode)
        left: Tensor = table.robust | (table.stage > last)
        return left

    found: DefenseResult = {"claimed": share(after("oblivious")), "stands": share(after("adaptive"))}
    if rejected is not None:
        found["rejected_lost"] = share(after("rejected"))
        found["clean_rejected"] = int((table.prediction == rejected).sum())
    return found


def verdict(found: DefenseResult) -> str:
    """The two numbers in a line.

    Example:
        >>> accuracy = {"low": 0.0, "high": 1.0, "correct": 0, "samples": 0}
        >>> verdict({"claimed": {"value": 0.71, **accuracy}, "stands": {"value": 0.03, **accuracy}})
        'claimed 71.0%, stands at 3.0%'
    """
    words = f"claimed {found['claimed']['value']:.1%}, stands at {found['stands']['value']:.1%}"
    if "rejected_lost" in found:
        words += f" ({found['rejected_lost']['value']:.1%} where rejected inputs count as lost)"
    return words
