"""Checks that every question is counted, and that budgets and access are kept."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from assay.errors import AccessError
from assay.goals import Goal
from assay.oracle import Access
from assay.testing.case import Case, audit, fail, same, targeted
from assay.testing.models import Counting, Gradientless


def counts_are_true(case: Case) -> None:
    """Forwards and backwards are what a wrapper around the model counts: in all for a batch, per sample alone."""
    at = case.setting()
    goal, exact = targeted(at, case)
    runs: list[tuple[float | Tensor, Tensor | Goal]] = [(at.middle, at.y), (0.5 * at.exact, at.y)]
    if case.targeted:
        runs.append((case.reach * exact, goal))
    for eps, aim in runs:
        attack = case.attack(eps)
        model = Counting(at.model)
        result = attack(model, at.x, aim)
        for name in ("forwards", "backwards"):
            claimed, true = int(getattr(result, name).sum()), getattr(model, name)
            if claimed != true:
                fail(f"{name} sum to {claimed}, but the model did {true}: each row of each pass counts for its sample")
        if attack.access >= Access.GRADIENTS and int(result.backwards.sum()) == 0:
            fail("the attack declares gradients, but never asks for one")
    attack = case.attack(at.middle)
    for i in range(3):
        model = Counting(at.model)
        result = attack(model, at.x[i : i + 1], at.y[i : i + 1], index=torch.tensor([i]))
        if (int(result.forwards), int(result.backwards)) != (model.forwards, model.backwards):
            fail(
                f"sample {i} alone: {int(result.forwards)} forwards and {int(result.backwards)} backwards claimed, "
                f"{model.forwards} and {model.backwards} done"
            )


def known_clean_output_is_not_asked_again(case: Case) -> None:
    """With `clean_output` given, the result is the same for one forward pass less per sample."""
    at = case.setting()
    attack = case.attack(at.middle)
    with torch.no_grad():
        clean = at.model(at.x)
    model = Counting(at.model)
    known = attack(model, at.x, at.y, clean_output=clean)
    if int(known.forwards.sum()) != model.forwards:
        fail("with clean_output given, forwards differ from what the model did")
    asked = attack(at.model, at.x, at.y)
    if not torch.equal(known.forwards + 1, asked.forwards):
        fail("clean_output must save exactly one forward pass per sample")
    same("clean_output given or asked", asked, replace(known, forwards=asked.forwards))


def budgets_are_kept(case: Case) -> None:
    """`max_queries` is never exceeded, and what a small budget wins, a larger one wins too."""
    at = case.setting()
    for eps in (at.middle, case.reach * at.exact):
        attack = case.attack(eps)
        before = torch.zeros(8, dtype=torch.bool)
        for budget in (1, 2, 3, 7, 40):
            model = Counting(at.model)
            result = attack(model, at.x, at.y, max_queries=budget)
            audit(result, at.model, at.x, at.y, attack.threat)
            if int(result.forwards.max()) > budget or model.forwards > 8 * budget:
                fail(f"max_queries={budget}, but {int(result.forwards.max())} were spent on one sample")
            if int(result.forwards.sum()) != model.forwards or int(result.backwards.sum()) != model.backwards:
                fail(f"counts are wrong under max_queries={budget}")
            if bool((before & ~result.success).any()):
                fail(f"a sample that a smaller budget won is lost with max_queries={budget}")
            before = result.success
        unlimited = attack(at.model, at.x, at.y)
        if bool((before & ~unlimited.success).any()):
            fail("a sample that a budget of 40 won is lost without a budget")


def access_is_declared(case: Case) -> None:
    """A model that grants less than the attack declares is refused by name; one that grants just that is enough."""
    at = case.setting(4)
    attack = case.attack(at.middle)
    if attack.access > Access.LABELS:
        less = Gradientless(at.model, attack.access - 1, labels=attack.access - 1 == Access.LABELS)
        try:
            attack(less, at.x, at.y)
        except AccessError:
            pass
        else:
            fail(f"a model that grants only {Access(attack.access - 1).name} was accepted")
    if attack.access < Access.GRADIENTS:
        bare = Gradientless(at.model, attack.access, labels=attack.access == Access.LABELS)
        same("the model with just the declared access", attack(at.model, at.x, at.y), attack(bare, at.x, at.y))
