"""Which networks a study trains: one per recipe, training eps and number of samples, none of them twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from assay import grammar
from assay.errors import SettingError, ThreatError
from assay.threats import Threat
from assay.training.recipes import Recipe

STANDARD = "standard"


@final
@dataclass(frozen=True, kw_only=True)
class Point:
    """One network to train.

    Args:
        recipe: its text.
        eps: of the training; 0 where the recipe defends against nothing.
        samples: how many it is trained on.
    """

    recipe: str
    eps: float
    samples: int

    @property
    def folder(self) -> str:
        """The name of its folder."""
        slug = re.sub(r"[^A-Za-z0-9.]+", "-", self.recipe).strip("-").lower()
        return f"{slug}-eps-{self.eps:.6g}-samples-{self.samples}"

    def built(self, threat: Threat) -> Recipe:
        """The recipe against a threat of this eps."""
        allowed: Threat = threat.with_eps(self.eps) if self.eps else threat
        found: Recipe = grammar.recipe(self.recipe, allowed)
        return found


@final
@dataclass(frozen=True, kw_only=True)
class Plan:
    """The networks of a study.

    Args:
        threat: what robust accuracy is measured under; its eps is that of training where samples vary.
        recipes: their texts.
        eps: of the training, where all samples are used; 0 is standard training.
        samples: numbers of training samples.
        all: how many samples there are.

    Raises:
        SettingError: a number is out of range, or a recipe is there twice.
        ThreatError: the threat has no budget of one number.
        GrammarError: a recipe cannot be read.
    """

    threat: Threat
    recipes: tuple[str, ...]
    eps: tuple[float, ...]
    samples: tuple[int, ...]
    all: int

    def __post_init__(self) -> None:
        if not isinstance(self.threat.eps, float) or self.threat.eps <= 0:
            raise ThreatError(f"a study needs a threat with a budget above 0, such as Linf(0.1); got {self.threat!r}.")
        if not self.recipes or not self.eps or not self.samples:
            raise SettingError("a study needs at least one recipe, one eps and one number of samples.")
        if min(self.eps) < 0:
            raise SettingError(f"eps must not be negative; got {min(self.eps):g}.")
        if not 1 <= min(self.samples) <= max(self.samples) <= self.all:
            raise SettingError(f"samples must lie between 1 and the {self.all} that there are; got {self.samples}.")
        folders = [point.folder for point in self.points]
        if len(set(self.recipes)) < len(self.recipes) or len(set(folders)) < len(folders):
            raise SettingError(f"each recipe may stand once in a study; got {', '.join(self.recipes)}.")
        for point in self.points:
            point.built(self.threat)

    def over_eps(self, recipe: str) -> list[Point]:
        """The networks of a recipe whose training eps varies, the smallest first."""
        if self._defenceless(recipe):
            return [Point(recipe=recipe, eps=0.0, samples=self.all)]
        return [Point(recipe=recipe if eps else STANDARD, eps=eps, samples=self.all) for eps in sorted(set(self.eps))]

    def over_samples(self, recipe: str) -> list[Point]:
        """The networks of a recipe whose number of samples varies, the smallest first."""
        eps = 0.0 if self._defenceless(recipe) else float(self.threat.eps)  # type: ignore[arg-type]
        return [Point(recipe=recipe, eps=eps, samples=count) for count in sorted(set(self.samples))]

    @property
    def points(self) -> list[Point]:
        """All networks, each once, in the order in which they are trained."""
        every = [point for recipe in self.recipes for point in (*self.over_eps(recipe), *self.over_samples(recipe))]
        return list(dict.fromkeys(every))

    def _defenceless(self, recipe: str) -> bool:
        return grammar.recipe(recipe, self.threat).against is None


def shares(wanted: Sequence[int | str] | None, count: int) -> tuple[int, ...]:
    """Numbers of samples: whole ones, or "all"; a sixteenth, a quarter and all of them when None.

    Raises:
        SettingError: one is neither.

    Example:
        >>> shares(None, 1600), shares([500, "all"], 1600)
        ((100, 400, 1600), (500, 1600))
    """
    if wanted is None:
        return tuple(sorted({max(1, count // 16), max(1, count // 4), count}))
    try:
        return tuple(count if each == "all" else int(each) for each in wanted)
    except ValueError:
        raise SettingError(f"samples are whole numbers or 'all'; got {', '.join(map(str, wanted))}.") from None
