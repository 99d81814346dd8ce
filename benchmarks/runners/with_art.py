"""adversarial-robustness-toolbox: PGD (its torch version) and APGD, NumPy in and out."""

from __future__ import annotations

import art
import numpy as np
import torch
from art.attacks.evasion import AutoProjectedGradientDescent, ProjectedGradientDescentPyTorch
from art.estimators.classification import PyTorchClassifier

NORMS = {"linf": np.inf, "l2": 2}


def versions() -> dict[str, str]:
    return {"adversarial-robustness-toolbox": art.__version__, "torch": torch.__version__}


def _classifier(model, x):
    loss = torch.nn.CrossEntropyLoss()
    shape = tuple(x.shape[1:])
    return PyTorchClassifier(model, loss=loss, input_shape=shape, nb_classes=10, clip_values=(0, 1), device_type="cpu")


def pgd(model, x, y, *, norm, eps, steps, seed, batch):
    attack = ProjectedGradientDescentPyTorch(
        _classifier(model, x),
        norm=NORMS[norm],
        eps=eps,
        eps_step=2.5 * eps / steps,
        max_iter=steps,
        num_random_init=1,
        batch_size=batch,
        verbose=False,
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def apgd(model, x, y, *, norm, eps, steps, seed, batch):
    attack = AutoProjectedGradientDescent(
        _classifier(model, x),
        norm=NORMS[norm],
        eps=eps,
        eps_step=2 * eps,
        max_iter=steps,
        nb_random_init=1,
        batch_size=batch,
        loss_type="cross_entropy",
        verbose=False,
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


ATTACKS = {"pgd": pgd, "apgd": apgd}
