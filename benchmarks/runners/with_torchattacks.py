"""torchattacks: PGD and APGD."""

from __future__ import annotations

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


ATTACKS = {"pgd": pgd, "apgd": apgd}
