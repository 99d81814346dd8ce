"""Every registered attack keeps the contract, in every norm that it supports (those built from another, in one)."""

from __future__ import annotations

import pytest

from assay import registry
from assay.testing import CHECKS, Case
from assay.testing.case import THREATS

# Fewer steps than the defaults, so that all checks run in seconds.
SETTINGS: dict[str, dict[str, object]] = {
    "PGD": {"steps": 7},
    "DIFGSM": {"steps": 5},
    "SINIFGSM": {"steps": 5, "scales": 2},
    "TIFGSM": {"kernel_radius": 1},
    "VMIFGSM": {"steps": 4, "neighbours": 2},
    "APGD": {"steps": 10},
    "MultiTargeted": {"targets": 2},
    "AdamSearch": {"steps": 10},
    "ReColorAdv": {"steps": 10, "lr": None},
    "RandomSearch": {"draws": 6, "refine": 6},
    "Pursuit": {"targets": 2, "rounds": 2, "longer": 2},
    "Relay": {"turns": 2, "queries": 8},
    "Square": {"queries": 30},
    "NES": {"steps": 5, "samples": 12},
    "SPSA": {"steps": 4, "samples": 10},
    "SimBA": {"steps": 20},
    "ZOO": {"solver": "newton", "steps": 15, "search_steps": 2, "initial_c": 1.0, "lr": 0.3, "coordinates": 16},
    "OnePixel": {"population": 20, "generations": 3},
    "LocalSearch": {"rounds": 4, "rule": "probe", "probe": -10.0},
    "Genetic": {"generations": 15},
    "FAB": {"steps": 8},
    "CarliniWagner": {"steps": 6, "search_steps": 2, "lr": 0.1, "initial_c": 1.0, "max_c": 8.0, "polish": 8},
    "PDPGD": {"steps": 5, "restarts": 2},
    "DDN": {"steps": 8, "targets": 1, "polish": 6},
    "FMN": {"steps": 8, "targets": 1, "polish": 6},
    "EAD": {"steps": 8, "search_steps": 2, "initial_c": 0.1, "lr": 0.02, "polish": 5},
    "SigmaZero": {"steps": 15},
    "HopSkipJump": {"steps": 2, "probes": 20},
    "GeoDA": {"queries": 120},
    "SaltAndPepper": {"steps": 30},
    "Pointwise": {"restarts": 1},
    "Boundary": {"steps": 20, "around": 0.1, "nearer": 0.1},
    "SignOPT": {"steps": 1, "directions": 5, "probes": 10, "beta": 0.1},
    "OPT": {"steps": 1, "directions": 5, "probes": 2, "beta": 0.1},
}
# Random search and a search over constants need more of them to win.
ENOUGH = {
    "RandomSearch": {"draws": 20, "refine": 300},
    "Square": {"queries": 250},
    "OnePixel": {"population": 60, "generations": 40},
    "LocalSearch": {"rounds": 60, "change": 1},
    "Genetic": {"generations": 200},
    "SimBA": {"steps": 300, "step": 0.05},
    "ZOO": {"steps": 20, "search_steps": 2, "coordinates": 48},
    "NES": {"steps": 40, "samples": 50},
    "SPSA": {"steps": 40, "samples": 50, "lr": 0.03},
    "CarliniWagner": {"steps": 30, "search_steps": 3, "max_c": 100.0, "polish": 50},
    "PDPGD": {"steps": 8},
    "EAD": {"steps": 20, "search_steps": 4, "polish": 20},
    "SigmaZero": {"steps": 40},
    "HopSkipJump": {"steps": 25},
    "GeoDA": {"queries": 1000},
    "SaltAndPepper": {"steps": 300},
    "Pointwise": {"restarts": 10},
    "Boundary": {"steps": 800, "around": 0.1, "nearer": 0.05, "every": 2},
    "SignOPT": {"steps": 10, "directions": 20, "probes": 100},
    "OPT": {"steps": 20, "directions": 20},
}
STRENGTH = {
    "no_budget",
    "wins_beyond_the_exact_radius",
    "targeted_result_is_honest",
    "values_at_the_bounds_can_move",
    "other_bounds",
    "finds_the_smallest",
}
# Bumps of at least 3 pixels cannot follow weights that are noise from pixel to pixel, whatever the number of queries.
REACH = {("Square", "linf"): 3.0, ("Square", "l2"): 4.0, ("Square", "l1"): 6.0}
REACH |= {("OnePixel", "l0"): 3.0, ("LocalSearch", "l0"): 4.0}  # evolution; one way for each value alone
REACH[("RandomSearch", "linf")] = 3.0  # a random walk in 48 dimensions, which is made for a few
REACH[("SaltAndPepper", "l0")] = 10.0  # grains at random places, most of which do not help
REACH[("GeoDA", "l2")] = 3.0  # it stays with the class that its start belongs to, which may not be the nearest
# What attacks that minimise promise without eps: at most this multiple of the exact distance (in L0: 1.0, the count).
MINIMUM: dict[tuple[str, str], float] = {
    **{("DeepFool", norm): 1.03 for norm in ("linf", "l2")},
    **{("CarliniWagner", norm): 1.0 if norm == "l0" else 1.01 for norm in ("linf", "l2", "l0")},
    **{("FAB", norm): 1.01 for norm in ("linf", "l2", "l1")},
    **{("PDPGD", norm): 1.0 if norm == "l0" else 1.01 for norm in ("linf", "l2", "l1", "l0")},
    **{("FMN", norm): 1.0 if norm == "l0" else 1.01 for norm in ("linf", "l2", "l1", "l0")},
    ("DDN", "l2"): 1.01,
    ("EAD", "l1"): 1.01,
    ("JSMA", "l0"): 1.0,
    ("SigmaZero", "l0"): 1.0,
}
OTHER_MODELS = {"Transfer"}  # needs a surrogate that fits the model: test_transfer
# Settings of PGD, and a wrapper around APGD: what depends on the norm is checked with PGD and APGD. RandomSearch, NES
# and SPSA leave all of it to the threat.
ONE_NORM = {
    "FGSM": "linf",
    "BIM": "linf",
    "MIFGSM": "linf",
    "DIFGSM": "linf",
    "TIFGSM": "l2",
    "NIFGSM": "linf",
    "SINIFGSM": "linf",
    "VMIFGSM": "l2",
    "ReColorAdv": "linf",
    "RandomSearch": "linf",
    "NES": "l2",
    "SPSA": "linf",
    "MultiTargeted": "l2",
    "Pursuit": "linf",
}
PAIRS = [
    (entry.name, norm)
    for entry in registry.entries("attack")
    for norm in entry.threats
    if norm in THREATS and ONE_NORM.get(entry.name, norm) == norm and entry.name not in OTHER_MODELS
]


def factory(name, check):
    entry = registry.get("attack", name)
    settings = SETTINGS.get(name, {}) | (ENOUGH.get(name, {}) if check in STRENGTH else {})
    if entry.inner:
        return lambda threat: entry.load()(attack=factory(entry.inner, check)(threat), **settings)
    return lambda threat: entry.load()(threat=threat, **settings)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_contract(name, norm, check):
    case = Case(
        factory=factory(name, check),
        norm=norm,
        reach=REACH.get((name, norm), 2.0),
        minimum=MINIMUM.get((name, norm)),
    )
    CHECKS[check](case)
