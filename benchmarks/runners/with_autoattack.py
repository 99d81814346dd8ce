"""pyautoattack: the original AutoAttack, as its authors' package on PyPI."""

from __future__ import annotations

from importlib.metadata import version

import pyautoattack
import torch

NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def versions() -> dict[str, str]:
    return {"pyautoattack": version("pyautoattack"), "torch": torch.__version__}


def autoattack(model, x, y, *, norm, eps, seed, batch):
    attack = pyautoattack.AutoAttack(model, norm=NORMS[norm], eps=eps, version="standard", seed=seed)
    x_adv, _ = attack.run_standard_evaluation(x, y, batch_size=batch)
    return x_adv


ATTACKS = {"autoattack": autoattack}
