"""Foolbox: PGD (it has no APGD), minimum-norm and decision-based attacks."""

from __future__ import annotations

from functools import partial

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


def _nearest(model, x, y, *, make, batch, seed, **settings):
    """Without eps it looks for the smallest perturbation."""
    target, attack = foolbox.PyTorchModel(model, bounds=(0, 1)), make(**settings)
    parts = zip(x.split(batch), y.split(batch), strict=True)
    return torch.cat([attack(target, part, labels, epsilons=None)[1] for part, labels in parts])


def _cw(*, steps, searches):
    return foolbox.attacks.L2CarliniWagnerAttack(
        steps=steps, binary_search_steps=searches, stepsize=0.1, initial_const=0.1
    )


def _ead(*, steps, searches):
    return foolbox.attacks.EADAttack(steps=steps, binary_search_steps=searches, decision_rule="L1")


FMN = {"l0": "L0", "l1": "L1", "l2": "L2", "linf": "LInf"}
ATTACKS = {
    "pgd": pgd,
    "cw-l2": partial(_nearest, make=_cw),
    "ead-l1": partial(_nearest, make=_ead),
    "ddn-l2": partial(_nearest, make=foolbox.attacks.DDNAttack),
    "deepfool-l2": partial(_nearest, make=foolbox.attacks.L2DeepFoolAttack),
    "boundary-l2": partial(_nearest, make=foolbox.attacks.BoundaryAttack),
    **{
        f"hop-skip-jump-{norm}": partial(_nearest, make=partial(foolbox.attacks.HopSkipJumpAttack, constraint=norm))
        for norm in ("l2", "linf")
    },
    "deepfool-linf": partial(_nearest, make=foolbox.attacks.LinfDeepFoolAttack),
    **{
        f"fmn-{norm}": partial(_nearest, make=getattr(foolbox.attacks, f"{name}FMNAttack"))
        for norm, name in FMN.items()
    },
}
