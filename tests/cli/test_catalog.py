"""What there is, and what each of it takes."""

from __future__ import annotations

import inspect

import pytest

from assay import registry
from assay.cli.catalog import _KINDS, Listed

NAMES = [name for kind in registry.KINDS for name in registry.names(kind)]


def test_every_kind_is_listed():
    assert set(_KINDS.values()) == set(registry.KINDS)


@pytest.mark.parametrize("kind", list(Listed))
def test_lists_hold_every_name(assay, kind):
    names = list(registry.names(_KINDS[kind]))
    found = assay("list", kind.value)
    assert (found.code, found.out) == (0, "")
    assert [name for name in names if name in found.err] == names
    assert [entry["name"] for entry in assay("list", kind.value, "--json").json] == names


def test_without_a_kind_everything_is_listed(assay):
    assert list(assay("list", "--json").json) == [kind.value for kind in Listed]
    said = assay("list").said
    assert all(kind.value in said for kind in Listed)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_can_be_shown(assay, name):
    found = assay("show", name)
    assert (found.code, found.out) == (0, "")
    assert name in found.err
    assert assay("show", name, "--json").json["name"] == name


CALLED = [kind for kind in registry.KINDS if kind not in ("transformation", "loss", "model", "data", "suite")]


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in CALLED for name in registry.names(kind)])
def test_every_parameter_is_explained(assay, kind, name):
    entry = registry.get(kind, name)
    shown = assay("show", name, "--json").json["parameters"]
    assert [each["name"] for each in shown] == list(inspect.signature(entry.load()).parameters)
    for each in shown:
        assert each["meaning"], each
        assert each["type"], each


def test_show_pgd(assay):
    shown = assay("show", "pgd", "--json").json
    assert shown["access"] == "gradients"
    assert {"linf", "l2", "l1", "l0", "flow", "rotation"} <= set(shown["threats"])
    assert "1706.06083" in shown["paper"]
    threat, steps, *_ = shown["parameters"]
    assert (threat["name"], threat["default"]) == ("threat", None)
    assert (steps["type"], steps["default"]) == ("int", "40")
    said = assay("show", "pgd").said
    assert "threat Threat required" in said
    assert "steps int 40 gradient steps" in said


def test_show_a_suite_lists_its_stages(assay):
    stages = assay("show", "standard", "--json").json["stage"]
    assert [stage["name"] for stage in stages] == [
        "apgd-margin",
        "apgd-ce",
        "pursuit",
        "relay",
        "relay-ce",
        "square",
    ]
    assert "APGD(threat=THREAT" in assay("show", "standard").said


def test_an_unknown_name(assay):
    found = assay("show", "fgms")
    assert (found.code, found.out) == (2, "")
    assert "nothing is named 'fgms'. Did you mean FGSM" in found.said
