"""Our own attacks: the whole set in one call, the micro-batch left to the library."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch

import assay
from assay import attacks
from assay.evaluation.shards import ADV
from assay.goals import Targeted


def versions() -> dict[str, str]:
    return {"assay": assay.__version__, "torch": torch.__version__}


def _threat(norm, eps):
    return {"linf": assay.Linf, "l2": assay.L2, "l1": assay.L1}[norm](eps)


def pgd(model, x, y, *, norm, eps, steps, seed, batch):
    return attacks.PGD(threat=_threat(norm, eps), steps=steps)(model, x, y, seed=seed).x_adv


def apgd(model, x, y, *, norm, eps, steps, seed, batch):
    return attacks.APGD(threat=_threat(norm, eps), steps=steps, loss="ce")(model, x, y, seed=seed).x_adv


def _nearest(model, x, y, *, name, threat, batch, seed, **settings):
    if "searches" in settings:
        settings["search_steps"] = settings.pop("searches")
        if name in ("CarliniWagner", "EAD"):  # one constant less: its passes go to other boundaries
            settings["search_steps"] -= 1
    if name == "PDPGD":  # five runs, and nine passes that linearise the boundaries at the clean input
        settings |= {"steps": (settings["steps"] - 10) // 5, "restarts": 5}
    if name in ("DDN", "FMN"):  # one run, and the last fifth of the passes for the polish
        settings |= {"steps": settings["steps"] * 4 // 5, "targets": 0}
    if name == "CarliniWagner" and threat.name == "l2":
        settings |= {"lr": 0.1, "initial_c": 0.1}
    return getattr(attacks, name)(threat=threat, **settings)(model, x, y, seed=seed).x_adv


def _jsma(model, x, y, *, steps, seed, batch):
    """Steps are in percent of the features; the target is the one that the peers take."""
    return attacks.JSMA(threat=assay.L0(), gamma=steps / 100)(model, x, Targeted((y + 1) % 10), seed=seed).x_adv


def _by_queries(model, x, y, *, make, queries, seed, batch):
    """The queries are the only limit."""
    return make()(model, x, y, seed=seed, max_queries=queries).x_adv


def _square(model, x, y, *, norm, eps, queries, seed, batch):
    return attacks.Square(threat=_threat(norm, eps), queries=queries)(model, x, y, seed=seed).x_adv


def _suite(model, x, y, *, name, norm, eps, seed, batch):
    """A whole evaluation; its worst inputs."""
    with tempfile.TemporaryDirectory() as folder:
        found = assay.evaluate(
            model, (x, y), threat=_threat(norm, eps), suite=name, seed=seed, out=Path(folder) / "run", save_adv=True,
            chunk=batch, progress=False,
        )  # fmt: skip
        return torch.cat([found.store.read_shard(ADV, start).columns["x_adv"] for start, _ in found.store.chunks])


ENDLESS = 10**6
ZOO = {"lr": 0.1, "initial_c": 10.0}


def _universal(model, x, y, *, method, eps, passes, seed, batch):
    """The perturbation itself, `(1, *shape)`; `passes` over the images at most, `batch` images at once."""
    settings = {"passes": passes, "steps": 50} if method == "deepfool" else {"epochs": passes}
    fitted = assay.fit_universal(
        model, (x, y), threat=assay.Linf(eps), method=method, seed=seed, batch=batch, **settings
    )
    return fitted.tensor[None]


THREATS = {"l0": assay.L0(), "l1": assay.L1(), "l2": assay.L2(), "linf": assay.Linf()}
NEAREST = {
    "CarliniWagner": ("cw", ("l2", "linf")),
    "DeepFool": ("deepfool", ("l2", "linf")),
    "DDN": ("ddn", ("l2",)),
    "EAD": ("ead", ("l1",)),
    "FAB": ("fab", ("l1", "l2", "linf")),
    "FMN": ("fmn", ("l0", "l1", "l2", "linf")),
    "PDPGD": ("pdpgd", ("l0", "l1", "l2", "linf")),
    "SigmaZero": ("sigma-zero", ("l0",)),
}
ATTACKS = {
    "pgd": pgd,
    "apgd": apgd,
    "jsma-l0": _jsma,
    "uap-deepfool-linf": partial(_universal, method="deepfool"),
    "uap-sgd-linf": partial(_universal, method="sgd"),
    **{
        f"hop-skip-jump-{norm}": partial(
            _by_queries, make=partial(attacks.HopSkipJump, threat=THREATS[norm], steps=ENDLESS)
        )
        for norm in ("l2", "linf")
    },
    **{f"suite-{name}": partial(_suite, name=name) for name in ("standard", "autoattack")},
    **{f"square-{norm}": partial(_square, norm=norm) for norm in ("l2", "linf")},
    "boundary-l2": partial(_by_queries, make=partial(attacks.Boundary, threat=THREATS["l2"], steps=ENDLESS)),
    "sign-opt-l2": partial(_by_queries, make=partial(attacks.SignOPT, threat=THREATS["l2"], steps=ENDLESS)),
    "zoo-l2": partial(
        _by_queries,
        make=partial(attacks.ZOO, threat=THREATS["l2"], steps=100, search_steps=3, abort_early=False, **ZOO),
    ),
    **{
        f"{label}-{norm}": partial(_nearest, name=name, threat=THREATS[norm])
        for name, (label, norms) in NEAREST.items()
        for norm in norms
    },
}
