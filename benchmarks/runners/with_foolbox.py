"""Foolbox: PGD only, it has no APGD."""

from __future__ import annotations

import foolbox
import torch


def versions() -> dict[str, str]:
    return {"foolbox": foolbox.__version__, "torch": torch.__version__}


def pgd(model, x, y, *, norm, eps, steps, seed, batch):
    kind = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    attack = kind(steps=steps, rel_stepsize=2.5 / steps, random_start=True)
    target = foolbox.PyTorchModel(model, bounds=(0, 1))
    clipped = [
        attack(target, part, labels, epsilons=eps)[1]
        for part, labels in zip(x.split(batch), y.split(batch), strict=True)
    ]
    return torch.cat(clipped)


ATTACKS = {"pgd": pgd}
