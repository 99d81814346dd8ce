"""The referee: is a move allowed, does it reach the goal, is it smaller (or worth more) than the best so far."""

from __future__ import annotations

import copy
from typing import Any, final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.goals import Goal, Passes
from assay.inputs import check_classes
from assay.oracle import verdicts
from assay.oracle.access import Access
from assay.oracle.questions import Second
from assay.oracle.record import Record
from assay.oracle.verdicts import Verdict
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
        draws: forward passes per question about a move.
        second: the judgement that confirms a success, if there is one.
        keep_moves: keep the moves of the record's inputs too.
    """

    def __init__(
        self,
        x: Tensor,
        goal: Goal,
        threat: Threat,
        *,
        granted: Access,
        strict: bool,
        max_queries: int | None,
        draws: int,
        second: Second | None,
        keep_moves: bool,
    ) -> None:
        self.x, self.goal, self.threat = x, goal, threat
        self.record = Record.empty(x, referee=strict, theta=threat.identity(x) if keep_moves else None)
        self.judging = strict
        self._granted, self._max_queries, self._strict = granted, max_queries, strict
        self._draws, self._second = draws, second
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
        """`(b,)`: how many more moves each sample may be asked about; None for any number."""
        if self._max_queries is None:
            return None
        return (self._max_queries - self.known(self.record.forwards)).clamp_min(0) // self._draws

    def decisions(self, goal: Goal, output: Any) -> Tensor:
        """The model's decisions, `(n,)`."""
        return verdicts.decisions(goal, output, self._granted)

    def account(
        self,
        row: Tensor,
        theta: Tensor,
        moved: Tensor,
        output: Any,
        verdict: Verdict | None,
        *,
        spent: Passes,
        first: bool,
        judged: bool,
    ) -> None:
        """Count the passes and judge the answers to moves of the samples `row`; the first are clean inputs."""
        place, record = self.place(row), self.record
        record.forwards.index_add_(0, place, torch.full_like(row, spent.forwards))
        if spent.backwards:
            record.backwards.index_add_(0, place, torch.full_like(row, spent.backwards))
        verdicts.check_output(output, row)
        if first:
            self.begin(row, output, verdict)
        if judged:
            self.judge(row, theta, moved, output, verdict, first=first)
        if self._max_queries is not None:
            record.active.logical_and_(record.forwards <= self._max_queries - self._draws)

    def begin(self, row: Tensor, output: Any, verdict: Verdict | None = None) -> None:
        """Note the decisions on the clean inputs."""
        if isinstance(output, Tensor) and output.ndim == 2:
            check_classes(self.goal, output.shape[1])
        decided = self.decisions(self.goal.at(row), output) if verdict is None else verdict.decision
        self.record.prediction[self.place(row)] = decided

    def judge(
        self,
        row: Tensor,
        theta: Tensor,
        moved: Tensor,
        output: Any,
        verdict: Verdict | None = None,
        *,
        first: bool = False,
    ) -> None:
        """Judge moves `theta` of the samples `row` (which may repeat) and keep the best.

        Args:
            row: the samples.
            theta: moves.
            moved: the moved inputs.
            output: the model's answers to them.
            verdict: what these say, where it is known already.
            first: whether the moves are those that change nothing.
        """
        goal = self.goal.at(row)
        hits = verdicts.reached(goal, output, self._granted) if verdict is None else verdict.reached
        record, place = self.record, self.place(row)
        hit = hits.nonzero().squeeze(1)
        if len(hit) == 0:
            return
        rows = row[hit]
        size = self.threat.at(rows).size(self.x[rows], theta[hit])
        worth = self.goal.at(rows).worth(verdicts.pick(output, hit)).to(record.worth) if self.goal.graded else None
        better = size < record.distance[place[hit]] if worth is None else worth > record.worth[place[hit]]
        if self._limit is not None:
            better &= size <= self._limit[rows]
        hit, rows, size = hit[better], rows[better], size[better]
        worth = None if worth is None else worth[better]
        order = size if worth is None else -worth
        keep = _smallest(rows, order) if len(hit) > 1 else torch.arange(len(hit), device=hit.device)
        if self._second is not None:
            keep = self._first_confirmed(self._second, rows, size, moved[hit], keep, first=first)
        hit, rows, size = hit[keep], rows[keep], size[keep]
        place = self.place(rows)
        record.success[place] = True
        record.distance[place] = size
        if worth is not None:
            record.worth[place] = worth[keep]
        record.x_adv[place] = moved[hit]
        if record.theta is not None:
            record.theta[place] = theta[hit]
        if verdict is None:
            record.prediction[place] = self.decisions(self.goal.at(rows), verdicts.pick(output, hit))
        else:
            record.prediction[place] = verdict.decision[hit]
        if worth is None:  # with degrees nobody is done: more may be found
            record.active[place] = size > 0 if self._limit is None else False

    def _first_confirmed(
        self, second: Second, rows: Tensor, size: Tensor, moved: Tensor, keep: Tensor, *, first: bool
    ) -> Tensor:
        """Of each sample's successes the smallest that stands up to a second judgement, as indices.

        Args:
            second: the judgement, made of a sample's successes one by one, until one stands.
            rows: the samples of the successes.
            size: their sizes.
            moved: their moved inputs.
            keep: the smallest success of each sample, as indices.
            first: whether they are clean inputs.
        """
        left = torch.arange(len(rows), device=rows.device)
        found = []
        while len(keep):
            stands = self._confirmed(second, rows[keep], moved[keep], first=first)
            found.append(keep[stands])
            untried = torch.isin(left, keep, invert=True) & ~torch.isin(rows[left], rows[keep[stands]])
            left = left[untried]
            keep = left[_smallest(rows[left], size[left])] if len(left) else left
        return torch.cat(found) if found else keep

    def _confirmed(self, second: Second, rows: Tensor, moved: Tensor, *, first: bool) -> Tensor:
        """Which of these successes stand up to a second judgement, as indices; it is counted like any question."""
        record, place = self.record, self.place(rows)
        affordable = torch.ones_like(rows, dtype=torch.bool)
        if self._max_queries is not None:
            affordable = record.forwards[place] <= self._max_queries - second.draws
        asked = affordable.nonzero().squeeze(1)
        if len(asked) == 0:
            return asked
        rows, place = rows[asked], place[asked]
        verdict = second.judge(moved[asked], self.goal.at(rows), self.threat.at(rows), place)
        if self._strict:
            record.forwards[place] += second.draws
        if first:
            record.prediction[place] = verdict.decision
        return asked[verdict.reached]

    def place(self, row: Tensor) -> Tensor:
        """The samples' rows in the record of the whole batch."""
        return row if self._places is None else self._places[row]


def _smallest(rows: Tensor, size: Tensor) -> Tensor:
    """Of several candidates of one sample only the smallest counts, the first of equal ones, as indices."""
    order = size.argsort(stable=True)
    _, group = torch.unique(rows[order], return_inverse=True)
    place = torch.arange(len(order), device=order.device)
    first = torch.full_like(place, len(order)).scatter_reduce_(0, group, place, "amin")
    return order[first[: int(group.max()) + 1]]
