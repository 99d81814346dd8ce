"""The oracle: what may be asked of the model, and the referee who judges every answer.

An attack proposes moves for a large logical batch. The oracle sends the rows that still matter to the model, packed
into full micro-batches, scatters the answers back, counts, and judges each move that it was asked about: is it inside
the threat, does the output reach the goal, is it smaller than the best so far. Results are read from its record.
"""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from typing import Any, final
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from typing_extensions import Self

from assay.errors import AccessError, ModelError, SettingError
from assay.goals import Goal
from assay.inputs import check_classes
from assay.losses import Loss
from assay.threats import Threat

# A micro-batch that was found by halving is remembered for the model.
_REMEMBERED: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()
_VALUES_AT_ONCE = {"cpu": 1 << 19, "cuda": 1 << 25}  # input values in the first micro-batch that is tried
_ROWS_AT_ONCE = {"cpu": 256, "cuda": 8192}


class Access(IntEnum):
    """What a model grants, or an attack needs; each level includes those before."""

    LABELS = 1
    SCORES = 2
    GRADIENTS = 3


def granted_access(model: Any) -> Access:
    """The access that a model grants: its attribute `access`, or gradients."""
    return Access(getattr(model, "access", Access.GRADIENTS))


@final
@dataclass(frozen=True)
class Record:
    """What the referee knows, one row per sample; written in place only, so that parts and views share it.

    Attributes:
        active: still worth asking about.
        success: an allowed move that reaches the goal is known.
        distance: the smallest size of such a move; inf where none is known.
        x_adv: its moved input; the clean input where none is known.
        prediction: the decision at `x_adv`; -1 before the clean input was judged.
        forwards: forward passes spent.
        backwards: backward passes spent.
    """

    active: Tensor
    success: Tensor
    distance: Tensor
    x_adv: Tensor
    prediction: Tensor
    forwards: Tensor
    backwards: Tensor

    @classmethod
    def empty(cls, x: Tensor, *, referee: bool) -> Record:
        """Nothing is known yet."""
        b = len(x)
        return cls(
            active=torch.ones(b, dtype=torch.bool, device=x.device),
            success=torch.zeros(b, dtype=torch.bool, device=x.device),
            distance=x.new_full((b,), math.inf),
            x_adv=x.clone() if referee else x,
            prediction=torch.full((b,), -1, dtype=torch.int64, device=x.device),
            forwards=torch.zeros(b, dtype=torch.int64, device=x.device),
            backwards=torch.zeros(b, dtype=torch.int64, device=x.device),
        )


@final
@dataclass(frozen=True)
class _Part:
    """One micro-batch of questions.

    Attributes:
        move: which of the flat moves `(b * k, ...)`; a slice where they stand together, which copies nothing.
        sample: which samples they are about.
        rows: the same as indices.
    """

    move: slice | Tensor
    sample: slice | Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    @classmethod
    def of(cls, pairs: Tensor | None, start: int, stop: int, k: int, x: Tensor) -> _Part:
        """Questions start to stop of these pairs (row * k + candidate), or of all."""
        numbers = torch.arange(start, stop, device=x.device) if pairs is None else pairs[start:stop]
        move = slice(start, stop) if pairs is None else numbers
        return cls(move, move if k == 1 else numbers // k, numbers if k == 1 else numbers // k)


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
    ) -> None:
        if max_queries is not None and max_queries < 1:
            raise SettingError(f"max_queries must be at least 1; got {max_queries}.")
        if micro_batch is not None and micro_batch < 1:
            raise SettingError(f"micro_batch must be at least 1; got {micro_batch}.")
        self.model, self.x, self.goal, self.threat = model, x, goal, threat
        self.access, self.referee, self.max_queries = access, referee, max_queries
        self._guide = goal
        self._granted = granted_access(model)
        self._fixed_micro = micro_batch
        self._move_ndim = threat.identity(x[:1]).ndim
        self._places: Tensor | None = None  # a part's rows in the record of the whole batch
        self._record = Record.empty(x, referee=referee)
        self._limit = None if threat.eps is None or not referee else threat.limit(x)
        self._judges = referee
        self._clean: Any = None
        self._kind: dict[str, Tensor] = {}  # an empty answer of the model: its shape, for when nobody is asked

    @property
    def record(self) -> Record:
        """What is known of each sample of the whole batch."""
        return self._record

    @property
    def active(self) -> Tensor:
        """`(b,)` bool: who is still worth asking about."""
        return self._record.active if self._places is None else self._record.active[self._places]

    @property
    def best_distance(self) -> Tensor:
        """`(b,)`: the smallest size of a move known to reach the goal; inf where none is."""
        return self._of(self._record.distance)

    @property
    def best_x(self) -> Tensor:
        """`(b, *shape)`: its moved input; the clean one where none is known."""
        return self._of(self._record.x_adv)

    def track(self) -> None:
        """Have `best_distance` and `best_x` kept in training too, where nothing is judged otherwise."""
        if not self._judges:
            self._record = Record.empty(self.x, referee=True)
            self._judges = True

    def towards(self, goal: Goal) -> Self:
        """This oracle with another goal as the guide of losses; success is still judged by the goal itself."""
        view = copy.copy(self)  # shares every tensor of the record, and each is only ever written in place
        view._guide = goal
        return view

    def at(self, rows: Tensor) -> Self:
        """This oracle for a part of the batch (bool mask, or indices without repeats); the record is the same.

        A long search can so work on ever smaller tensors while its samples finish.
        """
        part = copy.copy(self)
        part.x, part.goal, part._guide = self.x[rows], self.goal.at(rows), self._guide.at(rows)
        part.threat = self.threat.at(rows)
        every = torch.arange(len(self.x), device=self.x.device) if self._places is None else self._places
        part._places = every[rows]
        part._limit = None if self._limit is None else self._limit[rows]
        part._clean = self._clean[rows] if isinstance(self._clean, Tensor) else None
        return part

    # ------------------------------------------------------------------ questions

    def labels(self, theta: Tensor, rows: Tensor | None = None) -> Tensor:
        """Decisions for these moves, `(b,)` or `(b, k)` int64; -1 where not asked."""
        self._need(Access.LABELS)
        answer = self._ask(theta, rows, self._forward, decide=True)["output"]
        return answer if isinstance(answer, Tensor) else torch.stack(answer)

    def scores(self, theta: Tensor, rows: Tensor | None = None) -> Any:
        """The model's raw output for these moves."""
        self._need(Access.SCORES)
        return self._ask(theta, rows, self._forward)["output"]

    def gradient(
        self, theta: Tensor, loss: Loss | None = None, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Any]:
        """Loss, its gradient with respect to the move, and the model's raw output.

        Args:
            theta: moves, `(b, *m)` or `(b, k, *m)`.
            loss: `(output, goal) -> (b,)`, higher is nearer the goal; the guide's own when None.
            rows: bool mask of the samples to ask about.

        Returns:
            Values `(b,)` or `(b, k)`, gradients shaped like theta, and the output.

        Raises:
            ModelError: no gradient reaches the input.
        """
        self._need(Access.GRADIENTS)

        def forward_backward(x: Tensor, theta: Tensor, goal: Goal, guide: Goal, threat: Threat) -> dict[str, Any]:
            with torch.enable_grad():
                theta = theta.detach().requires_grad_()
                moved = threat.apply(x, theta)
                output = self.model(moved)
                value, grad = _gradient(output, theta, guide, loss)
            grad = _finite(grad) if self.referee else grad
            return {"moved": moved.detach(), "output": _detach(output), "value": value, "grad": grad}

        answer = self._ask(theta, rows, forward_backward, backwards=1)
        return answer["value"], answer["grad"], answer["output"]

    def value(self, theta: Tensor, loss: Loss | None = None, rows: Tensor | None = None) -> Tensor:
        """The loss alone, `(b,)` or `(b, k)`: a forward pass without a backward one."""
        self._need(Access.SCORES)

        def forward(x: Tensor, theta: Tensor, goal: Goal, guide: Goal, threat: Threat) -> dict[str, Any]:
            found = self._forward(x, theta, goal, guide, threat)
            return {**found, "value": _loss(_single(found["output"]), guide, loss)}

        value: Tensor = self._ask(theta, rows, forward)["value"]
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

        def chosen(classes: Tensor) -> list[Loss]:
            return [partial(_chosen, classes=one) for one in classes.unbind(1)]

        return self._slopes(theta, rows, chosen, classes.shape[1], extra=classes)

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
        return self._slopes(theta, rows, lambda: losses, len(losses))

    def judge(self, theta: Tensor, rows: Tensor | None = None) -> None:
        """Have moves judged whose answer the attack does not need (the last ones); costs nothing in training."""
        if self.referee and not self.finished:
            self._ask(theta, rows, self._forward, decide=self.access is Access.LABELS)

    def clean(self) -> Any:
        """The model's output on the clean inputs, asked at most once."""
        self._need(Access.SCORES)
        if self._clean is None:
            self._clean = self._ask(self.threat.identity(self.x), None, self._forward)["output"]
        return self._clean

    def judge_clean(self, output: Any = None) -> None:
        """Judge the clean inputs first: those that reach the goal already are successes at distance 0.

        Args:
            output: the model's answer where it is known already; it is then not asked, and not counted.
        """
        theta = self.threat.identity(self.x)
        if output is None:
            decide = self._granted is Access.LABELS
            output = self._ask(theta, None, self._forward, decide=decide, keep_first=True)["output"]
        else:
            rows = torch.arange(len(self.x), device=self.x.device)
            self._check_output(output, rows)
            if isinstance(output, Tensor) and output.ndim == 2:
                check_classes(self.goal, output.shape[1])
            self._record.prediction.copy_(self._decisions(self.goal, output))
            self._judge(rows, theta, self.x, output)
        self._clean = output

    @property
    def finished(self) -> bool:
        """Whether nobody is worth asking about any more; never in training."""
        return self.referee and not bool(self.active.any())

    @property
    def micro_batch(self) -> int:
        """Rows per model call."""
        if self._fixed_micro is not None:
            return self._fixed_micro
        known = _REMEMBERED.get(self.model) if isinstance(self.model, nn.Module) else None
        if known is not None:
            return known
        kind = self.x.device.type if self.x.device.type in _ROWS_AT_ONCE else "cuda"
        fitting = max(1, _VALUES_AT_ONCE[kind] // max(1, self.x[0].numel()))
        return min(_ROWS_AT_ONCE[kind], 1 << (fitting.bit_length() - 1))

    @property
    def width(self) -> int:
        """How many candidates for each active sample make a full micro-batch."""
        return max(1, self.micro_batch // max(1, int(self.active.sum())))

    # ------------------------------------------------------------------ the machinery

    def _need(self, access: Access) -> None:
        if access > self.access:
            raise AccessError(
                f"a question needs {access.name.lower()}, but this oracle grants {self.access.name.lower()}: the "
                "attack must declare the access that it uses."
            )

    def _forward(self, x: Tensor, theta: Tensor, goal: Goal, guide: Goal, threat: Threat) -> dict[str, Any]:
        with torch.no_grad():
            moved = threat.apply(x, theta)
            return {"moved": moved, "output": self.model(moved)}

    def _slopes(
        self,
        theta: Tensor,
        rows: Tensor | None,
        losses: Callable[..., Sequence[Loss]],
        k: int,
        extra: Tensor | None = None,
    ) -> tuple[Tensor, Any]:
        """Gradients of the k losses for the rows of a micro-batch, given what `extra` holds for them."""
        self._need(Access.GRADIENTS)

        def passes(x: Tensor, theta: Tensor, goal: Goal, guide: Goal, threat: Threat, *more: Tensor) -> dict[str, Any]:
            with torch.enable_grad():
                theta = theta.detach().requires_grad_()
                moved = threat.apply(x, theta)
                output = self.model(moved)
                grads = [
                    _gradient(output, theta, guide, loss, keep=i + 1 < k)[1] for i, loss in enumerate(losses(*more))
                ]
            return {"moved": moved.detach(), "output": _detach(output), "grad": _finite(torch.stack(grads, dim=1))}

        answer = self._ask(theta, rows, passes, backwards=k, several=k, extra=extra)
        return answer["grad"], answer["output"]

    def _ask(
        self,
        theta: Tensor,
        rows: Tensor | None,
        question: Callable[..., dict[str, Any]],
        *,
        backwards: int = 0,
        decide: bool = False,
        keep_first: bool = False,
        several: int = 0,
        extra: Tensor | None = None,
    ) -> dict[str, Any]:
        """Put a question about the rows that still matter; return its answers in the logical batch's shape."""
        candidates = theta.ndim > self._move_ndim
        k = theta.shape[1] if candidates else 1
        shape = (len(self.x), k) if candidates else (len(self.x),)
        flat = theta.flatten(0, 1) if candidates else theta
        pairs = self._pairs(rows, k)
        answers: dict[str, Any] = {}
        done, total = 0, len(flat) if pairs is None else len(pairs)
        while done < total:
            end = min(done + self.micro_batch, total) if self.referee else total
            part = _Part.of(pairs, done, end, k, self.x)
            try:
                found = self._put(part, flat, question, extra)
            except RuntimeError as error:
                if not self.referee or not _out_of_memory(error) or len(part) == 1:
                    raise
                found = None
            if found is None:  # outside the except clause, so that the failed call's tensors are free
                self._remember(len(part) // 2)
                gc.collect()
                if self.x.is_cuda:
                    torch.cuda.empty_cache()
                continue
            if self.referee:
                self._account(part, found, flat, backwards, first=keep_first)
            elif self._judges:
                self._judge(part.rows, flat[part.move], found["moved"], found["output"])
            if decide:
                found["output"] = self._decisions(self.goal, found["output"])
            elif isinstance(found["output"], Tensor):
                self._kind["output"] = found["output"][:0]
            del found["moved"]
            _scatter(answers, found, part, len(flat))
            done = end
        if not answers:
            answers = self._nothing(theta, decide, several)
        return {name: _shaped(value, shape) for name, value in answers.items()}

    def _pairs(self, rows: Tensor | None, k: int) -> Tensor | None:
        """Flat numbers (row * k + candidate) to be asked about; None for all of them."""
        if not self.referee:
            if rows is None:
                return None
            mask = rows
        else:
            mask = self.active if rows is None else self.active & rows
        left = None
        if self.max_queries is not None:
            left = (self.max_queries - self._of(self._record.forwards)).clamp_(0, k)
            mask = mask & (left > 0)
        picked = mask.nonzero().squeeze(1)
        if left is None and len(picked) == len(self.x):
            return None
        pairs = picked[:, None] * k + torch.arange(k, device=picked.device)
        if left is not None:
            return pairs[torch.arange(k, device=picked.device) < left[picked, None]]
        return pairs.flatten()

    def _put(
        self, part: _Part, flat: Tensor, question: Callable[..., dict[str, Any]], extra: Tensor | None
    ) -> dict[str, Any]:
        """Put the question to the model for one micro-batch."""
        more = () if extra is None else (extra[part.sample],)
        if len(part) == len(flat) == len(self.x):
            return question(self.x, flat, self.goal, self._guide, self.threat, *more)
        rows = part.rows
        sides = self.goal.at(rows), self._guide.at(rows), self.threat.at(rows)
        return question(self.x[part.sample], flat[part.move], *sides, *more)

    def _account(self, part: _Part, found: dict[str, Any], flat: Tensor, backwards: int, *, first: bool) -> None:
        """Count the passes and judge the answers."""
        row = part.rows
        place, record = self._place(row), self._record
        one = torch.ones_like(row)
        record.forwards.index_add_(0, place, one)
        if backwards:
            record.backwards.index_add_(0, place, one * backwards)
        output = found["output"]
        self._check_output(output, row)
        if first:
            if isinstance(output, Tensor) and output.ndim == 2:
                check_classes(self.goal, output.shape[1])
            record.prediction[place] = self._decisions(self.goal.at(row), output)
        self._judge(row, flat[part.move], found["moved"], output)
        if self.max_queries is not None:
            record.active.logical_and_(record.forwards < self.max_queries)

    @staticmethod
    def _check_output(output: Any, row: Tensor) -> None:
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

    def _place(self, row: Tensor) -> Tensor:
        return row if self._places is None else self._places[row]

    def _of(self, whole: Tensor) -> Tensor:
        """A tensor of the record, for this oracle's rows."""
        return whole if self._places is None else whole[self._places]

    def _decisions(self, goal: Goal, output: Any) -> Tensor:
        if self._granted is Access.LABELS and isinstance(output, Tensor) and not output.is_floating_point():
            return output.long()
        return goal.labels(output)

    def _judge(self, row: Tensor, theta: Tensor, moved: Tensor, output: Any) -> None:
        """Judge moves `theta` of the samples `row` (which may repeat) and keep the best."""
        goal = self.goal.at(row)
        if self._granted is Access.LABELS:
            reached = goal.reached_labels(self._decisions(goal, output))
        else:
            reached = goal.reached(output)
        record, place = self._record, self._place(row)
        hit = reached.nonzero().squeeze(1)
        if len(hit) == 0:
            return
        rows = row[hit]
        size = self.threat.at(rows).size(self.x[rows], theta[hit])
        better = size < record.distance[place[hit]]
        if self._limit is not None:
            better &= size <= self._limit[rows]
        hit, rows, size = hit[better], rows[better], size[better]
        if len(hit) > 1:  # of several candidates of one sample only the smallest counts, the first of equal ones
            order = size.argsort(stable=True)
            _, group = torch.unique(rows[order], return_inverse=True)
            place = torch.arange(len(order), device=order.device)
            first = torch.full_like(place, len(order)).scatter_reduce_(0, group, place, "amin")
            keep = order[first[: int(group.max()) + 1]]
            hit, rows, size = hit[keep], rows[keep], size[keep]
        place = self._place(rows)
        record.success[place] = True
        record.distance[place] = size
        record.x_adv[place] = moved[hit]
        record.prediction[place] = self._decisions(self.goal.at(rows), _pick(output, hit))
        record.active[place] = size > 0 if self._limit is None else False

    def _remember(self, micro_batch: int) -> None:
        """Memory ran out: smaller micro-batches from now on, for this model."""
        if self._fixed_micro is None and isinstance(self.model, nn.Module):
            _REMEMBERED[self.model] = micro_batch
        else:
            self._fixed_micro = micro_batch

    def _nothing(self, theta: Tensor, decide: bool, several: int) -> dict[str, Any]:
        """Answers when nobody had to be asked."""
        flat = theta.flatten(0, 1) if theta.ndim > self._move_ndim else theta
        n = len(flat)
        unknown = theta.new_full((n,), math.nan)
        if decide:
            output: Any = torch.full((n,), -1, dtype=torch.int64, device=theta.device)
        elif (kind := self._kind.get("output", self._clean)) is not None and isinstance(kind, Tensor):
            output = kind.new_full((n, *kind.shape[1:]), math.nan if kind.is_floating_point() else -1)
        else:
            output = [None] * n
        grad = flat.new_zeros((n, several, *flat.shape[1:])) if several else torch.zeros_like(flat)
        return {"output": output, "value": unknown, "grad": grad}


def _loss(output: Any, guide: Goal, loss: Loss | None) -> Tensor:
    return guide.loss(output) if loss is None else loss(output, guide)


def _half(output: Any) -> bool:
    return isinstance(output, Tensor) and output.dtype in (torch.float16, torch.bfloat16)


def _single(output: Any) -> Any:
    return output.float() if _half(output) else output


def _chosen(output: Any, guide: Goal, *, classes: Tensor) -> Tensor:
    """One chosen output of each sample."""
    value: Tensor = output.gather(1, classes[:, None]).squeeze(1)
    return value


def _gradient(
    output: Any, theta: Tensor, guide: Goal, loss: Loss | None, *, keep: bool = False
) -> tuple[Tensor, Tensor]:
    """The loss of each sample and its gradient with respect to the move.

    Half precision would lose both: losses are computed in float32, and the gradient at the output is scaled to a
    largest value of 1 per sample for the way back, since small ones vanish in float16. The scale is undone where the
    move's own dtype can hold the result.
    """
    if not _half(output):
        value = _loss(output, guide, loss)
        return value.detach(), _backward(value.sum(), theta, keep=keep)
    wide = output.detach().float().requires_grad_()
    value = _loss(wide, guide, loss)
    (slope,) = torch.autograd.grad(value.sum(), wide)
    column = [-1, *[1] * (slope.ndim - 1)]
    scale = slope.flatten(1).abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny)
    grad = _backward(output, theta, slope=(slope / scale.reshape(column)).to(output.dtype), keep=keep)
    if not _half(theta):
        grad = grad * scale.reshape(-1, *[1] * (grad.ndim - 1)).to(grad.dtype)
    return value.detach(), grad


def _backward(value: Tensor, theta: Tensor, *, slope: Tensor | None = None, keep: bool = False) -> Tensor:
    """The gradient of a summed value, with the reason named when there is none."""
    grad = None
    if value.requires_grad:
        (grad,) = torch.autograd.grad(value, theta, grad_outputs=slope, retain_graph=keep, allow_unused=True)
    if grad is None:
        raise ModelError(
            "no gradient reaches the input: the model's output does not depend on it in a way that autograd can follow "
            "(.detach(), .data, torch.no_grad(), NumPy or rounding inside the model). Use an attack that needs scores "
            "only, such as Square, or make the forward pass differentiable."
        )
    return grad


def _finite(grad: Tensor) -> Tensor:
    """The gradient with NaN as 0 and infinities as the largest numbers.

    A NaN in a part of a sample's gradient (as from `torch.where(t > 0, t.sqrt(), 0)` at 0) would stop sign steps at
    that pixel and spoil the others. Gradients of nothing but NaN are an error.
    """
    if bool(grad.isfinite().all()):
        return grad
    if bool(grad.isnan().all()):
        raise ModelError(
            f"the model's gradient is NaN for all {len(grad)} samples, so that a gradient attack would find nothing "
            "and make it look robust. Look for sqrt, log, division or norm at 0 (also in the branch of a torch.where "
            "that is not taken), and for infinite logits; or attack it with scores alone (Square)."
        )
    return grad.nan_to_num(nan=0.0)


def _detach(output: Any) -> Any:
    return output.detach() if isinstance(output, Tensor) else output


def _pick(output: Any, rows: Tensor) -> Any:
    return output[rows] if isinstance(output, Tensor) else [output[i] for i in rows.tolist()]


def _scatter(answers: dict[str, Any], found: dict[str, Any], part: _Part, total: int) -> None:
    """Write one micro-batch's answers to their places."""
    for name, value in found.items():
        if len(part) == total:
            answers[name] = value
        elif isinstance(value, Tensor):
            if name not in answers:
                empty = 0.0 if name == "grad" else math.nan if value.is_floating_point() else -1
                answers[name] = value.new_full((total, *value.shape[1:]), empty)
            answers[name][part.move] = value
        else:
            whole = answers.setdefault(name, [None] * total)
            places = range(total)[part.move] if isinstance(part.move, slice) else part.move.tolist()
            for place, one in zip(places, value, strict=True):
                whole[place] = one


def _shaped(value: Any, shape: tuple[int, ...]) -> Any:
    """Answers `(b * k, ...)` as `(b, k, ...)` where there were candidates."""
    if len(shape) == 1:
        return value
    b, k = shape
    if isinstance(value, Tensor):
        return value.reshape(b, k, *value.shape[1:])
    return [value[i * k : (i + 1) * k] for i in range(b)]


def _out_of_memory(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or "out of memory" in text or "can't allocate memory" in text
