"""adv-lib: minimum-norm attacks. It imports torchvision and visdom for parts that are not compared here."""

from __future__ import annotations

import importlib.metadata
import sys
from functools import partial
from unittest.mock import MagicMock

import torch

for absent in ("torchvision", "torchvision.models", "torchvision.transforms", "visdom"):
    sys.modules[absent] = MagicMock()

from adv_lib import attacks  # noqa: E402  it needs the modules above
from adv_lib.attacks.deepfool import df  # noqa: E402


def versions() -> dict[str, str]:
    return {"adv-lib": importlib.metadata.version("adv-lib"), "torch": torch.__version__}


def _in_batches(attack, model, x, y, batch):
    parts = zip(x.split(batch), y.split(batch), strict=True)
    return torch.cat([attack(model, part.clone(), labels) for part, labels in parts])


def _deepfool(model, x, y, *, order, steps, seed, batch):
    return _in_batches(partial(df, steps=steps, norm=order, return_unsuccessful=True), model, x, y, batch)


def _cw_l2(model, x, y, *, steps, searches, seed, batch):
    settings = {"max_iterations": steps, "binary_search_steps": searches, "learning_rate": 0.1, "initial_const": 0.1}
    attack = partial(attacks.carlini_wagner_l2, **settings)
    return _in_batches(attack, model, x, y, batch)


def _cw_linf(model, x, y, *, steps, seed, batch):
    return _in_batches(partial(attacks.carlini_wagner_linf, max_iterations=steps), model, x, y, batch)


def _ddn(model, x, y, *, steps, seed, batch):
    return _in_batches(partial(attacks.ddn, steps=steps, levels=None), model, x, y, batch)


def _fmn(model, x, y, *, order, steps, seed, batch):
    return _in_batches(partial(attacks.fmn, norm=order, steps=steps), model, x, y, batch)


def _fab(model, x, y, *, order, steps, seed, batch):
    return _in_batches(partial(attacks.fab, norm=order, n_iter=steps), model, x, y, batch)


def _pdpgd(model, x, y, *, order, steps, seed, batch):
    return _in_batches(partial(attacks.pdpgd, norm=order, num_steps=steps), model, x, y, batch)


def _sigma_zero(model, x, y, *, steps, seed, batch):
    return _in_batches(partial(attacks.sigma_zero, num_steps=steps), model, x, y, batch)


ORDERS = {"l0": 0, "l1": 1, "l2": 2, "linf": float("inf")}
ATTACKS = {
    "cw-l2": _cw_l2,
    "cw-linf": _cw_linf,
    "ddn-l2": _ddn,
    "sigma-zero-l0": _sigma_zero,
    **{f"deepfool-{norm}": partial(_deepfool, order=ORDERS[norm]) for norm in ("l2", "linf")},
    **{f"fmn-{norm}": partial(_fmn, order=order) for norm, order in ORDERS.items()},
    **{f"fab-{norm}": partial(_fab, order=ORDERS[norm]) for norm in ("l1", "l2", "linf")},
    **{f"pdpgd-{norm}": partial(_pdpgd, order=order) for norm, order in ORDERS.items()},
}
