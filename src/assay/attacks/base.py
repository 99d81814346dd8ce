"""The interface of attacks, and what they return."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from assay.errors import AccessError, InputError, QueriesSpent
from assay.goals import Goal
from assay.inputs import as_goal, check_inputs
from assay.oracle import Access, Oracle, granted_access, rejected_output
from assay.rng import Keyed
from assay.threats import Threat
from assay.transformations import EOT


@final
@dataclass(frozen=True)
class Result:
    """What an attack found, one row per sample, as the referee recorded it.

    Attributes:
        x_adv: `(b, *shape)`: the best adversarial input; the clean one where none was found.
        success: `(b,)` bool: whether the goal is reached inside the threat.
        distance: `(b,)`: the size of the change; 0 where the clean input reached the goal, inf where the attack failed.
        prediction: `(b,)` int64: the model's decision at `x_adv`.
        forwards: `(b,)` int64: model evaluations spent on the sample, the clean one included.
        backwards: `(b,)` int64: backward passes spent on the sample.
        theta: `(b, *m)`: the moves that lead to `x_adv` (`threat.apply(x, theta)`), the identity where none was found;
            None unless they are asked for with `keep_moves=True`.
        worth: `(b,)`: how much `x_adv` is worth where the goal has degrees, -inf where none was found; None where it
            has none.
    """

    x_adv: Tensor
    success: Tensor
    distance: Tensor
    prediction: Tensor
    forwards: Tensor
    backwards: Tensor
    theta: Tensor | None = None
    worth: Tensor | None = None

    def __repr__(self) -> str:
        n, won = len(self.success), int(self.success.sum())
        return (
            f"Result({won} of {n} succeeded; {float(self.forwards.double().mean()):.1f} forwards and "
            f"{float(self.backwards.double().mean()):.1f} backwards a sample)"
        )


class Attack(ABC):
    """A search for moves that reach a goal inside a threat.

    Subclasses are frozen dataclasses with a field (or property) `threat`, the class attribute `access` and the method
    `run`; everything else is shared. The model is an argument of the call, so that one attack serves many models.
    """

    threat: Threat
    access: ClassVar[Access]

    @abstractmethod
    def run(self, oracle: Oracle, x: Tensor, goal: Goal, rng: Keyed) -> Tensor:
        """Search.

        Args:
            oracle: answers questions about moves and judges every one.
            x: clean inputs, `(b, *shape)`.
            goal: what leads the search, as the oracle's guide.
            rng: keyed random numbers, one stream per sample.

        Returns:
            The last (in training: the best) moves, `(b, *m)`.
        """

    def aim(self, goal: Goal) -> Goal:
        """What the referee shall judge, of what the caller asked for; a stricter goal for attacks with a confidence."""
        return goal

    @final
    def __call__(
        self,
        model: Any,
        x: Tensor,
        goal: Any,
        *,
        seed: int = 0,
        index: Tensor | None = None,
        max_queries: int | None = None,
        clean_output: Any = None,
        micro_batch: int | None = None,
        eot: EOT | None = None,
        keep_moves: bool = False,
    ) -> Result:
        """Attack a batch.

        A sample is left alone as soon as it is decided. The model is run in eval mode when it is in train mode as a
        whole, and every submodule's flag is put back.

        Args:
            model: a module or callable that takes inputs inside the threat's bounds and returns logits.
            x: clean inputs, `(b, *shape)`, inside the bounds.
            goal: right labels `(b,)`, or a `Goal`. Labels mean `Untargeted`; where the model rejects inputs, being
                rejected is then no success.
            seed: key of all random draws.
            index: the samples' own numbers, `(b,)` int64 (their place in the data set); with them, results do not
                depend on how samples are batched. Their place in this batch when None.
            max_queries: model evaluations allowed per sample.
            clean_output: the model's output on `x` where it is known; it is then neither asked nor counted. Not
                together with `eot`, where views of `x` are asked about.
            micro_batch: rows per model call; found automatically when None.
            eot: search and judge on means over random views of every input: `EOT(Rotate(20), draws=10)`. Each view is
                a forward pass in all counts.
            keep_moves: have the result hold the moves, too: flows, angles, colour maps.

        Raises:
            InputError: inputs or labels cannot be used.
            AccessError: the model grants less than the attack needs.
            ModelError: the model returns NaN or gives no gradient.
            ThreatError: the attack cannot use this threat.
            QueriesSpent: a total of model evaluations (`assay.models.Metered`) does not reach for the clean inputs; one
                that is used up later ends the search.
        """
        check_inputs(x, self.threat.bounds)
        _check_access(self, model)
        _check_device(model, x)
        with evaluating(model), torch.inference_mode(False), torch.no_grad():
            x = x.clone() if x.is_inference() else x.detach()
            goal = self.aim(_asked(model, x, goal))
            rng = _rng(seed, index, x)
            oracle = Oracle(
                model,
                x,
                goal,
                self.threat,
                access=self.access,
                max_queries=max_queries,
                micro_batch=micro_batch,
                eot=eot,
                seed=seed,
                index=rng.index,
                keep_moves=keep_moves,
            )
            oracle.judge_clean(clean_output)
            if not oracle.finished:
                with suppress(QueriesSpent):  # what was found until then stands in the record
                    self.run(oracle, x, goal, rng)
        r = oracle.record
        worth = r.worth if goal.graded else None
        return Result(r.x_adv, r.success, r.distance, r.prediction, r.forwards, r.backwards, r.theta, worth)

    @final
    def perturb(
        self, model: Any, x: Tensor, goal: Any, *, seed: int = 0, index: Tensor | None = None, eot: EOT | None = None
    ) -> Tensor:
        """Moved inputs for training: no sample stops early, nothing is judged or counted, the mode is left alone.

        Args:
            model: a module or callable; a module stays in the mode it is in.
            x: clean inputs, `(b, *shape)`.
            goal: right labels `(b,)` or a `Goal`.
            seed: key of all random draws; give each training step its own.
            index: the samples' own numbers.
            eot: search on means over random views of every input.

        Returns:
            Moved inputs, `(b, *shape)`, inside the threat, detached.
        """
        with torch.inference_mode(False), torch.no_grad():
            x = x.clone() if x.is_inference() else x.detach()
            goal = self.aim(_asked(model, x, goal))
            rng = _rng(seed, index, x)
            access = max(self.access, min(granted_access(model), Access.SCORES))  # to tell which of several is worst
            oracle = Oracle(
                model, x, goal, self.threat, access=access, referee=False, eot=eot, seed=seed, index=rng.index
            )
            theta = self.run(oracle, x, goal, rng)
            return self.threat.apply(x, theta).detach()


def best_of(oracle: Oracle, runs: Iterable[Callable[[], Tensor]]) -> Tensor:
    """The outcome of several runs (restarts, targets).

    The referee keeps the best of all by itself, and the rest is skipped once every sample is decided. In training,
    where it does not, each run's last moves are compared by the goal's own loss.
    """
    runs = list(runs)
    best: Tensor | None = None
    value: Tensor | None = None
    for run in runs:
        theta = run()
        if oracle.referee:
            best = theta
            if oracle.finished:
                break
            continue
        if len(runs) == 1:
            return theta
        now = oracle.goal.loss(oracle.scores(theta))
        if best is None or value is None:
            best, value = theta, now
        else:
            wins = now > value
            best = torch.where(wins.reshape(-1, *[1] * (theta.ndim - 1)), theta, best)
            value = torch.maximum(now, value)
    assert best is not None
    return best


def smallest_found(oracle: Oracle, x: Tensor, theta: Tensor) -> Tensor:
    """What an attack that minimises an additive perturbation returns: its best, else its last move; inside the threat.

    The attack has called `oracle.track()` before its first question.
    """
    if oracle.referee:
        return theta
    found = oracle.best_distance.isfinite().reshape(-1, *[1] * (x.ndim - 1))
    return oracle.threat.project(x, torch.where(found, oracle.best_x - x, theta))


def _asked(model: Any, x: Tensor, goal: Any) -> Goal:
    """The goal; of labels the one that counts no rejected input of this model."""
    return as_goal(goal, x, None if isinstance(goal, Goal) else rejected_output(model, x))


def _rng(seed: int, index: Tensor | None, x: Tensor) -> Keyed:
    if index is None:
        index = torch.arange(len(x), device=x.device)
    if len(index) != len(x):
        raise InputError(f"index holds {len(index)} numbers for {len(x)} inputs.")
    return Keyed(seed, index.to(x.device), dtype=torch.float64 if x.dtype == torch.float64 else torch.float32)


def _check_access(attack: Attack, model: Any) -> None:
    granted = granted_access(model)
    if attack.access > granted:
        raise AccessError(
            f"{type(attack).__name__} needs {attack.access.name.lower()}, the model grants {granted.name.lower()}. "
            "Use an attack that asks for less (`assay list attacks` tells), such as Square for scores."
        )


def _check_device(model: Any, x: Tensor) -> None:
    if isinstance(model, nn.Module):
        first = next(model.parameters(), None)
        if first is not None and first.device.type != x.device.type:
            raise InputError(
                f"inputs are on {x.device}, the model is on {first.device}: use x.to({str(first.device)!r})."
            )


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Eval mode for a model that is in train mode as a whole; afterwards every module's own flag is restored."""
    if not isinstance(model, nn.Module) or not model.training:
        yield
        return
    flags = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, flag in flags:
            module.training = flag
