"""The oracle: an attack asks, the model answers in full micro-batches, the referee judges."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, final

import torch
from torch import Tensor
from typing_extensions import Self

from assay.errors import AccessError, LossError, SettingError, ThreatError
from assay.goals import Goal, Look
from assay.losses import Loss
from assay.oracle.access import Access, granted_access, is_stochastic
from assay.oracle.asking import Asking
from assay.oracle.expectation import Expectation
from assay.oracle.gradients import each_class
from assay.oracle.memory import MicroBatch
from assay.oracle.questions import Direct, Question, Questions
from assay.oracle.record import Record
from assay.oracle.referee import Referee
from assay.oracle.verdicts import check_output
from assay.oracle.view import View
from assay.threats import Threat
from assay.transformations import EOT


@final
class Oracle:
    """One batch of samples under attack.

    Moves `theta` are `(b, *m)`, or `(b, k, *m)` for k candidates per sample in one call. Every question takes `rows`
    (bool mask over the batch); rows that are not asked about or no longer active are not sent to the model: their
    answers are NaN, and zero for gradients.

    Args:
        model: a module or callable on inputs inside the threat's bounds.
        x: clean inputs, `(b, *shape)`.
        goal: what counts as success.
        threat: which moves are allowed.
        access: the most that may be asked (an attack's declared need).
        max_queries: model evaluations allowed per sample, all together.
        micro_batch: rows per model call; None finds it (start large, halve when memory runs out, remember).
        referee: False for training: nothing is judged, counted or stopped.
        packed: without a referee, put questions to the model in micro-batches all the same; a model in train mode has
            to see the whole batch at once.
        eot: ask about random views of every moved input and take means, as `EOT` describes; when None, a model that
            says that it is random is asked for one draw, `EOT(draws=1)`.
        seed: key of these views.
        index: the samples' own numbers for them, `(b,)`; their place in this batch when None.
        keep_moves: have the record hold the moves of its adversarial inputs.

    Raises:
        SettingError: a setting is out of range, or `eot` is given for a goal that looks at more than outputs.
        ThreatError: the goal has degrees, and the threat no budget.

    """

    def __init__(
        self,
        model: Any,
        x: Tensor,
        goal: Goal,
        threat: Threat,
        *,
        access: Access = Access.GRADIENTS,
        max_queries: int | None = None,
        micro_batch: int | None = None,
        referee: bool = True,
        packed: bool = False,
        eot: EOT | None = None,
        seed: int = 0,
        index: Tensor | None = None,
        keep_moves: bool = False,
    ) -> None:
        if max_queries is not None and max_queries < 1:
            raise SettingError(f"max_queries must be at least 1; got {max_queries}.")
        if micro_batch is not None and micro_batch < 1:
            raise SettingError(f"micro_batch must be at least 1; got {micro_batch}.")
        self.model, self.x, self.goal, self.threat = model, x, goal, threat
        self.access, self.referee, self.max_queries = access, referee, max_queries
        self._granted = granted_access(model)
        rows = MicroBatch(model, x, micro_batch)
        self._questions: Questions = Direct(model, goal.look, strict=referee or packed)
        if eot is not None and not isinstance(eot, EOT):
            raise SettingError(f"eot must be an EOT, such as EOT(Rotate(20), draws=10); got {eot!r}.")
        self._implied = eot is None and goal.look == Look() and is_stochastic(model)
        eot = EOT(draws=1) if self._implied else eot
        if goal.graded and referee and threat.eps is None:
            raise ThreatError(
                f"{type(goal).__name__} looks for the most that a budget allows, and {threat!r} has none: "
                "give it an eps."
            )
        if eot is not None and goal.look != Look():
            raise SettingError(
                f"random views are of a model's outputs; {type(goal).__name__} looks at more: leave eot out."
            )
        if eot is not None:
            least = eot.draws + eot.confirming
            if max_queries is not None and max_queries < least:
                raise SettingError(f"max_queries must be at least {least} to judge one input with {eot!r}.")
            index = torch.arange(len(x), device=x.device) if index is None else index.to(x.device)
            self._questions = Expectation(
                model,
                eot,
                seed=seed,
                index=index,
                dtype=x.dtype,
                granted=self._granted,
                micro_batch=rows,
                strict=referee,
            )
        self._referee = Referee(
            x,
            goal,
            threat,
            granted=self._granted,
            strict=referee,
            max_queries=max_queries,
            draws=self._questions.draws,
            second=self._questions.second,
            keep_moves=keep_moves,
        )
        self._asking = Asking(
            x,
            goal,
            threat,
            questions=self._questions,
            referee=self._referee,
            micro_batch=rows,
            strict=referee,
            packed=referee or packed,
        )
        self._clean: Any = None

    @property
    def record(self) -> Record:
        """What is known of each sample of the whole batch."""
        return self._referee.record

    @property
    def active(self) -> Tensor:
        """`(b,)` bool: who is still worth asking about."""
        return self._referee.known(self.record.active)

    @property
    def best_distance(self) -> Tensor:
        """`(b,)`: the smallest size of a move known to reach the goal; inf where none is."""
        return self._referee.known(self.record.distance)

    @property
    def best_x(self) -> Tensor:
        """`(b, *shape)`: its moved input; the clean one where none is known."""
        return self._referee.known(self.record.x_adv)

    def track(self) -> None:
        """Have `best_distance` and `best_x` kept in training too, where nothing is judged otherwise."""
        self._referee.track()

    def towards(self, goal: Goal) -> Self:
        """This oracle with another goal as the guide of losses; success is still judged by the goal itself.

        Raises:
            LossError: the guide looks at something else than the goal.
        """
        if goal.look != self.goal.look:
            raise LossError(
                f"{type(self.goal).__name__} needs an attack that follows its own loss (PGD, APGD): losses of a "
                f"{type(goal).__name__} are of something else."
            )
        view = copy.copy(self)  # shares the referee and his record
        view._asking = self._asking.towards(goal)
        return view

    def at(self, rows: Tensor) -> Self:
        """This oracle for a part of the batch (bool mask, or indices without repeats); the record is the same.

        A long search can so work on ever smaller tensors while its samples finish.
        """
        part = copy.copy(self)
        part._asking = self._asking.at(rows)
        part._referee = part._asking.referee
        part.x, part.goal, part.threat = part._referee.x, part._referee.goal, part._referee.threat
        part._clean = self._clean[rows] if isinstance(self._clean, Tensor) else None
        return part

    def labels(self, theta: Tensor, rows: Tensor | None = None) -> Tensor:
        """Decisions for these moves, `(b,)` or `(b, k)` int64; -1 where not asked."""
        self._need(Access.LABELS)
        answer = self._asking.ask(theta, rows, self._questions.output, decide=True)["output"]
        return answer if isinstance(answer, Tensor) else torch.stack(answer)

    def scores(self, theta: Tensor, rows: Tensor | None = None) -> Any:
        """The model's raw output for these moves."""
        self._need(Access.SCORES)
        return self._asking.ask(theta, rows, self._questions.output)["output"]

    def gradient(
        self, theta: Tensor, loss: Loss | None = None, rows: Tensor | None = None, *, view: View | None = None
    ) -> tuple[Tensor, Tensor, Any]:
        """Loss, its gradient with respect to the move, and the model's raw output.

        Args:
            theta: moves, `(b, *m)` or `(b, k, *m)`.
            loss: `(output, goal) -> (b,)`, higher is nearer the goal; the guide's own when None.
            rows: bool mask of the samples to ask about.
            view: what the model shall see in place of the moved inputs; its answers lead, and judge nothing.

        Returns:
            Values `(b,)` or `(b, k)`, gradients shaped like theta, and the output.

        Raises:
            ModelError: no gradient reaches the input.
        """
        self._need(Access.GRADIENTS)
        question: Question = partial(self._questions.gradient, loss=loss)
        if view is None:
            answer = self._asking.ask(theta, rows, question, backwards=1)
        else:
            shown = view.question(question)
            answer = self._asking.ask(theta, rows, shown, backwards=1, extra=view.drawn, judged=False)
        return answer["value"], answer["grad"], answer["output"]

    def value(self, theta: Tensor, loss: Loss | None = None, rows: Tensor | None = None) -> Tensor:
        """The loss alone, `(b,)` or `(b, k)`: a forward pass without a backward one."""
        self._need(Access.SCORES)

        value: Tensor = self._asking.ask(theta, rows, partial(self._questions.value, loss=loss))["value"]
        return value

    def jacobian(self, theta: Tensor, classes: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Any]:
        """Gradients of several outputs with respect to the move, from one forward and k backward passes.

        Args:
            theta: moves, `(b, *m)`.
            classes: which outputs, `(b, k)` int64.
            rows: bool mask of the samples to ask about.

        Returns:
            Gradients `(b, k, *m)` and the raw output.

        Raises:
            ModelError: no gradient reaches the input.
        """
        return self._slopes(theta, rows, each_class, classes.shape[1], extra=classes)

    def gradients(self, theta: Tensor, losses: Sequence[Loss], rows: Tensor | None = None) -> tuple[Tensor, Any]:
        """Gradients of several losses with respect to the move, from one forward and k backward passes.

        Args:
            theta: moves, `(b, *m)`.
            losses: k of `(output, goal) -> (b,)`, as for `gradient`.
            rows: bool mask of the samples to ask about.

        Returns:
            Gradients `(b, k, *m)` and the raw output.

        Raises:
            ModelError: no gradient reaches the input.
        """
        return self._slopes(theta, rows, lambda _: losses, len(losses))

    def judge(self, theta: Tensor, rows: Tensor | None = None) -> None:
        """Have moves judged whose answer the attack does not need (the last ones); costs nothing in training."""
        if self.referee and not self.finished:
            self._asking.ask(theta, rows, self._questions.output, decide=self.access is Access.LABELS)

    def clean(self) -> Any:
        """The model's output on the clean inputs, asked at most once."""
        self._need(Access.SCORES)
        if self._clean is None:
            self._clean = self._asking.ask(self.threat.identity(self.x), None, self._questions.output)["output"]
        return self._clean

    def judge_clean(self, output: Any = None) -> None:
        """Judge the clean inputs first: those that reach the goal already are successes at distance 0.

        Args:
            output: the model's answer where it is known already; it is then not asked, and not counted. A model that
                says that it is random is asked all the same: its answers are those of keyed draws.

        Raises:
            SettingError: the answer is given, but views of the inputs are what is judged.
        """
        theta = self.threat.identity(self.x)
        if output is None or self._implied:
            decide = self._granted is Access.LABELS
            output = self._asking.ask(theta, None, self._questions.output, decide=decide, first=True)["output"]
        else:
            if isinstance(self._questions, Expectation):
                raise SettingError("with eot, views of the clean inputs are judged: leave clean_output out.")
            rows = torch.arange(len(self.x), device=self.x.device)
            check_output(output, rows)
            self._referee.begin(rows, output)
            self._referee.judge(rows, theta, self.x, output)
            self._asking.learn(output)
        self._clean = output

    @property
    def finished(self) -> bool:
        """Whether nobody is worth asking about any more; never in training."""
        return self.referee and not bool(self.active.any())

    @property
    def micro_batch(self) -> int:
        """Rows per model call."""
        return self._asking.micro_batch.rows

    @property
    def width(self) -> int:
        """How many candidates for each active sample make a full micro-batch."""
        return max(1, self.micro_batch // (self._questions.draws * max(1, int(self.active.sum()))))

    def _need(self, access: Access) -> None:
        if access > self.access:
            raise AccessError(
                f"a question needs {access.name.lower()}, but this oracle grants {self.access.name.lower()}: the "
                "attack must declare the access that it uses."
            )

    def _slopes(
        self,
        theta: Tensor,
        rows: Tensor | None,
        losses: Callable[[Any], Sequence[Loss]],
        k: int,
        extra: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Gradients of the k losses for the rows of a micro-batch, given what `extra` holds for them."""
        self._need(Access.GRADIENTS)
        question = partial(self._questions.gradients, losses=losses)
        answer = self._asking.ask(theta, rows, question, backwards=k, several=k, extra=extra)
        return answer["grad"], answer["output"]
