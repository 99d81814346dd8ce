"""adversarial-robustness-toolbox: PGD (its torch version), APGD, minimum-norm and black-box attacks, through NumPy."""

from __future__ import annotations

import random
from functools import partial

import art
import numpy as np
import torch
from art.attacks import evasion
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


CW = {"learning_rate": 0.1, "initial_const": 0.1}


def _generate(attack, x, y=None):
    return torch.from_numpy(attack.generate(x.numpy(), None if y is None else y.numpy()))


def _deepfool(model, x, y, *, steps, seed, batch):
    return _generate(evasion.DeepFool(_classifier(model, x), max_iter=steps, batch_size=batch, verbose=False), x)


def _cw_l2(model, x, y, *, steps, searches, seed, batch):
    settings = {"max_iter": steps, "binary_search_steps": searches, "batch_size": batch, "verbose": False}
    return _generate(evasion.CarliniL2Method(_classifier(model, x), **settings, **CW), x, y)


def _cw_linf(model, x, y, *, steps, seed, batch):
    return _generate(evasion.CarliniLInfMethod(_classifier(model, x), max_iter=steps, verbose=False), x, y)


def _ead(model, x, y, *, steps, searches, seed, batch):
    settings = {"max_iter": steps, "binary_search_steps": searches, "batch_size": batch, "verbose": False}
    return _generate(evasion.ElasticNet(_classifier(model, x), decision_rule="L1", **settings), x, y)


def _jsma(model, x, y, *, steps, seed, batch):
    """Steps are in percent of the features; the target is the class after the right one, as for torchattacks."""
    attack = evasion.SaliencyMapMethod(
        _classifier(model, x), theta=1.0, gamma=steps / 100, batch_size=batch, verbose=False
    )
    return _generate(attack, x, (y + 1) % 10)


class _Single(torch.nn.Module):
    """Takes the double-precision inputs that decision-based attacks make with NumPy 2, which networks refuse."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return self.network(x.float())


def _hop_skip_jump(model, x, y, *, norm, steps, seed, batch):
    attack = evasion.HopSkipJump(
        _classifier(_Single(model), x), norm=NORMS[norm], max_iter=steps, batch_size=batch, verbose=False
    )
    return _generate(attack, x, y)


def _boundary(model, x, y, *, steps, seed, batch):
    settings = {"targeted": False, "max_iter": steps, "batch_size": batch, "verbose": False}
    return _generate(evasion.BoundaryAttack(_classifier(_Single(model), x), **settings), x, y)


def _sign_opt(model, x, y, *, queries, seed, batch):
    settings = {"targeted": False, "query_limit": queries, "batch_size": batch, "verbose": False}
    return _generate(evasion.SignOPTAttack(_classifier(_Single(model), x), **settings), x, y)


def _square(model, x, y, *, norm, eps, steps, seed, batch):
    settings = {"norm": NORMS[norm], "eps": eps, "max_iter": steps, "batch_size": batch, "verbose": False}
    return _generate(evasion.SquareAttack(_classifier(_Single(model), x), **settings), x, y)


def _zoo(model, x, y, *, steps, searches, seed, batch):
    """One image at a time, as it fails with more; coordinates anywhere and no smaller modifier, as the paper has it."""
    attack = evasion.ZooAttack(
        _classifier(_Single(model), x), max_iter=steps, binary_search_steps=searches, use_resize=False,
        use_importance=False, abort_early=False, batch_size=1, verbose=False, **ZOO,
    )  # fmt: skip
    return _generate(attack, x, y)


ZOO = {"learning_rate": 0.1, "initial_const": 10.0}


def _universal(model, x, y, *, eps, passes, seed, batch):
    """The perturbation itself, `(1, *shape)`; it takes one image after the other, with its own DeepFool."""
    random.seed(seed)  # its order of the images
    attack = evasion.UniversalPerturbation(
        _classifier(model, x),
        attacker="deepfool",
        attacker_params={"verbose": False},
        eps=eps,
        norm=np.inf,
        max_iter=passes,
        batch_size=batch,
        verbose=False,
    )
    attack.generate(x.numpy())
    return torch.from_numpy(np.clip(attack.noise, -eps, eps).reshape(1, *x.shape[1:]))


ATTACKS = {
    "pgd": pgd,
    "apgd": apgd,
    "deepfool-l2": _deepfool,
    "cw-l2": _cw_l2,
    "cw-linf": _cw_linf,
    "ead-l1": _ead,
    "jsma-l0": _jsma,
    "uap-deepfool-linf": _universal,
    **{f"hop-skip-jump-{norm}": partial(_hop_skip_jump, norm=norm) for norm in NORMS},
    **{f"square-{norm}": partial(_square, norm=norm) for norm in NORMS},
    "boundary-l2": _boundary,
    "sign-opt-l2": _sign_opt,
    "zoo-l2": _zoo,
}
