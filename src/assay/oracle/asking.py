"""How a question about the logical batch reaches the model in micro-batches, and its answers come back."""

from __future__ import annotations

import copy
import math
from typing import Any, final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.goals import Goal
from assay.oracle.memory import MicroBatch, out_of_memory
from assay.oracle.parts import Part, shaped
from assay.oracle.questions import Answers, Case, Question, Questions
from assay.oracle.referee import Referee
from assay.threats import Threat


@final
class Asking:
    """One batch of samples that questions are asked about.

    Args:
        x: clean inputs, `(b, *shape)`.
        guide: the goal of losses.
        threat: which moves are allowed.
        questions: how answers come about.
        referee: who judges every answer.
        micro_batch: rows per model call.
        strict: False for training: every row is asked about, whatever is known of it.
        packed: whether questions go to the model in micro-batches; in one call each when False.
    """

    def __init__(
        self,
        x: Tensor,
        guide: Goal,
        threat: Threat,
        *,
        questions: Questions,
        referee: Referee,
        micro_batch: MicroBatch,
        strict: bool,
        packed: bool,
    ) -> None:
        self.x, self.guide, self.threat, self.referee = x, guide, threat, referee
        self.micro_batch = micro_batch
        self._questions, self._draws, self._strict, self._packed = questions, questions.draws, strict, packed
        self._numbered = questions.numbered
        self._numbers = torch.zeros(len(x), dtype=torch.int64, device=x.device)  # questions asked, of the whole batch
        self._move_ndim = threat.identity(x[:1]).ndim
        self._kind: dict[str, Tensor] = {}  # an empty answer of the model, for when nobody is asked; shared by views

    def towards(self, guide: Goal) -> Self:
        """The same with another guide."""
        view = copy.copy(self)
        view.guide = guide
        return view

    def at(self, rows: Tensor) -> Self:
        """The same for a part of the batch (bool mask, or indices without repeats)."""
        part = copy.copy(self)
        part.x, part.guide, part.threat = self.x[rows], self.guide.at(rows), self.threat.at(rows)
        part.referee = self.referee.at(rows)
        return part

    def ask(
        self,
        theta: Tensor,
        rows: Tensor | None,
        question: Question,
        *,
        backwards: int = 0,
        decide: bool = False,
        first: bool = False,
        several: int = 0,
        extra: Tensor | None = None,
        judged: bool = True,
    ) -> Answers:
        """Put a question about the rows that still matter; return its answers in the logical batch's shape.

        Args:
            theta: moves, `(b, *m)` or `(b, k, *m)`.
            rows: bool mask of the samples that it is about.
            question: what is asked about one micro-batch.
            backwards: backward passes that it costs.
            decide: answer with decisions in place of outputs.
            first: the moves are those that change nothing, and their decisions are noted.
            several: gradients in an answer, where it holds more than one.
            extra: what the question needs to know about each sample, `(b, ...)`.
            judged: whether the answers are those to the moves, and decide samples.
        """
        candidates = theta.ndim > self._move_ndim
        k = theta.shape[1] if candidates else 1
        shape = (len(self.x), k) if candidates else (len(self.x),)
        flat = theta.flatten(0, 1) if candidates else theta
        pairs = self._pairs(rows, k)
        answers: Answers = {}
        done, total = 0, len(flat) if pairs is None else len(pairs)
        while done < total:
            end = min(done + max(1, self.micro_batch.rows // self._draws), total) if self._packed else total
            part = Part.of(pairs, done, end, k, self.x)
            try:
                found = question(self._case(part, flat, extra))
            except RuntimeError as error:
                sent = min(len(part) * self._draws, self.micro_batch.rows)
                if not self._packed or not out_of_memory(error) or sent == 1:
                    raise
                found = None
            if found is None:  # outside the except clause, so that the failed call's tensors are free
                self.micro_batch.shrink(sent // 2)
                continue
            self._tell(part, flat[part.move], found, backwards=backwards, decide=decide, first=first, judged=judged)
            part.scatter(answers, found, len(flat))
            done = end
        self._advance(pairs, k)
        if not answers:
            answers = self._nothing(theta, decide, several)
        return {name: shaped(value, shape) for name, value in answers.items()}

    def _tell(
        self, part: Part, theta: Tensor, found: Answers, *, backwards: int, decide: bool, first: bool, judged: bool
    ) -> None:
        """Tell the referee what the model answered; leave what the attack gets to see."""
        moved, verdict, output = found.pop("moved"), found.pop("verdict", None), found["output"]
        if self._strict:
            told = (part.rows, theta, moved, output, verdict)
            self.referee.account(*told, spent=self._questions.spent(backwards), first=first, judged=judged)
        elif judged and self.referee.judging:
            self.referee.judge(part.rows, theta, moved, output, verdict)
        if not decide:
            self.learn(output)
        elif verdict is None:
            found["output"] = self.referee.decisions(self.referee.goal, output)
        else:
            found["output"] = verdict.decision

    def _advance(self, pairs: Tensor | None, k: int) -> None:
        """The next question about these samples is another one, whose draws are others."""
        if self._numbered:
            rows = torch.arange(len(self.x), device=self.x.device) if pairs is None else pairs // k
            place = self.referee.place(rows)
            self._numbers[place] = self._numbers[place] + 1

    def learn(self, output: Any) -> None:
        """Note what the model's answers look like."""
        if isinstance(output, Tensor):
            self._kind["output"] = output[:0]

    def _pairs(self, rows: Tensor | None, k: int) -> Tensor | None:
        """Flat numbers (row * k + candidate) to be asked about; None for all of them."""
        if not self._strict:
            if rows is None:
                return None
            mask = rows
        else:
            active = self.referee.known(self.referee.record.active)
            mask = active if rows is None else active & rows
        left = self.referee.left()
        if left is not None:
            left = left.clamp(0, k)
            mask = mask & (left > 0)
        picked = mask.nonzero().squeeze(1)
        if left is None and len(picked) == len(self.x):
            return None
        pairs = picked[:, None] * k + torch.arange(k, device=picked.device)
        if left is not None:
            return pairs[torch.arange(k, device=picked.device) < left[picked, None]]
        return pairs.flatten()

    def _case(self, part: Part, flat: Tensor, extra: Tensor | None) -> Case:
        """What a micro-batch is about; without copies where it is everything."""
        more = None if extra is None else extra[part.sample]
        place = self.referee.place(part.rows)
        number = self._numbers[place] if self._numbered else self._numbers[: len(part)]
        if len(part) == len(flat) == len(self.x):
            return Case(self.x, flat, self.referee.goal, self.guide, self.threat, place, number, more)
        goal, guide, threat = self.referee.goal.at(part.rows), self.guide.at(part.rows), self.threat.at(part.rows)
        return Case(self.x[part.sample], flat[part.move], goal, guide, threat, place, number, more)

    def _nothing(self, theta: Tensor, decide: bool, several: int) -> Answers:
        """Answers when nobody had to be asked."""
        flat = theta.flatten(0, 1) if theta.ndim > self._move_ndim else theta
        n = len(flat)
        if decide:
            output: Any = torch.full((n,), -1, dtype=torch.int64, device=theta.device)
        elif (kind := self._kind.get("output")) is not None:
            output = kind.new_full((n, *kind.shape[1:]), math.nan if kind.is_floating_point() else -1)
        else:
            output = [None] * n
        grad = flat.new_zeros((n, several, *flat.shape[1:])) if several else torch.zeros_like(flat)
        return {"output": output, "value": theta.new_full((n,), math.nan), "grad": grad}
