from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import assay
from assay import grammar, registry
from assay.attacks import FGSM, PGD
from assay.errors import AccessError, GrammarError, SettingError
from assay.evaluation.stages import Stage, Suite
from assay.evaluation.suites import default_suite, fit, load_suite
from assay.oracle import Access
from assay.rng import derive
from assay.transformations import EOT

LINF = assay.Linf(0.1)


@pytest.mark.parametrize("name", registry.names("suite"))
@pytest.mark.parametrize("threat", [LINF, assay.L2(0.5, bounds=(-1.0, 1.0)), assay.L1(3.0)], ids=repr)
def test_shipped_suites_carry_the_threat_into_every_stage(name: str, threat: assay.Threat) -> None:
    suite = load_suite(name, threat)
    assert suite.name == name
    assert suite.version >= 1
    for stage in suite.stages:
        assert stage.attack.threat == threat
        assert stage.fallback is None or stage.fallback.threat == threat


def test_standard_is_what_its_page_says() -> None:
    attacks = [repr(stage.attack) for stage in load_suite("standard", LINF).stages]
    assert [text.split("(")[0] for text in attacks] == ["APGD", "APGD", "Pursuit", "Relay", "Relay", "Square"]
    for text, loss in zip(attacks, ("margin", "ce", "margin", "margin", "ce"), strict=False):
        assert f"loss='{loss}'" in text
        assert "steps=20" in text
    assert "targets=4" in attacks[2]
    assert "queries=5000" in attacks[5]


def test_standard_stays_below_a_tenth_of_autoattack_where_nothing_is_to_be_had() -> None:
    model = linear_of_ten_classes()
    x = torch.rand(1, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    for threat in (assay.Linf(1e-4), assay.L1(1e-4)):
        found = assay.evaluate(model, (x, model(x).argmax(dim=1)), threat=threat, suite="standard", progress=False)
        assert found.robust_accuracy == 1
        assert int(found.samples.forwards.max()) <= 786
        assert int(found.samples.backwards.max()) <= 382


def test_the_budget_of_standard_shortens_and_lengthens() -> None:
    model = linear_of_ten_classes()
    x = torch.rand(1, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    spent = [
        int(assay.evaluate(model, (x, model(x).argmax(dim=1)), threat="linf:1e-4", budget=b, progress=False)
            .samples.forwards.max())
        for b in (0.1, 1.0, 2.0)
    ]  # fmt: skip
    assert 3 * spent[0] < spent[1] < 0.7 * spent[2]


def test_a_stage_for_models_without_gradients_is_left_out_elsewhere() -> None:
    suite = load_suite("standard", LINF)
    fitted, flags = fit(suite, classes=10, access=Access.GRADIENTS)
    assert [stage.name for stage in fitted.stages] == ["apgd-margin", "apgd-ce", "pursuit", "relay", "relay-ce"]
    assert flags == []


@pytest.mark.parametrize(
    ("threat", "stages"),
    [
        (assay.Flow(0.05), ["apgd-ce", "apgd-t", "random"]),
        (assay.Rotation(30), ["grid", "apgd-ce", "apgd-t", "random"]),
        (assay.Combined(assay.Flow(0.05), LINF), ["apgd-ce", "apgd-t", "random"]),
    ],
    ids=repr,
)
def test_threats_beyond_the_norms_have_a_suite_of_their_own(threat: assay.Threat, stages: list[str]) -> None:
    suite = load_suite(default_suite(threat), threat)
    assert suite.name == "moves"
    assert [stage.name for stage in suite.stages] == stages
    assert suite.foreign == ()


def test_the_smallest_flow_and_the_smoothest() -> None:
    assert [stage.name for stage in load_suite(default_suite(assay.Flow()), assay.Flow()).stages] == ["pdpgd"]
    with pytest.raises(SettingError, match="smoothest flow, which StAdv finds"):
        load_suite("minimal", assay.Flow(measure="roughness"))


def test_records_are_expressions_that_build_the_same_attack() -> None:
    suite = load_suite("standard", LINF)
    for stage, record in zip(suite.stages, suite.record()["stages"], strict=True):
        assert assay.grammar.attack(record["attack"]) == stage.attack


def test_few_classes_take_the_fallback_and_say_so() -> None:
    suite = load_suite("autoattack", LINF)
    for classes in (2, 3):
        fitted, flags = fit(suite, classes=classes, access=Access.GRADIENTS)
        assert "margin" in repr(fitted.stages[1].attack)
        assert [flag.code for flag in flags] == ["fallback"]
        assert f"needs 4 classes and the model has {classes}" in flags[0].message
    fitted, flags = fit(suite, classes=4, access=Access.GRADIENTS)
    assert fitted.stages == suite.stages
    assert flags == []
    assert fit(load_suite("standard", LINF), classes=2, access=Access.GRADIENTS)[1] == []


def test_without_a_fallback_the_stage_is_skipped() -> None:
    stages = (
        Stage(name="a", attack=PGD(threat=LINF, loss="dlr"), min_classes=3),
        Stage(name="b", attack=PGD(threat=LINF)),
    )
    fitted, flags = fit(Suite(name="s", version=1, stages=stages), classes=2, access=Access.GRADIENTS)
    assert [stage.name for stage in fitted.stages] == ["b"]
    assert [flag.code for flag in flags] == ["stage-skipped"]


def test_scores_only_keeps_the_black_box_stages() -> None:
    fitted, flags = fit(load_suite("standard", LINF), classes=10, access=Access.SCORES)
    assert [stage.name for stage in fitted.stages] == ["square"]
    assert [flag.code for flag in flags] == ["stage-skipped"] * 5
    assert "needs gradients and the model grants scores" in flags[0].message


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(AccessError, match=r"no stage of suite 'standard'.*grants labels.*such as Square"):
        fit(load_suite("standard", LINF), classes=10, access=Access.LABELS)


def test_an_attack_that_cannot_use_the_threat_is_skipped() -> None:
    fitted, flags = fit(load_suite("quick", assay.L1(3.0)), classes=10, access=Access.GRADIENTS)
    assert [stage.name for stage in fitted.stages] == ["apgd-ce", "apgd-t"]
    assert [flag.code for flag in flags] == ["stage-skipped"]
    assert "square" in flags[0].message


def test_a_list_of_attacks() -> None:
    suite = load_suite([("one", FGSM(threat=LINF)), ("two", PGD(threat=LINF))], LINF)
    assert (suite.name, [stage.name for stage in suite.stages]) == ("custom", ["one", "two"])
    with pytest.raises(SettingError, match="give both the same"):
        load_suite([("one", FGSM(threat=assay.Linf(0.2)))], LINF)


@pytest.mark.parametrize("names", [[], ["clean"], ["a", "a"], ["../a"], ["A"], ["a b"], [""], ["adv"]])
def test_names_that_cannot_be_folders(names: list[str]) -> None:
    with pytest.raises(SettingError):
        load_suite([(name, FGSM(threat=LINF)) for name in names], LINF)


STAGE = 'name="m"\nversion=1\n[[stage]]\nname="p"\nattack="PGD(threat=THREAT)"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_a_file_of_the_users_own(tmp_path: Path) -> None:
    path = write(tmp_path, 'name = "mine"\nversion = 3\n[[stage]]\nname = "p"\nattack = "PGD(threat=THREAT)"\n')
    suite = load_suite(path, LINF)
    assert (suite.name, suite.version, suite.stages[0].attack) == ("mine", 3, PGD(threat=LINF))


def test_threats_are_read_in_any_case(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, STAGE + 'threats=["Linf", "L2"]'), LINF)
    assert [stage.name for stage in suite.stages] == ["p"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("name = ", "not valid TOML"),
        ('version = 1\n[[stage]]\nname="p"\nattack="PGD(threat=THREAT)"', "lacks 'name'"),
        ('name="m"\nversion=1', "lacks 'stage'"),
        ('name="m"\nversion=1\n[[stage]]\nname="p"', "stage 1 lacks 'attack'"),
        (
            'name="m"\nversion=1\n[[stage]]\nname="p"\nattack="PGD(threat=THREAT)"\nstep=1',
            "unknown key 'step'",
        ),
        ('name=5\nversion=1\n[[stage]]\nname="p"\nattack="PGD(threat=THREAT)"', "lacks 'name'"),
        ('name="m"\nversion=1\nstage=[1]', r"stage 1 is 1; write each stage as a \[\[stage\]\] table"),
        ('name="m"\nversion=1\n[[stage]]\nname="p"\nattack=5', "stage 1 has attack = 5; it has to be text"),
        ('name="m"\nversion=1\n[[stage]]\nname=5\nattack="PGD(threat=THREAT)"', "stage 1 has name = 5"),
        (STAGE + 'min_classes="4"', "min_classes = '4'; it has to be a whole number"),
        (STAGE + "min_classes=true", "min_classes = True"),
        (STAGE + "fallback=1", "fallback = 1; it has to be text"),
        (STAGE + 'threats="linf,l2"', "threats = 'linf,l2'; it has to be a list"),
        (STAGE + 'threats=["linff"]', "names the threat 'linff'; known are .*l0, l1, l2, linf"),
        (STAGE + "threats=[1]", "names the threat '1'"),
    ],
)
def test_files_that_are_no_suites(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(SettingError, match=found):
        load_suite(write(tmp_path, text), LINF)


def test_unknown_names(tmp_path: Path) -> None:
    with pytest.raises(GrammarError, match="standard"):
        load_suite("standart", LINF)
    with pytest.raises(SettingError, match="cannot be read"):
        load_suite(tmp_path / "none.toml", LINF)
    with pytest.raises(GrammarError, match="PGD"):
        load_suite(write(tmp_path, 'name="m"\nversion=1\n[[stage]]\nname="p"\nattack="PDG(threat=THREAT)"'), LINF)


def test_a_stage_within_another_threat_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\nversion = 1\n[[stage]]\nname = "pgd"\nattack = "PGD(threat=Linf(0.5))"\n')
    with pytest.raises(SettingError, match=r"attacks within Linf\(0.5\), the run asks about Linf\(0.1\)"):
        load_suite(path, assay.Linf(0.1))


@pytest.mark.parametrize("spec", [["PGD(threat=THREAT)"], PGD(threat=assay.Linf(0.1)), [PGD(threat=assay.Linf(0.1))]])
def test_what_is_no_suite_says_what_is(spec: Any) -> None:
    with pytest.raises(SettingError, match="list of \\(name, attack\\)"):
        load_suite(spec, assay.Linf(0.1))


@pytest.mark.parametrize("text", ["linf:0.1", "l2:1", "l1:5", "l0:3", "rotation:10", "flow:0.05", "recolor:0.06"])
def test_black_box_needs_no_gradients_and_has_something_for_labels(text: str) -> None:
    suite = load_suite("black-box", grammar.threat(text))
    assert all(stage.attack.access < Access.GRADIENTS for stage in suite.stages)
    assert len(fit(suite, classes=2, access=Access.SCORES)[0].stages) == len(suite.stages)
    if text not in ("flow:0.05", "recolor:0.06"):
        left, flags = fit(suite, classes=2, access=Access.LABELS)
        assert {stage.attack.access for stage in left.stages} == {Access.LABELS}
        assert {flag.code for flag in flags} == {"stage-skipped"}


@pytest.mark.parametrize("text", ["linf", "l2", "l1", "l0"])
def test_minimal_black_box_asks_for_decisions_alone(text: str) -> None:
    suite = load_suite("minimal-black-box", grammar.threat(text))
    assert {stage.attack.access for stage in suite.stages} == {Access.LABELS}


def test_autoattack_has_the_published_settings() -> None:
    attacks = {stage.name: repr(stage.attack) for stage in load_suite("autoattack", LINF).stages}
    assert list(attacks) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert "steps=100" in attacks["apgd-ce"]
    assert "restarts=1" in attacks["apgd-ce"]
    assert "loss='dlr'" in attacks["apgd-t"]
    assert "targets=9" in attacks["apgd-t"]
    assert "targets=9" in attacks["fab-t"]
    assert "queries=5000" in attacks["square"]
    sparse = {stage.name: repr(stage.attack) for stage in load_suite("autoattack", assay.L1(3.0)).stages}
    assert "restarts=5" in sparse["apgd-ce"]
    assert "targets=5" in sparse["apgd-t"]
    assert list(sparse) == list(attacks)


@pytest.mark.parametrize(
    ("threat", "published"),
    [
        (assay.Linf(1e-4), [(11, 11), (99, 99), (180, 90)]),
        (assay.L1(1e-4), [(55, 55), (55, 55), (180, 90)]),
    ],
    ids=repr,
)
def test_autoattack_spends_no_more_on_an_unbroken_sample_than_the_original(
    threat: assay.Threat, published: list[tuple[int, int]]
) -> None:
    model = linear_of_ten_classes()
    x = torch.rand(2, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    own = []
    for stage in load_suite("autoattack", threat).stages[:3]:
        tenth = assay.grammar.attack(repr(stage.attack).replace("steps=100", "steps=10"))
        result = tenth(model, x, model(x).argmax(dim=1), clean_output=model(x))
        assert not result.success.any()
        own.append((int(result.forwards.max()), int(result.backwards.max())))
    assert sum(forwards for forwards, _ in own) <= sum(forwards for forwards, _ in published)
    assert all(mine <= theirs for (_, mine), (_, theirs) in zip(own, published, strict=True))


def linear_of_ten_classes() -> torch.nn.Module:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 10))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


def test_a_stage_with_draws_asks_as_often_and_is_read_back(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path, STAGE.replace("THREAT)", "THREAT, steps=3)") + 'eot="EOT(draws=4)"'), LINF)
    assert Suite.read(suite.record()) == suite
    assert suite.record()["stages"][0]["eot"] == "EOT(draws=4)"
    model = linear_of_ten_classes()
    x = torch.full((2, 1, 2, 3), 0.5)
    y = model(x).argmax(dim=1)
    found = assay.evaluate(model, (x, y), threat=LINF, suite=tmp_path / "mine.toml", progress=False)
    stage = found.results["stages"][0]
    alone = suite.stages[0].attack(model, x, y, seed=derive(0, 1), eot=EOT(draws=4))
    assert stage["backwards"] == int(alone.backwards.sum())
    assert stage["forwards"] == int(alone.forwards.sum())
    assert stage["forwards"] % 4 == 0


def test_rand_asks_twenty_times() -> None:
    assert {repr(stage.eot) for stage in load_suite("rand", LINF).stages} == {"EOT(draws=20)"}


def test_what_a_budget_scales_is_multiplied(tmp_path: Path) -> None:
    text = STAGE.replace("THREAT)", "THREAT, steps=40, restarts=3)") + 'scaled=["steps"]'
    path = write(tmp_path, text)
    for budget, steps in ((1.0, 40), (0.1, 4), (10, 400), (0.001, 1)):
        suite = load_suite(path, LINF, budget)
        assert suite.stages[0].attack == PGD(threat=LINF, steps=steps, restarts=3)
        assert suite.record().get("budget", 1.0) == budget
        assert Suite.read(suite.record()).budget == budget


def test_inner_attacks_are_scaled_too(tmp_path: Path) -> None:
    inner = "MultiTargeted(attack=APGD(threat=THREAT, steps=10), targets=4)"
    text = f'name="m"\nversion=1\n[[stage]]\nname="p"\nattack="{inner}"\nscaled=["attack.steps"]'
    attack = load_suite(write(tmp_path, text), LINF, 2).stages[0].attack
    assert "steps=20" in repr(attack)
    assert "targets=4" in repr(attack)


@pytest.mark.parametrize("budget", [0, -1.0, float("inf"), float("nan"), True])
def test_budgets_that_are_none(budget: float) -> None:
    with pytest.raises(SettingError, match="positive number"):
        load_suite("autoattack", LINF, budget)


def test_a_fixed_suite_takes_no_budget() -> None:
    with pytest.raises(SettingError, match="fixed cost"):
        load_suite("autoattack", LINF, 2)
    with pytest.raises(SettingError, match="fixed cost"):
        load_suite([("a", PGD(threat=LINF))], LINF, 0.5)


def test_only_numbers_among_the_settings_are_scaled(tmp_path: Path) -> None:
    for setting in ("step", "loss", "random_start", "threat.eps.x"):
        with pytest.raises(SettingError, match="no number among the settings"):
            load_suite(write(tmp_path, STAGE + f'scaled=["{setting}"]'), LINF, 2)
