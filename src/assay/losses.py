"""Losses that lead an attack to its goal: `(output, goal) -> (b,)`, higher is nearer the goal.

Each takes the raw logits `z` of shape `(b, classes)` and an `Untargeted` goal (right classes `y`) or a `Targeted` one
(wanted classes `t`).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.errors import LossError


@runtime_checkable
class ClassGoal(Protocol):
    """What these losses read of a goal.

    Attributes:
        classes: `(b,)`: the right classes, or the wanted ones of a targeted goal.
        targeted: which of the two.
        away: `(b,)`: the right classes, where a targeted goal knows them.
    """

    @property
    def classes(self) -> Tensor: ...  # noqa: D102

    @property
    def targeted(self) -> bool: ...  # noqa: D102

    @property
    def away(self) -> Tensor | None: ...  # noqa: D102


Loss: TypeAlias = Callable[[Any, Any], Tensor]


def _read(goal: Any) -> tuple[Tensor, bool, Tensor | None]:
    if not isinstance(goal, ClassGoal):
        raise LossError(f"this loss is for goals on classes; {type(goal).__name__} needs its own (loss=None).")
    return goal.classes, goal.targeted, goal.away


def accepted(output: Tensor, goal: ClassGoal, *, soft: bool = False) -> Tensor:
    """The outputs, that for rejected inputs taken together with the right class, where the goal knows such an output.

    `z_y <- max(z_y, z_rejected)`, or softly `log(exp z_y + exp z_rejected)`: what is neither right nor rejected has to
    beat both.

    Example:
        >>> import torch
        >>> from assay.goals import Untargeted
        >>> accepted(torch.tensor([[1.0, 2.0, 5.0]]), Untargeted(torch.tensor([0]), rejected=2))
        tensor([[5., 2.]])
    """
    place = getattr(goal, "rejected", None)
    if place is None or output.shape[1] <= place:
        return output
    own = output.gather(1, goal.classes[:, None])
    aside = output[:, place, None]
    both = torch.logaddexp(own, aside) if soft else torch.maximum(own, aside)
    kept = torch.cat([output[:, :place], output[:, place + 1 :]], dim=1)
    return kept.scatter(1, goal.classes[:, None], both)


def others(z: Tensor, classes: Tensor) -> Tensor:
    """The largest logit among the other classes; `(b,)`."""
    return z.scatter(1, classes[:, None], -torch.inf).amax(dim=1)


def cross_entropy(output: Tensor, goal: ClassGoal) -> Tensor:
    """Cross-entropy: `-log softmax(z)_y` untargeted, `log softmax(z)_t` targeted.

    Example:
        >>> import torch
        >>> from assay.goals import Targeted
        >>> cross_entropy(torch.zeros(1, 2), Targeted(torch.tensor([1]))).exp()
        tensor([0.5000])
    """
    classes, targeted, _ = _read(goal)
    value = F.cross_entropy(accepted(output, goal, soft=True), classes, reduction="none")
    return -value if targeted else value


def margin(output: Tensor, goal: ClassGoal) -> Tensor:
    """Logit margin: `max_{i != y} z_i - z_y` untargeted, `z_t - max_{i != t} z_i` targeted; positive is success.

    References:
        Carlini, Wagner, "Towards evaluating the robustness of neural networks", S&P 2017,
        https://arxiv.org/abs/1608.04644
    """
    classes, targeted, _ = _read(goal)
    output = accepted(output, goal)
    if output.shape[1] < 2:
        raise LossError(f"the margin needs at least 2 classes; the model gives {output.shape[1]}.")
    own = output.gather(1, classes[:, None]).squeeze(1)
    value = others(output, classes) - own
    return -value if targeted else value


def dlr(output: Tensor, goal: ClassGoal) -> Tensor:
    """Difference of logits ratio, invariant to shifting and scaling the logits.

    With the logits sorted `z_1 >= z_2 >= ...`: untargeted `(max_{i != y} z_i - z_y) / (z_1 - z_3)`; targeted
    `(z_t - z_y) / (z_1 - (z_3 + z_4) / 2)`.

    Raises:
        LossError: fewer than 3 classes (4 targeted), for which it is undefined.

    Deviations:
        The targeted form needs the right class `y`. A `Targeted` goal that was not told it (`away`) takes the largest
        logit among the other classes in its place; `MultiTargeted` tells it.

    References:
        Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
        attacks", ICML 2020, https://arxiv.org/abs/2003.01690
    """
    classes, targeted, away = _read(goal)
    output = accepted(output, goal)
    needed = 4 if targeted else 3
    if output.shape[1] < needed:
        kind = "targeted" if targeted else "untargeted"
        raise LossError(
            f"the {kind} DLR loss needs at least {needed} classes; the model gives {output.shape[1]}. "
            "Use loss='margin'."
        )
    top = output.topk(needed, dim=1).values
    own = output.gather(1, classes[:, None]).squeeze(1)
    if targeted:
        scale = top[:, 0] - (top[:, 2] + top[:, 3]) / 2
        rival = others(output, classes) if away is None else output.gather(1, away[:, None]).squeeze(1)
        return (own - rival) / (scale + 1e-12)
    return (others(output, classes) - own) / (top[:, 0] - top[:, 2] + 1e-12)


LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}


def resolve(loss: str | Loss | None) -> Loss | None:
    """The loss of this name; callables and None (the goal's own loss) pass.

    Raises:
        LossError: no loss has this name.
    """
    if not isinstance(loss, str):
        return loss
    if loss not in LOSSES:
        near = difflib.get_close_matches(loss, LOSSES, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise LossError(f"unknown loss {loss!r}; known: {', '.join(sorted(LOSSES))}, or a callable.{hint}")
    return LOSSES[loss]
