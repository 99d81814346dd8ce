"""The settings of a training run, checked."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, final

from assay.errors import SettingError
from assay.threats import Threat
from assay.training.augmentation import Augmentation, Mixup
from assay.training.averaging import Average
from assay.training.optimizers import AdamW, Optimizer
from assay.training.recipes import GenerativeRecipe, Recipe
from assay.training.schedules import Cyclic, Schedule


@final
@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a network is trained; everything that its weights depend on besides network and data.

    Args:
        recipe: what each step minimises.
        epochs: passes over the data.
        batch: samples of a step, over all processes.
        optimizer: what makes steps of gradients.
        schedule: the learning rate over the run, as a factor of the optimizer's.
        average: average of the weights that is evaluated and kept in their place.
        augment: random changes of each input, in this order.
        label_smoothing: share of each target that is spread over all classes.
        clip: largest norm of the gradient of all parameters; longer ones are scaled down.
        precision: "32-true", "bf16-mixed" or "64-true".
        channels_last: store images with their channels last, which is faster for convolutions.
        compile: compile the network with `torch.compile`.
        warmup: epochs over which the threat's eps grows to its full size.
        extra_share: share of extra data in each batch.
        threat: what robust accuracy is measured under during training; the recipe's own when None. One of several
            threats of the recipe stands for all of them.
        validation: samples that are held out for measuring after each epoch; 0 trains on all.
        patience: epochs without a better epoch after which training stops; None for all epochs.
        guard: training stops when robust accuracy falls by more than this below the best epoch's, where the recipe
            defends against anything; None for never.
        keep: weights of the "best" epoch by the measurement, or of the "last"; of epochs that are as robust as each
            other the one with more clean accuracy is better.
        seed: key of all random draws.

    Raises:
        SettingError: one is out of its range.
    """

    recipe: Recipe
    epochs: int = 10
    batch: int = 128
    optimizer: Optimizer = field(default_factory=AdamW)
    schedule: Schedule = field(default_factory=Cyclic)
    average: Average | None = None
    augment: tuple[Augmentation, ...] = ()
    label_smoothing: float = 0.0
    clip: float | None = None
    precision: str = "32-true"
    channels_last: bool = False
    compile: bool = False
    warmup: float = 0.0
    extra_share: float = 0.0
    threat: Threat | None = None
    validation: int = 0
    patience: int | None = None
    guard: float | None = 0.2
    keep: str = "best"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("recipe", Recipe), ("optimizer", Optimizer), ("schedule", Schedule)):
            if not isinstance(part := getattr(self, name), kind):
                raise SettingError(
                    f"{name} must be one of `assay list {name}s`, by name or as an object; got {part!r}."
                )
        for name in ("epochs", "batch"):
            if isinstance(count := getattr(self, name), bool) or not isinstance(count, int):
                raise SettingError(f"{name} must be a whole number; got {count!r}.")
        if self.epochs < 1:
            raise SettingError(f"epochs must be at least 1; got {self.epochs}.")
        if not 0 <= self.label_smoothing < 1:
            raise SettingError(f"label_smoothing must lie in [0, 1); got {self.label_smoothing}.")
        if self.clip is not None and self.clip <= 0:
            raise SettingError(f"clip must be positive; got {self.clip}.")
        if self.warmup < 0:
            raise SettingError(f"warmup must not be negative; got {self.warmup} epochs.")
        if self.warmup > self.epochs:
            raise SettingError(
                f"warmup={self.warmup:g} is longer than the {self.epochs} epochs: eps would never have its full size."
            )
        if self.validation < 0:
            raise SettingError(f"validation must not be negative; got {self.validation}.")
        if self.patience is not None and self.patience < 1:
            raise SettingError(f"patience must be at least 1 epoch; got {self.patience}.")
        if self.patience is not None and not self.validation:
            raise SettingError("patience needs samples to measure on: give validation, for instance 1000.")
        if self.guard is not None and not 0 < self.guard < 1:
            raise SettingError(f"guard must lie between 0 and 1; got {self.guard}.")
        if self.compile and self.recipe.second_order:
            raise SettingError("torch.compile gives no second derivatives, which this recipe needs: leave compile out.")
        if self.generative and (self.label_smoothing or any(isinstance(part, Mixup) for part in self.augment)):
            raise SettingError(f"{type(self.recipe).__name__} learns no labels: leave label_smoothing and Mixup out.")
        if self.keep not in ("best", "last"):
            raise SettingError(f"keep must be 'best' or 'last'; got {self.keep!r}.")

    @property
    def generative(self) -> GenerativeRecipe | None:
        """The recipe, where it trains no classifier."""
        return self.recipe if isinstance(self.recipe, GenerativeRecipe) else None

    @property
    def measured(self) -> tuple[Threat, ...]:
        """What robust accuracy is measured under, the worst for each sample; empty where there is nothing."""
        own = self.recipe.threats
        if self.generative:
            return ()
        return own if self.threat is None or self.threat in own else (self.threat,)

    @property
    def tested(self) -> Threat | None:
        """What a final evaluation is under, which takes one threat; None where none is named."""
        return self.recipe.against if self.threat is None else self.threat

    def record(self) -> dict[str, Any]:
        """The settings ready for JSON: parts as the text that builds them."""
        plain = (bool, int, float, str, type(None))
        found = {each.name: getattr(self, each.name) for each in fields(self)}
        found["augment"] = [repr(part) for part in self.augment]
        return {n: v if isinstance(v, (*plain, list)) else repr(v) for n, v in found.items()}
