"""The registry agrees with what it names, and is read without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from assay import registry
from assay.errors import GrammarError


@pytest.mark.parametrize("kind", [kind for kind in registry.KINDS if kind not in ("model", "data", "suite")])
def test_every_target_can_be_imported(kind):
    for entry in registry.entries(kind):
        built = entry.load()
        assert callable(built)
        assert entry.summary
        assert not entry.summary.endswith(".")
        if kind != "loss":
            assert built.__name__ == entry.name


def test_table_of_attacks_is_that_of_the_package():
    from assay import attacks

    assert set(registry.names("attack")) == set(attacks.__all__) - {"Attack", "Result"}


def test_table_of_threats_is_that_of_the_package():
    from assay import threats

    assert set(registry.names("threat")) == set(threats.__all__) - {"Threat"}


def test_table_of_transformations_is_that_of_the_package():
    from assay import transformations

    assert set(registry.names("transformation")) == set(transformations.__all__) - {"Transformation"}


def test_table_of_recipes_is_that_of_the_package():
    from assay.training import recipes

    assert set(registry.names("recipe")) == set(recipes.__all__) - {"Batch", "GenerativeRecipe", "Recipe", "Views"}


def test_table_of_losses_is_that_of_the_package():
    from assay.losses import LOSSES

    assert {name: registry.get("loss", name).load() for name in registry.names("loss")} == LOSSES


NEEDED = {"Transfer": {"surrogate": "digits-mlp"}}  # settings without a default


@pytest.mark.parametrize("name", registry.names("attack"))
def test_access_is_that_of_the_class(name):
    from assay import grammar

    entry = registry.get("attack", name)
    built = grammar.attack(name, f"{entry.threats[0]}:2", NEEDED.get(name, {}))
    assert entry.access == type(built).access.name.lower()


QUICK = {  # defaults that would take long
    "BIM": {"steps": 2},
    "PGD": {"steps": 2},
    "MIFGSM": {"steps": 2},
    "DIFGSM": {"steps": 2},
    "TIFGSM": {"steps": 2},
    "NIFGSM": {"steps": 2},
    "SINIFGSM": {"steps": 2, "scales": 2},
    "Transfer": {"attack.steps": 2},
    "AdamSearch": {"steps": 2},
    "ReColorAdv": {"steps": 2},
    "StAdv": {"steps": 5, "searches": 1},
    "GridSearch": {"points": 3},
    "RandomSearch": {"draws": 3},
    "Pursuit": {"targets": 1, "rounds": 1, "attack.steps": 2},
    "Relay": {"turns": 2, "queries": 5, "steps": 2},
    "FAB": {"steps": 5},
    "DDN": {"steps": 5},
    "FMN": {"steps": 5},
    "SigmaZero": {"steps": 5},
    "VMIFGSM": {"steps": 2, "neighbours": 2},
    "Square": {"queries": 5},
    "NES": {"steps": 2},
    "SimBA": {"steps": 5},
    "OnePixel": {"population": 10, "generations": 1},
    "LocalSearch": {"rounds": 2},
    "Genetic": {"generations": 2},
    "ZOO": {"steps": 2, "search_steps": 2},
    "SPSA": {"steps": 2},
    "APGD": {"steps": 5},
    "MultiTargeted": {"targets": 1, "attack.steps": 5},
    "CarliniWagner": {"steps": 10, "search_steps": 2},
    "PDPGD": {"steps": 5, "restarts": 1},
    "EAD": {"steps": 10, "search_steps": 2},
    "HopSkipJump": {"steps": 2},
    "GeoDA": {"queries": 100},
    "SaltAndPepper": {"steps": 5},
    "Pointwise": {"restarts": 1},
    "Boundary": {"steps": 5},
    "SignOPT": {"steps": 1},
    "OPT": {"steps": 1},
}


WRITTEN = {"Combined": "Combined(Linf(0.1), L2(0.5))", "Corruptions": "Corruptions:1"}


@pytest.mark.parametrize("name", registry.names("attack"))
def test_attacks_take_the_threats_that_are_listed_and_no_others(name):
    import torch

    from assay import grammar
    from assay.errors import AssayError

    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4))
    x = torch.full((2, 3, 4, 4), 0.5)
    y = model(x).argmax(1)  # a sample that is wrong from the start is not searched for
    for threat in registry.names("threat"):
        quick = QUICK.get(name, {}) | ({"surrogate": model} if name == "Transfer" else {})
        written = WRITTEN.get(threat, f"{threat}:0.1")
        if threat.lower() in registry.get("attack", name).threats:
            result = grammar.attack(name, written, quick)(model, x, y)
            assert result.success.shape == (2,)
        else:
            with pytest.raises(AssayError):
                grammar.attack(name, written, quick)(model, x, y)


def test_shipped_names_are_those_of_their_owners():
    from assay.data.load import names as data_names
    from assay.models.zoo import names as model_names

    assert sorted(registry.names("model")) == sorted(model_names())
    assert sorted(registry.names("data")) == sorted(data_names())
    assert {"quick", "standard"} <= set(registry.names("suite"))


@pytest.mark.parametrize(
    ("written", "canonical"), [("pgd", "PGD"), ("multi-targeted", "MultiTargeted"), ("mi_fgsm", "MIFGSM")]
)
def test_names_are_found_in_any_spelling(written, canonical):
    assert registry.get("attack", written).name == canonical


def test_an_unknown_name_is_answered_with_near_ones():
    with pytest.raises(GrammarError, match=r"unknown attack 'fgms'\. Did you mean FGSM"):
        registry.get("attack", "fgms")


def test_a_name_far_from_all_is_answered_with_the_list():
    with pytest.raises(GrammarError, match="There are Linf, L2, L1"):
        registry.get("threat", "zzzzzzzz")


def test_an_unknown_kind_is_refused():
    with pytest.raises(GrammarError, match="unknown kind 'sauce'"):
        registry.names("sauce")


def test_a_file_is_not_loaded_as_an_object():
    with pytest.raises(GrammarError, match="is a file"):
        registry.get("suite", "quick").load()


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from assay import registry\n"
        "for kind in registry.KINDS: registry.names(kind)\n"
        "heavy = {'torch', 'numpy', 'rich', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
