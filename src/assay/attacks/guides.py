"""What leads the runs of a search for the smallest move: all other classes at once, then the nearest one by one.

The nearest boundary of a network is often not that of the class with the next largest logit. So a first run follows a
margin in which all classes take part, and further runs each follow the difference to one class, taken in the order of
the distances of the boundaries linearised at the clean input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast, final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.attacks.boundaries import Boundaries, class_goal, groups, logits, ranked, target_ahead
from assay.attacks.halfspace import Norm, boxed_move, size
from assay.errors import SettingError
from assay.goals import Goal, Targeted, Untargeted
from assay.losses import Loss, margin
from assay.oracle import Oracle
from assay.threats import L0, Threat

_CANDIDATES = 10  # the likeliest classes whose boundaries are linearised, the right one included


@final
@dataclass(frozen=True, eq=False)
class Guide:
    """What one run follows.

    Args:
        goal: the classes that the losses read.
        loss: gives the gradients.
        lead: the difference of logits that has to exceed the goal's confidence.
    """

    goal: Untargeted | Targeted
    loss: Loss
    lead: Loss

    def at(self, rows: Tensor) -> Self:
        """That of a part of the batch."""
        return replace(self, goal=self.goal.at(rows))

    def gap(self, output: Any) -> Tensor:
        """What the lead still lacks, `(b,)`; negative beyond the boundary."""
        return self.goal.confidence - self.lead(output, self.goal)


def check_runs(*, steps: int, targets: int, give_up: float | None, polish: int) -> None:
    """Refuse settings that every search along guides has, where they are out of range.

    Raises:
        SettingError: one of them is.
    """
    if steps < 1:
        raise SettingError(f"steps must be at least 1; got {steps}.")
    for name, value in (("targets", targets), ("polish", polish)):
        if value < 0:
            raise SettingError(f"{name} must not be negative; got {value}.")
    if give_up is not None and not give_up >= 1:
        raise SettingError(f"give_up must be at least 1; got {give_up}.")


def follow_guides(
    oracle: Oracle, goal: Goal, loss: Loss | None, targets: int, search: Callable[[Oracle, Guide], Tensor]
) -> Tensor:
    """One search along each of `guides` until every sample is decided; the last moves.

    Args:
        oracle: answers the searches' questions.
        goal: what the first search follows.
        loss: leads the first search; `soft_margin` when None.
        targets: searches towards one class each.
        search: what is done along a guide, with the oracle for it.

    Raises:
        LossError: the goal or the model's output is not about classes.
    """
    theta = oracle.threat.identity(oracle.x)
    for guide in guides(oracle, goal, loss, targets):
        theta = search(oracle.towards(guide.goal), guide)
        if oracle.finished:
            break
    return theta


def guides(oracle: Oracle, goal: Goal, loss: Loss | None, targets: int) -> Iterator[Guide]:
    """The goal itself with this loss (`soft_margin` when None), then `targets` of the nearest classes.

    A targeted goal has one boundary: there a single run more follows the plain margin. With two classes all of these
    are the same, and one run is enough. The passes that order the classes are spent when the second guide is asked for.

    Raises:
        LossError: the goal or the model's output is not about classes.
    """
    goal = class_goal(goal)
    yield Guide(goal, soft_margin if loss is None else loss, margin)
    if targets == 0 or oracle.finished or logits(oracle.clean()).shape[1] <= 2:
        return
    if isinstance(goal, Targeted):
        yield Guide(goal, margin, margin)
        return
    for target in _nearest(oracle, goal)[:, :targets].unbind(1):
        yield Guide(Targeted(target, away=goal.classes, confidence=goal.confidence), target_ahead, target_ahead)


def soft_margin(output: Tensor, goal: Untargeted | Targeted) -> Tensor:
    """The margin with the logarithm of the sum of exponentials in place of the largest of the other logits.

    Its gradient has the direction of cross-entropy's, which is this one times a probability, and does not vanish where
    that probability does.

    Example:
        >>> import torch
        >>> soft_margin(torch.tensor([[0.0, 0.0, 0.0]]), Untargeted(torch.tensor([0])))
        tensor([0.6931])
    """
    own = output.gather(1, goal.classes[:, None]).squeeze(1)
    others = output.scatter(1, goal.classes[:, None], -torch.inf).logsumexp(dim=1)
    return own - others if goal.targeted else others - own


def _nearest(oracle: Oracle, goal: Untargeted) -> Tensor:
    """The likeliest other classes, those with the nearest linearised boundary first, `(b, k)`."""
    boundaries, order = Boundaries.of(oracle, goal, _CANDIDATES), []
    for rows in groups(oracle, boundaries):
        part, theta = oracle.at(rows), oracle.threat.identity(oracle.x[rows])
        gap, normal, output = boundaries.at(rows).linearise(part, theta)
        k = gap.shape[1]
        move = normal.reshape(-1, *theta.shape[1:])
        distance = boundary_distance(oracle.threat, part.x.repeat_interleave(k, dim=0), move, gap.flatten())
        nearest = distance.nan_to_num(torch.inf).reshape(-1, k).argsort(dim=1, stable=True)
        order.append(ranked(output, boundaries.at(rows).goal)[:, :k].gather(1, nearest))
    return torch.cat(order)


def boundary_distance(threat: Threat, x: Tensor, normal: Tensor, gap: Tensor) -> Tensor:
    """The size of the least move within the bounds that gains `gap` along `normal`, `(b,)`; inf where none does.

    Args:
        threat: `Linf`, `L2`, `L1` or `L0`.
        x: clean inputs, `(b, *shape)`.
        normal: gradients of what has to be gained, `(b, *shape)`.
        gap: how much, `(b,)`.
    """
    low, high = (bound - x.flatten(1) for bound in threat.bounds)
    w = normal.flatten(1)
    if not isinstance(threat, L0):
        norm = cast(Norm, threat.name)
        move, reached = boxed_move(w, gap, low, high, norm)
        return torch.where(reached, size(move, norm), torch.inf)
    peak = w.abs().amax(dim=1, keepdim=True)
    unit = w / torch.where(peak > 0, peak, 1)
    gain = threat.per_unit((unit * torch.where(unit > 0, high, low)).reshape(x.shape)).flatten(1)
    left = gain.sort(dim=1, descending=True).values.cumsum(dim=1) < (gap[:, None] / peak)
    count = left.sum(dim=1).to(x.dtype) + 1
    return torch.where(left.all(dim=1), torch.inf, count)


def farthest(threat: Threat, x: Tensor) -> Tensor:
    """The largest size that makes sense, `(b,)`: eps, or that of the move which takes every value to its farther bound.

    Args:
        threat: an additive one.
        x: clean inputs, `(b, *shape)`.
    """
    low, high = (bound - x for bound in threat.bounds)
    most = threat.size(x, torch.where(high > -low, high, low))
    return most if threat.eps is None else most.minimum(threat.budget(x))
