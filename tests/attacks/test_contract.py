"""Every registered attack keeps the contract, in every norm that it supports."""

from __future__ import annotations

import pytest

from assay import registry
from assay.testing import CHECKS, Case

# Fewer steps than the defaults, so that all checks run in seconds.
SETTINGS: dict[str, dict[str, object]] = {
    "PGD": {"steps": 12},
    "APGD": {"steps": 20},
    "Square": {"queries": 300},
}
PAIRS = [(entry.name, norm) for entry in registry.entries("attack") for norm in entry.threats]


def factory(name):
    entry = registry.get("attack", name)
    if entry.inner:
        return lambda threat: entry.load()(attack=factory(entry.inner)(threat))
    return lambda threat: entry.load()(threat=threat, **SETTINGS.get(name, {}))


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(("name", "norm"), PAIRS)
def test_contract(name, norm, check):
    CHECKS[check](Case(factory=factory(name), norm=norm))
