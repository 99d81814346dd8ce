"""Checks that a result depends on the seed and the sample, and on nothing else."""

from __future__ import annotations

import torch

from assay.attacks.base import Attack, Result
from assay.goals import Goal, Untargeted
from assay.testing.case import Case, Setting, audit, same, targeted
from assay.testing.models import curved


def same_seed_same_result(case: Case) -> None:
    """Two calls with one seed agree to the last bit, whatever the global generators say; other seeds are honest."""
    at = case.setting()
    attack = case.attack(at.middle)
    first = attack(at.model, at.x, at.y, seed=5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        second = attack(at.model, at.x, at.y, seed=5)
    same("two calls with one seed", first, second)
    audit(attack(at.model, at.x, at.y, seed=2**40 + 6), at.model, at.x, at.y, attack.threat)


def batches_and_order_do_not_matter(case: Case) -> None:
    """With `index` given, batches of 1, 3, 4 and 8, any order and any micro-batch give the same for every sample."""
    at = case.setting()
    model = curved(48, 4, (0.0, 1.0))
    with torch.no_grad():
        y = model(at.x).argmax(1)
    _compare(
        case.attack(at.middle), Setting(model=model, x=at.x, y=y, exact=at.exact, problem=at.problem), Untargeted(y)
    )


def targeted_batches_do_not_matter(case: Case) -> None:
    """The same for targets, on an affine problem."""
    if not case.targeted:
        return
    at = case.setting()
    goal, exact = targeted(at, case)
    _compare(case.attack(float(exact.median()) * case.reach**0.5), at, goal)


def _compare(attack: Attack, at: Setting, goal: Goal) -> None:
    index = torch.tensor([40, 7, 1_000_000_007, 3, 12, 0, 99, 5])
    whole = attack(at.model, at.x, goal, seed=1, index=index)
    audit(whole, at.model, at.x, goal, attack.threat)
    parts = [torch.arange(0, 1), torch.arange(1, 4), torch.arange(4, 8)]
    joined = _join([attack(at.model, at.x[p], goal.at(p), seed=1, index=index[p]) for p in parts])
    same("batches of 1, 3 and 4 against one of 8", whole, joined, exact=False)
    order = torch.tensor([3, 6, 1, 0, 7, 5, 2, 4])
    turned = attack(at.model, at.x[order], goal.at(order), seed=1, index=index[order])
    same("another order", _pick(whole, order), turned, exact=False)
    same("micro-batches of 3", whole, attack(at.model, at.x, goal, seed=1, index=index, micro_batch=3), exact=False)


def _fields(result: Result) -> tuple[torch.Tensor, ...]:
    return (
        result.x_adv,
        result.success,
        result.distance,
        result.prediction,
        result.forwards,
        result.backwards,
    )


def _join(results: list[Result]) -> Result:
    return Result(*(torch.cat(parts) for parts in zip(*map(_fields, results), strict=True)))


def _pick(result: Result, rows: torch.Tensor) -> Result:
    return Result(*(part[rows] for part in _fields(result)))
