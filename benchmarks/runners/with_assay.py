"""Our own attacks: the whole set in one call, the micro-batch left to the library."""

from __future__ import annotations

import torch

import assay
from assay import attacks


def versions() -> dict[str, str]:
    return {"assay": assay.__version__, "torch": torch.__version__}


def _threat(norm, eps):
    return {"linf": assay.Linf, "l2": assay.L2}[norm](eps)


def pgd(model, x, y, *, norm, eps, steps, seed, batch):
    return attacks.PGD(threat=_threat(norm, eps), steps=steps)(model, x, y, seed=seed).x_adv


def apgd(model, x, y, *, norm, eps, steps, seed, batch):
    return attacks.APGD(threat=_threat(norm, eps), steps=steps, loss="ce")(model, x, y, seed=seed).x_adv


ATTACKS = {"pgd": pgd, "apgd": apgd}
