"""Checks that an attack leaves everything as it was: the model, the inputs, the generators."""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import Tensor, nn

from assay.testing.case import Case, fail
from assay.testing.models import Layered
from assay.testing.problems import Affine


def model_is_left_as_it_was(case: Case) -> None:
    """Parameters, buffers, gradients and requires_grad stay, in train mode too; nothing is left to collect."""
    model = Layered(3, 4).train()
    model.first.weight.grad = torch.full_like(model.first.weight, 0.5)
    model.last.bias.requires_grad_(False)
    before = _state(model)
    x, _ = Affine(classes=4).inputs(4)
    y = model.eval()(x).argmax(1).detach()
    model.train()
    attack = case.attack(case.wide)
    for label, act in (("an attack", attack), ("perturb", attack.perturb)):
        if label == "perturb":
            model.eval()  # in train mode batch norms would learn from every batch, as training wants
        act(model, x, y)
        model.train()
        for name, value in _state(model).items():
            old = before[name]
            changed = value is not old if value is None or old is None else not torch.equal(value, old)
            if changed:
                fail(f"{label} changed the model: {name}")


def frozen_modules_stay_frozen(case: Case) -> None:
    """Every submodule's training flag stays: a frozen batch norm in a model in train mode, and the other way round."""
    model = Layered(3, 4)
    x, _ = Affine(classes=4).inputs(4)
    y = model.eval()(x).argmax(1).detach()
    attack = case.attack(case.wide)
    for root in (True, False):
        model.train(root)
        model.frozen.train(not root)
        flags = {name: module.training for name, module in model.named_modules()}
        attack(model, x, y)
        for name, module in model.named_modules():
            if module.training != flags[name]:
                fail(
                    f"the training flag of {name or 'the model'!r} was {flags[name]} and is now {module.training}: "
                    "save and restore the flag of every submodule, not of the root alone"
                )


def global_random_state_is_untouched(case: Case) -> None:
    """All draws come from the keyed generator; torch's, NumPy's and Python's own stay where they were."""
    at = case.setting(4)
    attack = case.attack(at.middle)

    def states() -> dict[str, object]:
        return {
            "torch": torch.get_rng_state().tolist(),
            "numpy": str(np.random.get_state()),  # noqa: NPY002
            "random": random.getstate(),
        }

    before, grad, dtype = states(), torch.is_grad_enabled(), torch.get_default_dtype()
    attack(at.model, at.x, at.y)
    attack.perturb(at.model, at.x, at.y)
    for name, state in states().items():
        if state != before[name]:
            fail(f"the global state of {name}'s generator changed: draw from the `rng` that run() is given")
    if torch.is_grad_enabled() != grad or torch.get_default_dtype() != dtype:
        fail("grad mode or the default dtype was not restored")


def inputs_are_not_modified(case: Case) -> None:
    """Inputs, labels and index keep their values; x may require grad, and gets none; the result shares no memory."""
    at = case.setting(6)
    x, y, index = at.x.clone().requires_grad_(), at.y.clone(), torch.arange(6)
    attack = case.attack(at.middle)
    result = attack(at.model, x, y, index=index)
    moved = attack.perturb(at.model, x, y, index=index)
    if not torch.equal(x.detach(), at.x) or not torch.equal(y, at.y) or not torch.equal(index, torch.arange(6)):
        fail("the inputs, the labels or the index were modified in place")
    if x.grad is not None:
        fail("a gradient was left on the inputs")
    if result.x_adv.requires_grad or moved.requires_grad:
        fail("the result must be detached")
    result.x_adv.fill_(-1)
    moved.fill_(-1)
    if not torch.equal(x.detach(), at.x):
        fail("x_adv shares memory with the inputs: writing to the one changed the other")


def _state(model: nn.Module) -> dict[str, Tensor | None]:
    state: dict[str, Tensor | None] = {name: value.clone() for name, value in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        state[f"{name}.grad"] = None if parameter.grad is None else parameter.grad.clone()
        state[f"{name}.requires_grad"] = torch.tensor(parameter.requires_grad)
    return state
