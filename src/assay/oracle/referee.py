"""The referee: is a move allowed, does it reach the goal, is it smaller than the best so far."""

from __future__ import annotations

import copy
from typing import Any, final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.errors import ModelError
from assay.goals import Goal
from assay.inputs import check_classes
from assay.oracle.access import Access
from assay.oracle.record import Record
from assay.threats import Threat


@final
class Referee:
    """Checks, counts and judges the model's answers, and keeps the record.

    Args:
        x: clean inputs, `(b, *shape)`.
        goal: what counts as success.
        threat: which moves are allowed.
        granted: what the model grants.
        strict: False for training: nothing is counted, limited or stopped, and nothing judged before `track`.
        max_queries: forward passes allowed per sample.
    """

    def __init__(
        self, x: Tensor, goal: Goal, threat: Threat, *, granted: Access, strict: bool, max_queries: int | None
    ) -> None:
        self.x, self.goal, self.threat = x, goal, threat
        self.record = Record.empty(x, referee=strict)
        self.judging = strict
        self._granted, self._max_queries = granted, max_queries
        self._limit = None if threat.eps is None or not strict else threat.limit(x)
        self._places: Tensor | None = None  # a part's rows in the record of the whole batch

    def track(self) -> None:
        """Judge from now on, in training too."""
        if not self.judging:
            self.record = Record.empty(self.x, referee=True)
            self.judging = True

    def at(self, rows: Tensor) -> Self:
        """The referee of a part of the batch, who writes to the same record."""
        part = copy.copy(self)
        part.x, part.goal, part.threat = self.x[rows], self.goal.at(rows), self.threat.at(rows)
        every = torch.arange(len(self.x), device=self.x.device) if self._places is None else self._places
        part._places = every[rows]
        part._limit = None if self._limit is None else self._limit[rows]
        return part

    def known(self, whole: Tensor) -> Tensor:
        """A tensor of the record, for this part's rows."""
        return whole if self._places is None else whole[self._places]

    def left(self) -> Tensor | None:
        """`(b,)`: how many more forward passes each sample may have; None for any number."""
        return None if self._max_queries is None else self._max_queries - self.known(self.record.forwards)

    def decisions(self, goal: Goal, output: Any) -> Tensor:
        """The model's decisions."""
        if self._granted is Access.LABELS and isinstance(output, Tensor) and not output.is_floating_point():
            return output.long()
        return goal.labels(output)

    def check(self, output: Any, row: Tensor) -> None:
        """Hold that there is one answer for each sample that was asked about, and no NaN in it."""
        if not isinstance(output, Tensor):
            return
        if output.ndim == 0 or len(output) != len(row):
            raise ModelError(
                f"the model returned an output of shape {tuple(output.shape)} for {len(row)} inputs; it must return "
                "one row for each input, in their order."
            )
        if output.is_floating_point() and bool(output.isnan().any()):
            bad = output.isnan().flatten(1).any(dim=1)
            raise ModelError(
                f"the model returned NaN for {int(bad.sum())} of {len(bad)} inputs inside the bounds "
                f"(first: sample {int(row[bad.nonzero()[0, 0]])}). No robustness can be measured on it: look for a "
                "division by zero, a logarithm of zero, an overflow in half precision, or broken weights."
            )

    def account(self, row: Tensor, theta: Tensor, moved: Tensor, output: Any, *, backwards: int, first: bool) -> None:
        """Count the passes and judge the answers to moves of the samples `row`; the first are clean inputs."""
        place, record = self._place(row), self.record
        one = torch.ones_like(row)
        record.forwards.index_add_(0, place, one)
        if backwards:
            record.backwards.index_add_(0, place, one * backwards)
        self.check(output, row)
        if first:
            self.begin(row, output)
        self.judge(row, theta, moved, output)
        if self._max_queries is not None:
            record.active.logical_and_(record.forwards < self._max_queries)

    def begin(self, row: Tensor, output: Any) -> None:
        """Note the decisions on the clean inputs."""
        if isinstance(output, Tensor) and output.ndim == 2:
            check_classes(self.goal, output.shape[1])
        self.record.prediction[self._place(row)] = self.decisions(self.goal.at(row), output)

    def judge(self, row: Tensor, theta: Tensor, moved: Tensor, output: Any) -> None:
        """Judge moves `theta` of the samples `row` (which may repeat) and keep the best."""
        goal = self.goal.at(row)
        if self._granted is Access.LABELS:
            reached = goal.reached_labels(self.decisions(goal, output))
        else:
            reached = goal.reached(output)
        record, place = self.record, self._place(row)
        hit = reached.nonzero().squeeze(1)
        if len(hit) == 0:
            return
        rows = row[hit]
        size = self.threat.at(rows).size(self.x[rows], theta[hit])
        better = size < record.distance[place[hit]]
        if self._limit is not None:
            better &= size <= self._limit[rows]
        hit, rows, size = hit[better], rows[better], size[better]
        if len(hit) > 1:
            keep = _smallest(rows, size)
            hit, rows, size = hit[keep], rows[keep], size[keep]
        place = self._place(rows)
        record.success[place] = True
        record.distance[place] = size
        record.x_adv[place] = moved[hit]
        record.prediction[place] = self.decisions(self.goal.at(rows), _pick(output, hit))
        record.active[place] = size > 0 if self._limit is None else False

    def _place(self, row: Tensor) -> Tensor:
        return row if self._places is None else self._places[row]


def _smallest(rows: Tensor, size: Tensor) -> Tensor:
    """Of several candidates of one sample only the smallest counts, the first of equal ones."""
    order = size.argsort(stable=True)
    _, group = torch.unique(rows[order], return_inverse=True)
    place = torch.arange(len(order), device=order.device)
    first = torch.full_like(place, len(order)).scatter_reduce_(0, group, place, "amin")
    return order[first[: int(group.max()) + 1]]


def _pick(output: Any, rows: Tensor) -> Any:
    return output[rows] if isinstance(output, Tensor) else [output[i] for i in rows.tolist()]
