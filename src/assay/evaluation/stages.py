"""What a suite is made of: stages, each an attack with what it needs, and how they are written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from typing_extensions import Self

from assay import grammar
from assay.attacks import Attack
from assay.errors import SettingError
from assay.evaluation.schema import STAGE_NAME, Mode, StageRecord, SuiteRecord
from assay.transformations import EOT

DRAWS = EOT(draws=20)  # what a model that says that it is random is asked for, where a stage says nothing


@final
@dataclass(frozen=True, kw_only=True)
class Stage:
    """One attack of a suite, and what replaces it on models with few classes.

    Args:
        name: Lower-case letters, digits and dashes; the folder of its shards is named after it.
        attack: The attack.
        min_classes: Fewest classes that its loss is defined for.
        fallback: The attack for models with fewer classes; without one the stage is skipped there.
        without_gradients: It is for models that grant no gradients only.
        eot: Random views, or draws of a random model, that every question is asked about.
        mode: Of a run that shows a defense: what the attack knows; None in others.
    """

    name: str
    attack: Attack
    min_classes: int = 2
    fallback: Attack | None = None
    without_gradients: bool = False
    eot: EOT | None = None
    mode: Mode | None = None

    def record(self) -> StageRecord:
        """As it is written to ``run.json``."""
        found: StageRecord = {"name": self.name, "attack": repr(self.attack)}
        if self.eot is not None:
            found["eot"] = repr(self.eot)
        if self.mode is not None:
            found["mode"] = self.mode
        return found

    @classmethod
    def read(cls, record: StageRecord) -> Self:
        """The stage that was written down.

        Raises:
            GrammarError: Its attack is not registered, or has a setting that cannot be written.
        """
        eot = grammar.eot(record["eot"]) if "eot" in record else None
        attack = grammar.attack(record["attack"])
        return cls(name=record["name"], attack=attack, eot=eot, mode=record.get("mode"))


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
        budget: By how much the stages were lengthened.
    """

    name: str
    version: int
    stages: tuple[Stage, ...]
    description: str = ""
    foreign: tuple[str, ...] = ()
    budget: float = 1.0

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
        stages = [stage.record() for stage in self.stages]
        found: SuiteRecord = {"name": self.name, "version": self.version, "stages": stages}
        if self.budget != 1:
            found["budget"] = self.budget
        return found

    @classmethod
    def read(cls, record: SuiteRecord) -> Self:
        """The suite that was written down, without what it had for other threats and models."""
        stages = tuple(map(Stage.read, record["stages"]))
        return cls(name=record["name"], version=record["version"], stages=stages, budget=record.get("budget", 1.0))
