"""What counts as success, and the loss that leads there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, cast, final

import torch
from torch import Tensor
from typing_extensions import Self

from assay import losses
from assay.errors import InputError, ModelError, SettingError


class Passes(NamedTuple):
    """What a question about one moved input costs."""

    forwards: int
    backwards: int


@final
@dataclass(frozen=True, kw_only=True)
class Look:
    """How a goal looks at the model.

    Attributes:
        judged: passes that it takes to see what is judged.
        climbed: passes that it takes to see what a loss is taken of, and to go back for its gradient.
        proxy: whether losses are taken of something else than what is judged, which is then asked for besides.
    """

    judged: Passes = field(default_factory=lambda: Passes(1, 0))
    climbed: Passes = field(default_factory=lambda: Passes(1, 1))
    proxy: bool = False


class Goal(ABC):
    """One goal per sample of a batch. Subclasses say when an output reaches it and which loss leads there.

    Attributes:
        look: how it looks at the model: at its output, unless `seen` is written anew.
        graded: whether the success of the largest `worth` is looked for; the one of the smallest size when False.
    """

    look: Look = Look()
    graded: ClassVar[bool] = False

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def at(self, rows: Tensor) -> Goal:
        """The goal of a part of the batch (bool mask or indices, which may repeat)."""

    @abstractmethod
    def reached(self, output: Any) -> Tensor:
        """Which samples reach the goal with this raw output of the model; `(b,)` bool."""

    @abstractmethod
    def loss(self, output: Any) -> Tensor:
        """The goal's own loss, `(b,)`, higher is nearer the goal."""

    @abstractmethod
    def labels(self, output: Any) -> Tensor:
        """The decision to record for this output (a class), `(b,)` int64."""

    @abstractmethod
    def reached_labels(self, labels: Tensor) -> Tensor:
        """As `reached`, from decisions alone (for models that grant labels only)."""

    @abstractmethod
    def to(self, device: torch.device) -> Goal:
        """The same goal on another device."""

    def seen(self, model: Any, x: Tensor) -> Any:
        """What is judged of moved inputs `x`, one for each sample of this goal: the model's output."""
        return model(x)

    def followed(self, model: Any, x: Tensor) -> Any:
        """What losses are taken of, with its graph back to x; what is judged, unless `look.proxy`."""
        return self.seen(model, x)

    def worth(self, output: Any) -> Tensor:
        """How much an output is worth that reaches a goal with degrees, `(b,)`; all the same without."""
        return torch.zeros(len(self))


@dataclass(frozen=True, eq=False)
class _Classification(Goal):
    """What goals on class labels share: one integer label per sample."""

    classes: Tensor
    confidence: float = field(default=0.0, kw_only=True)
    targeted: ClassVar[bool]

    def __post_init__(self) -> None:
        if not 0 <= self.confidence < float("inf"):
            raise SettingError(f"confidence must be finite and not negative; got {self.confidence}.")
        c = self.classes
        if not isinstance(c, Tensor) or c.ndim != 1 or c.is_floating_point() or c.dtype == torch.bool:
            found = f"{c.dtype} of shape {tuple(c.shape)}" if isinstance(c, Tensor) else type(c).__name__
            raise InputError(f"labels must be a 1-D integer tensor (one class per sample); got {found}.")
        object.__setattr__(self, "classes", _usable(c.long()))

    def __len__(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.classes.tolist()})"

    def at(self, rows: Tensor) -> Self:
        return replace(self, classes=self.classes[rows])

    def to(self, device: torch.device) -> Self:
        return replace(self, classes=self.classes.to(device))

    def with_confidence(self, confidence: float) -> Self:
        """The same goal, reached only by outputs that win by this margin of logits."""
        return replace(self, confidence=confidence)

    def loss(self, output: Any) -> Tensor:
        return losses.cross_entropy(_logits(output), cast(losses.ClassGoal, self))

    def labels(self, output: Any) -> Tensor:
        return _logits(output).argmax(dim=1)

    def reached(self, output: Any) -> Tensor:
        reached = self.reached_labels(self.labels(output))
        if self.confidence:
            reached &= losses.margin(_logits(output), cast(losses.ClassGoal, self)) >= self.confidence
        return reached


def _usable(classes: Tensor) -> Tensor:
    """Labels that autograd may keep: those made in inference mode are copied."""
    return classes.clone() if classes.is_inference() and not torch.is_inference_mode_enabled() else classes


def _logits(output: Any) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 2:
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ModelError(
            f"a classifier must return a (batch, classes) tensor of logits; this model returned {found}. "
            "Wrap it in a module that returns the logits alone."
        )
    return output


@final
@dataclass(frozen=True, eq=False, repr=False)
class Untargeted(_Classification):
    """Any class but the right one.

    Args:
        classes: the right classes, `(b,)` integers.
        confidence: by how much another logit has to exceed the right one; 0 asks for the decision alone, which is also
            all that can be asked of a model that grants labels only.
        rejected: the output that stands for rejected inputs, where a model has one: it is no success either. Losses
            count it as one with the right class, so that they hold the detector's term. None where being rejected is
            as good as being wrong.

    Raises:
        InputError: the labels are not a 1-D integer tensor.
        SettingError: the confidence is negative.

    Example:
        >>> import torch
        >>> Untargeted(torch.tensor([0, 1])).reached(torch.tensor([[2.0, 1.0], [2.0, 1.0]]))
        tensor([False,  True])
    """

    rejected: int | None = field(default=None, kw_only=True)
    targeted: ClassVar[bool] = False
    away: ClassVar[None] = None

    def reached_labels(self, labels: Tensor) -> Tensor:
        """Which decisions differ from the right class, and are decisions."""
        wrong = labels != self.classes
        return wrong if self.rejected is None else wrong & (labels != self.rejected)


@final
@dataclass(frozen=True, eq=False, repr=False)
class Targeted(_Classification):
    """One chosen class.

    Args:
        classes: the classes that the attacker wants, `(b,)` integers.
        away: where known, the right classes, `(b,)` integers: the targeted DLR loss moves away from them.
        confidence: by how much the wanted logit has to exceed all others; 0 asks for the decision alone, which is also
            all that can be asked of a model that grants labels only.

    Raises:
        InputError: the labels are not a 1-D integer tensor.
        SettingError: the confidence is negative.

    Example:
        >>> import torch
        >>> Targeted(torch.tensor([0, 1])).reached(torch.tensor([[2.0, 1.0], [2.0, 1.0]]))
        tensor([ True, False])
    """

    targeted: ClassVar[bool] = True
    away: Tensor | None = None

    def at(self, rows: Tensor) -> Self:
        """The goal of a part of the batch."""
        return replace(self, classes=self.classes[rows], away=None if self.away is None else self.away[rows])

    def to(self, device: torch.device) -> Self:
        """The same goal on another device."""
        away = None if self.away is None else _usable(self.away.to(device))
        return replace(self, classes=self.classes.to(device), away=away)

    def reached_labels(self, labels: Tensor) -> Tensor:
        """Which decisions equal the chosen class."""
        return labels == self.classes
