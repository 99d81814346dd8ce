"""Answers that are means over random views of the moved input, or over the model's own randomness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import Tensor

from assay.errors import ModelError
from assay.goals import Goal
from assay.losses import Loss
from assay.oracle import verdicts
from assay.oracle.access import Access
from assay.oracle.gradients import finite, gradient, loss_of
from assay.oracle.memory import MicroBatch
from assay.oracle.questions import Answers, Case, Losses, Questions, Second, detached
from assay.oracle.verdicts import Verdict
from assay.rng import Keyed, derive, drawing
from assay.threats import Threat
from assay.transformations.eot import EOT, MOST_DRAWS

_Look = Callable[[Tensor, Keyed, Tensor], Answers]  # the answers to views of moved inputs, and which moves these are of


@final
class Expectation(Questions):
    """Asks about every move as often as there are draws, each time about another view of the moved input.

    The views of one move go to the model together as far as a micro-batch holds them. What they add up to is summed
    draw by draw in one order, so that the mean does not depend on how they were packed. Moved inputs are made once for
    all draws, and the way back through the threat is gone once.

    Args:
        model: a module or callable.
        eot: transformations, and how many draws.
        seed: key of all draws.
        index: the samples' own numbers, `(b,)`.
        dtype: of the inputs.
        granted: what the model grants.
        micro_batch: rows per model call.
        strict: whether NaN is taken out of gradients.
    """

    def __init__(
        self,
        model: Any,
        eot: EOT,
        *,
        seed: int,
        index: Tensor,
        dtype: torch.dtype,
        granted: Access,
        micro_batch: MicroBatch,
        strict: bool,
    ) -> None:
        second = Second(eot.confirming, self._second) if eot.confirming else None
        super().__init__(draws=eot.draws, second=second, numbered=True)
        self._model, self._eot, self._granted, self._strict = model, eot, granted, strict
        self._index, self._micro_batch = index, micro_batch
        self._seeds = derive(seed, "eot"), derive(seed, "eot", "confirm")
        self._dtype = torch.float64 if dtype == torch.float64 else torch.float32

    def output(self, case: Case) -> Answers:
        """The mean output and the verdict of the draws."""
        with torch.no_grad():
            moved = case.threat.apply(case.x, case.theta)
            return {"moved": moved, **self._mean(case, moved, self._look(case.threat))}

    def value(self, case: Case, *, loss: Loss | None) -> Answers:
        """The mean loss."""
        with torch.no_grad():
            moved = case.threat.apply(case.x, case.theta)
            look = self._look(case.threat)

            def measured(x: Tensor, rng: Keyed, each: Tensor) -> Answers:
                found = look(x, rng, each)
                return {**found, "value": loss_of(found["output"], case.guide.at(each), loss)}

            return {"moved": moved, **self._mean(case, moved, measured)}

    def gradient(self, case: Case, *, loss: Loss | None) -> Answers:
        """The mean loss and its gradient."""
        found = self._sloped(case, lambda _: [loss])
        return {**found, "grad": found["grad"][:, 0]}

    def gradients(self, case: Case, *, losses: Losses) -> Answers:
        """Gradients of the means of several losses."""
        found = self._sloped(case, losses)
        del found["value"]
        return found

    def _look(self, threat: Threat) -> _Look:
        """The model's outputs for views of moved inputs."""

        def looked(x: Tensor, rng: Keyed, each: Tensor) -> Answers:
            return {"output": self._answer(x, rng, threat)}

        return looked

    def _answer(self, x: Tensor, rng: Keyed, threat: Threat) -> Any:
        """The model's output for views of inputs; what it draws itself has the key of the view."""
        seen = self._eot.views(x, rng, threat.bounds)
        with drawing(rng.named("model")):
            return self._model(seen)

    def _sloped(self, case: Case, losses: Callable[[Any], Sequence[Loss | None]]) -> Answers:
        """The mean of the first loss and the gradients of the means of all, `(n, k, *m)`."""
        with torch.enable_grad():
            theta = case.theta.detach().requires_grad_()
            moved = case.threat.apply(case.x, theta)

        def climbed(x: Tensor, rng: Keyed, each: Tensor) -> Answers:
            guide = case.guide.at(each)
            asked = losses(None if case.extra is None else case.extra[each])
            with torch.enable_grad():
                x.requires_grad_()
                output = self._answer(x, rng, case.threat)
                found = [gradient(output, x, guide, loss, keep=i + 1 < len(asked)) for i, loss in enumerate(asked)]
            grad = torch.stack([slope for _, slope in found], dim=1)
            grad = finite(grad) if self._strict else grad
            return {"output": detached(output), "value": found[0][0], "grad": grad}

        answers = self._mean(case, moved.detach(), climbed)
        slopes = answers["grad"].unbind(1)
        grads = [
            torch.autograd.grad(moved, theta, slope, retain_graph=i + 1 < len(slopes))[0]
            for i, slope in enumerate(slopes)
        ]
        return {**answers, "moved": moved.detach(), "grad": torch.stack(grads, dim=1)}

    def _mean(self, case: Case, moved: Tensor, look: _Look) -> Answers:
        """What all draws answer: means, and a verdict."""
        streams = _streams(case.number, self._eot.draws)
        return self._over(moved, case.goal, case.place, streams, self._seeds[0], look)

    def _second(self, moved: Tensor, goal: Goal, threat: Threat, place: Tensor) -> Verdict:
        """What draws say that are the same for every move of a sample."""
        streams = _streams(torch.zeros_like(place), self._eot.confirming)
        with torch.no_grad():
            answers = self._over(moved, goal, place, streams, self._seeds[1], self._look(threat))
        verdict: Verdict = answers["verdict"]
        return verdict

    def _over(self, moved: Tensor, goal: Goal, place: Tensor, streams: Tensor, seed: int, look: _Look) -> Answers:
        """Look at as many draws at once as a micro-batch holds, one for each of the samples' streams `(n, draws)`."""
        n, draws = streams.shape
        at_once = max(1, self._micro_batch.rows // n)
        sums: Answers = {}
        wins, decided = [], []
        for start in range(0, draws, at_once):
            some = streams[:, start : start + at_once]
            each = torch.arange(n, device=moved.device).repeat_interleave(some.shape[1])
            rng = Keyed(seed, self._index[place[each]], dtype=self._dtype, stream=some.flatten())
            found = look(moved[each], rng, each)
            output = _usable(found["output"])
            verdicts.check_output(output, place[each])
            aim = goal.at(each)
            wins.append(verdicts.reached(aim, output, self._granted).reshape(n, -1))
            decided.append(verdicts.decisions(aim, output, self._granted).reshape(n, -1))
            for name, value in found.items():
                sums[name] = _added(sums.get(name), value, n)
        verdict = verdicts.of_draws(torch.cat(wins, dim=1), torch.cat(decided, dim=1), self._eot.share)
        means = {name: (total / draws).to(found[name].dtype) for name, total in sums.items()}
        if not output.is_floating_point():  # the model tells decisions only
            means["output"] = verdict.decision
        return {**means, "verdict": verdict}


def _streams(number: Tensor, draws: int) -> Tensor:
    """A stream of its own for each draw of each question about a sample, `(n, draws)`."""
    return (number * MOST_DRAWS)[:, None] + torch.arange(draws, device=number.device)


def _added(total: Tensor | None, value: Tensor, n: int) -> Tensor:
    """The sum with further draws `(n * d, ...)`, one after the other."""
    wide = value.float() if value.dtype in (torch.float16, torch.bfloat16) else value
    for each in wide.reshape(n, -1, *value.shape[1:]).unbind(1):
        total = each if total is None else total + each
    assert total is not None
    return total


def _usable(output: Any) -> Tensor:
    if not isinstance(output, Tensor):
        raise ModelError(
            f"EOT takes means of the model's outputs, which must be tensors; this model returned "
            f"{type(output).__name__}."
        )
    return output
