"""Decision boundaries linearised at a move: what DeepFool and FAB step towards.

Near a move `theta` the boundary to class k is the half-space `{delta: <w_k, delta> >= gap_k}` with
`gap_k = z_y - z_k` and `w_k` the gradient of `z_k - z_y`: one backward pass for each class but the right one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.errors import LossError
from assay.goals import Goal, Targeted, Untargeted
from assay.losses import Loss, margin
from assay.oracle import Oracle

_VALUES = 1 << 25  # of normals that are held at once, as long as one input and one class make fewer


@final
@dataclass(frozen=True, eq=False)
class Boundaries:
    """Which boundaries a sample may cross.

    Args:
        goal: the classes to leave or to reach.
        losses: the differences of logits that count, each higher nearer the goal.
    """

    goal: Untargeted | Targeted
    losses: tuple[Loss, ...]

    @classmethod
    def of(cls, oracle: Oracle, goal: Goal, candidates: int | None) -> Self:
        """Those to the `candidates - 1` likeliest other classes at each point (all when None), or to the target."""
        goal, classes = class_goal(goal), logits(oracle.clean()).shape[1]
        if goal.targeted or classes <= 2:
            return cls(goal, (margin,))
        count = classes if candidates is None else min(candidates, classes)
        return cls(goal, tuple(partial(_ahead, rank=rank) for rank in range(count - 1)))

    def at(self, rows: Tensor) -> Self:
        """Those of a part of the batch."""
        return replace(self, goal=self.goal.at(rows))

    def parts(self, x: Tensor) -> list[Self]:
        """As many of them at once as have normals that fit into memory for one input."""
        at_once = max(1, _VALUES // max(1, x[:1].numel()))
        return [replace(self, losses=self.losses[k : k + at_once]) for k in range(0, len(self.losses), at_once)]

    def linearise(self, oracle: Oracle, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gaps `(b, k)`, negative where the boundary is crossed, normals `(b, k, d)`, and the model's output."""
        grads, output = oracle.towards(self.goal).gradients(theta, self.losses)
        value = torch.stack([loss(output, self.goal) for loss in self.losses], dim=1)
        return (self.goal.confidence - value).to(theta.dtype), grads.flatten(2), output


def groups(oracle: Oracle, boundaries: Boundaries) -> tuple[Tensor, ...]:
    """The rows of a batch in groups that are linearised and stepped together: a micro-batch each, or less.

    Normals take as much memory as inputs, times the number of classes; for a large batch that would be too much.
    """
    x = oracle.x
    rows = torch.arange(len(x), device=x.device)
    if not oracle.referee:
        return torch.split(rows, max(1, len(rows)))
    fitting = _VALUES // max(1, x[:1].numel() * len(boundaries.parts(x)[0].losses))
    return torch.split(rows, max(1, min(oracle.micro_batch, fitting)))


def ranked(output: Tensor, goal: Untargeted | Targeted) -> Tensor:
    """All classes but the goal's (and what stands for rejected inputs), the likeliest first, `(b, classes - 1)`."""
    others, count = output.nan_to_num(-torch.inf).scatter(1, goal.classes[:, None], -torch.inf), output.shape[1] - 1
    if isinstance(goal, Untargeted) and goal.rejected is not None:
        others[:, goal.rejected], count = -torch.inf, count - 1
    return others.argsort(dim=1, descending=True, stable=True)[:, :count]


def logits(output: object) -> Tensor:
    """A classifier's output.

    Raises:
        LossError: it is not one.
    """
    if not isinstance(output, Tensor) or output.ndim != 2:
        raise LossError("boundaries between classes need a classifier's logits, `(batch, classes)`.")
    return output


def class_goal(goal: Goal) -> Untargeted | Targeted:
    """A goal on classes.

    Raises:
        LossError: it is not one.
    """
    if not isinstance(goal, (Untargeted, Targeted)):
        raise LossError(f"boundaries between classes need a goal on classes, not {type(goal).__name__}.")
    return goal


def target_ahead(output: Tensor, goal: Targeted) -> Tensor:
    """The target's logit above that of the class `away`, the right one: `z_t - z_y`, `(b,)`."""
    assert goal.away is not None
    pair = output.gather(1, torch.stack([goal.classes, goal.away], dim=1))
    return pair[:, 0] - pair[:, 1]


def _ahead(output: Tensor, goal: Untargeted, rank: int) -> Tensor:
    """How far the other class of this rank is ahead of the right one."""
    return target_ahead(output, Targeted(ranked(output.detach(), goal)[:, rank], away=goal.classes))
