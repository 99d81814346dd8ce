"""torchattacks: PGD, APGD and minimum-norm attacks."""

from __future__ import annotations

from functools import partial

import torch
import torchattacks


def versions() -> dict[str, str]:
    return {"torchattacks": torchattacks.__version__, "torch": torch.__version__}


def _in_batches(attack, x, y, batch):
    return torch.cat([attack(part, labels) for part, labels in zip(x.split(batch), y.split(batch), strict=True)])


def pgd(model, x, y, *, norm, eps, steps, seed, batch):
    kind = {"linf": torchattacks.PGD, "l2": torchattacks.PGDL2}[norm]
    attack = kind(model, eps=eps, alpha=2.5 * eps / steps, steps=steps, random_start=True)
    return _in_batches(attack, x, y, batch)


def apgd(model, x, y, *, norm, eps, steps, seed, batch):
    name = {"linf": "Linf", "l2": "L2"}[norm]
    attack = torchattacks.APGD(model, norm=name, eps=eps, steps=steps, n_restarts=1, loss="ce", seed=seed)
    return _in_batches(attack, x, y, batch)


def _deepfool(model, x, y, *, steps, seed, batch):
    return _in_batches(torchattacks.DeepFool(model, steps=steps), x, y, batch)


def _cw(model, x, y, *, steps, searches, seed, batch):
    """It does not search over c: all steps go to its default, c = 1."""
    return _in_batches(torchattacks.CW(model, steps=steps * searches, lr=0.1), x, y, batch)


def _ead(model, x, y, *, steps, searches, seed, batch):
    return _in_batches(torchattacks.EADL1(model, max_iterations=steps, binary_search_steps=searches), x, y, batch)


def _fab(model, x, y, *, name, steps, seed, batch):
    """It stops at eps; with a large one it looks for the smallest perturbation."""
    return _in_batches(torchattacks.FAB(model, norm=name, eps=1e3, steps=steps, seed=seed), x, y, batch)


def _jsma(model, x, y, *, steps, seed, batch):
    """Its untargeted form aims at the class after the right one; steps are in percent of the features."""
    return _in_batches(torchattacks.JSMA(model, theta=1.0, gamma=steps / 100), x, y, batch)


ATTACKS = {
    "pgd": pgd,
    "apgd": apgd,
    "deepfool-l2": _deepfool,
    "cw-l2": _cw,
    "ead-l1": _ead,
    "jsma-l0": _jsma,
    **{f"fab-{norm}": partial(_fab, name=name) for norm, name in {"l1": "L1", "l2": "L2", "linf": "Linf"}.items()},
}
