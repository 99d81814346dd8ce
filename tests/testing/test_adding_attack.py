"""The page that leads to a new attack is true: its attack runs, passes the contract, and is the one that is printed."""

from __future__ import annotations

import pytest
import torch

import assay
from assay.testing import CHECKS, Case, check_attack


@pytest.fixture(scope="module")
def guide(page):
    return page("attack.md", "decaying_ascent.py")


@pytest.fixture(scope="module")
def attack_class(guide):
    with guide.example() as found:
        yield found


@pytest.mark.parametrize("norm", ["linf", "l2", "l1", "l0"])
@pytest.mark.parametrize("check", CHECKS)
def test_the_example_passes_every_check(attack_class, check, norm):
    CHECKS[check](Case(factory=lambda threat: attack_class(threat=threat), norm=norm))


def test_the_code_on_the_page_runs(guide, attack_class):
    names = {"assay": assay, "torch": torch, "DecayingAscent": attack_class}
    short = 'norms=["linf"], only=["counts_are_true"]'  # every check runs in the test above
    for block in guide.blocks[1:]:
        exec(block.replace('norms=["linf", "l2", "l1", "l0"]', short), names)
    assert names["check_attack"] is check_attack


def test_the_page_prints_the_file(guide):
    assert guide.printed_as_filed()


def test_the_page_explains_every_check(guide):
    for name in CHECKS:
        assert f"`{name}`" in guide.text
