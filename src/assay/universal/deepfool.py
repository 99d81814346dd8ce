"""A sum of least moves: for each sample that is not fooled yet, the one that fools it too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from assay.attacks.deepfool import DeepFool
from assay.oracle import Oracle
from assay.threats import L2
from assay.universal.method import Ball, Method, Step, Task, number, whole

_LOOK_AHEAD = 256  # samples that are asked about at once at most, while all of them turn out to be fooled


@final
@dataclass(frozen=True, kw_only=True)
class DeepFoolPasses(Method):
    """For one sample after the other: where v does not fool it, DeepFool finds the least move from there that does.

    `v <- P(v + dr)` with `dr` the least L2 move that changes the decision at `x + v`, where DeepFool found one, and P
    the projection on the ball. There are passes over the samples, each in a new order, until v fools the share
    `1 - delta` of them.

    Args:
        passes: passes over the samples at most.
        delta: share of the samples that need not be fooled.
        steps: steps of DeepFool at most.
        candidates: how many of the likeliest classes DeepFool considers.
        overshoot: by which share DeepFool's move is lengthened.
        batch: for how many samples DeepFool runs at once; 1 is the paper's order.

    Raises:
        SettingError: a setting is out of range.

    Deviations:
        DeepFool runs for the next `batch` samples that v does not fool, all from the same v, and their moves are then
        added one after the other, each only if v does not fool its sample by then. With `batch=1` this is the paper's
        order. The perturbation of the pass that fooled most is returned, in the paper that of the last: the rate rises
        and falls from pass to pass. Inputs are clipped to the bounds before the model sees them, and `dr` is the change
        of the clipped input; the paper does not clip while it learns v. DeepFool's own deviations stand there.

    References:
        Moosavi-Dezfooli, Fawzi, Fawzi, Frossard, "Universal adversarial perturbations", CVPR 2017,
        https://arxiv.org/abs/1610.08401

    Example:
        >>> DeepFoolPasses(passes=3)
        DeepFoolPasses(passes=3, delta=0.2, steps=10, candidates=10, overshoot=0.02, batch=32)
    """

    passes: int = 10
    delta: float = 0.2
    steps: int = 10
    candidates: int = 10
    overshoot: float = 0.02
    batch: int = 32

    def __post_init__(self) -> None:
        whole("passes", self.passes, 1)
        whole("batch", self.batch, 1)
        number("delta", self.delta, most=1.0)
        self._search((0.0, 1.0))

    def _search(self, bounds: tuple[float, float]) -> DeepFool:
        return DeepFool(
            threat=L2(bounds=bounds), steps=self.steps, candidates=self.candidates, overshoot=self.overshoot
        )

    def fit(self, task: Task, v: Tensor) -> Iterator[Step]:
        """A step for each group of samples that are not fooled, and one for each finished pass, with the best v."""
        ball, search, n, ahead = Ball(task.threat, torch.zeros_like(v)), self._search(task.threat.bounds), len(task), 1
        best, most = v, -1.0
        for turn in range(self.passes):
            order, seen, fooled = task.order(turn), 0, 0
            while seen < n:
                oracle = task.about(order[seen : seen + ahead])
                output = oracle.scores(v.expand_as(oracle.x))
                missed = oracle.active.nonzero().flatten()
                group = missed[: self.batch]
                visited = int(group[-1]) + 1 if len(group) else len(oracle.x)
                backwards = forwards = 0
                if len(group):
                    moved = task.threat.apply(oracle.x[group], v)
                    result = search(
                        task.model,
                        moved,
                        oracle.goal.at(group),
                        clean_output=output[group],
                        micro_batch=task.micro_batch,
                    )
                    v = _learnt(oracle, ball, v, group[result.success], (result.x_adv - moved)[result.success])
                    forwards, backwards = int(result.forwards.sum()), int(result.backwards.sum())
                seen, fooled = seen + visited, fooled + visited - len(group)
                ahead = min(_LOOK_AHEAD, max(self.batch, ahead * (self.batch + 1) // max(1, len(missed))))
                yield Step(
                    v=v,
                    passes=turn,
                    done=turn * n + seen,
                    total=self.passes * n,
                    fooled=fooled / seen,
                    forwards=forwards + int(oracle.record.forwards.sum()),
                    backwards=backwards,
                )
            share = task.fooled(v)
            if share > most:
                best, most = v, share
            yield Step(
                v=best,
                passes=turn + 1,
                done=(turn + 1) * n,
                total=self.passes * n,
                fooled=most,
                forwards=n,
                backwards=0,
            )
            if most >= 1 - self.delta:
                return


def _learnt(oracle: Oracle, ball: Ball, v: Tensor, rows: Tensor, moves: Tensor) -> Tensor:
    """The perturbation after one move after the other, without those of samples that it fools by then."""
    before = v
    for row, move in zip(rows[:, None], moves[:, None], strict=True):
        if v is not before:
            oracle.at(row).judge(v)
        if bool(oracle.active[row]):
            v = ball.project(v + move)
    return v
