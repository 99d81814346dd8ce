"""One notation: it reads what it writes, points at mistakes, and never runs code."""

from __future__ import annotations

import contextlib
import inspect
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import assay
from assay import grammar, registry
from assay.errors import GrammarError
from assay.goals import Goal
from assay.threats import Threat

eps = st.none() | st.floats(0, 1e6)
bounds = st.tuples(st.floats(-1e3, 0), st.floats(0.5, 1e3))


def build(name, eps, bounds=(0.0, 1.0)):
    made = registry.get("threat", name).load()
    if made is assay.Combined:
        return made(assay.Recolor(0.06, bounds=bounds), assay.Linf(0.5, bounds=bounds), eps=eps)
    if made is assay.threats.Corruptions and eps is not None:
        eps = 1 + int(eps) % 5  # a severity
    return made(eps, bounds=bounds)


threats = st.builds(build, st.sampled_from(registry.names("threat")), eps, bounds)


@given(threats)
def test_every_threat_reads_back_from_its_repr(threat):
    assert grammar.threat(repr(threat)) == threat
    assert grammar.parse(repr(threat), Threat) == threat


@settings(deadline=None, max_examples=25)
@given(st.data())
@pytest.mark.parametrize("name", registry.names("attack"))
def test_every_attack_reads_back_from_its_repr(name, data):
    entry = registry.get("attack", name)
    values = {
        "int": st.integers(2, 250).map(lambda n: 2 * n),  # pairs of samples, populations of 4
        "float": st.floats(0.01, 0.9),
        "float | None": st.none() | st.floats(0.01, 0.9),
        "str | Loss | None": st.none() | st.sampled_from(registry.names("loss")),
        "bool": st.just(True),
        "str | nn.Module | tuple[str | nn.Module, ...]": st.sampled_from(["fashion-cnn", ("a", "Ensemble('b', 'c')")]),
    }
    inner = inspect.signature(registry.get("attack", entry.inner).load()).parameters if entry.inner else {}
    parameters = inspect.signature(entry.load()).parameters
    wanted = {key: values[p.annotation] for key, p in parameters.items() if p.annotation in values}
    wanted |= {f"attack.{key}": values[p.annotation] for key, p in inner.items() if p.annotation in values}
    threat = data.draw(st.sampled_from(entry.threats))
    given = data.draw(st.fixed_dictionaries(wanted))
    if given.get("alpha") is not None and "rel_step" in given:
        given["rel_step"] = None  # one length or the other
    if given.get("lr") is not None and "rel_lr" in given:
        given["rel_lr"] = None
    if "kernel_radius" in given and threat not in registry.get("attack", "TIFGSM").threats:
        given["kernel_radius"] = 0  # its moves are no images
    for multiple in ("give_up", "adaptation"):
        if given.get(multiple) is not None:
            given[multiple] += 1.0
    attack = grammar.attack(name, build(threat, data.draw(st.floats(0.001, 10))), given)
    again = grammar.parse(repr(attack))
    assert again == attack
    assert repr(again) == repr(attack)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("8/255", 8 / 255),
        ("-2**2", -4),
        ("2**3**2", 512),
        ("(1 + 2) * 3 - +4", 5),
        ("[1, 2.5, 'a', None]", [1, 2.5, "a", None]),
        ("(1, TRUE, false, none)", (1, True, False, None)),
        ("1e-3", 0.001),
        ("-inf", -float("inf")),
        ("dlr", "dlr"),
        ("anything-else", "anything-else"),
    ],
)
def test_values(text, found):
    assert grammar.value(text) == found


@pytest.mark.parametrize(
    "text", ["linf:8/255", "Linf(8/255)", "LINF(eps=8/255)", "  linf(8 / 255,) ", "linf:eps=8/255"]
)
def test_forms_of_one_threat(text):
    assert grammar.threat(text) == assay.Linf(8 / 255)


def test_a_bare_name_is_a_threat_without_a_budget():
    assert grammar.threat("l2") == assay.L2()


def test_short_and_full_forms_of_one_attack_agree():
    full = grammar.parse("PGD(threat=Linf(8/255), steps=100, loss='dlr')")
    assert grammar.attack("pgd", "linf:8/255", ["steps=100", "loss=dlr"]) == full
    assert grammar.attack("pgd:steps=100", assay.Linf(8 / 255), {"loss": "dlr"}) == full
    assert grammar.attack("PGD(threat=Linf(8/255), steps=100)", settings={"loss": "dlr"}) == full
    assert grammar.attack("PGD(threat=THREAT, steps=100, loss=dlr)", names={"THREAT": assay.Linf(8 / 255)}) == full


def test_a_wrapper_hands_threat_and_settings_to_its_inner_attack():
    found = grammar.attack("multi-targeted", "l2:0.5", ["targets=3", "attack.steps=7"])
    assert found == assay.attacks.MultiTargeted(attack=assay.attacks.APGD(threat=assay.L2(0.5), steps=7), targets=3)
    assert grammar.attack("MultiTargeted(attack=APGD(steps=7), targets=3)", "l2:0.5") == found
    other = grammar.attack("multi-targeted", "l2:0.5", ["attack=pgd"])
    assert other.attack == assay.attacks.PGD(threat=assay.L2(0.5))


def test_settings_are_exactly_the_parameters():
    for name in registry.names("attack"):
        parameters = set(inspect.signature(registry.get("attack", name).load()).parameters)
        with pytest.raises(GrammarError) as error:
            grammar.attack(name, "linf:0.1", ["zz=1"])
        listed = str(error.value).split("It takes ")[1].split(".\n")[0]
        assert set(listed.split(", ")) == parameters


def test_whole_numbers_become_floats_where_floats_belong():
    assert repr(grammar.attack("pgd", "linf:1", ["momentum=1"])) == repr(
        grammar.attack("pgd", "linf:1.0", ["momentum=1.0"])
    )


# text, what the message says, what the marks stand under
MISTAKES = [
    ("", "empty", None),
    ("PGDD(threat=Linf(1))", "Did you mean PGD", "PGDD"),
    ("PGD(thread=Linf(1))", "Did you mean threat", "thread=Linf(1)"),
    ("PGD(threat=Lnf(1))", "Did you mean Linf", "Lnf"),
    ("PGD(threat=Linf)", "written as a call: Linf(...)", "Linf"),
    ("PGD(threat=0.1)", "has to be Threat, found 0.1", "0.1"),
    ("PGD(threat=Linf(1), steps=2.5)", "steps of PGD has to be int, found 2.5", "2.5"),
    ("PGD(threat=Linf(1), steps=True)", "has to be int, found True", "True"),
    ("PGD(threat=Linf(1), steps=0)", "steps must be at least 1", "PGD(threat=Linf(1), steps=0)"),
    ("PGD(threat=Linf(1), loss=dir)", "Did you mean dlr", "dir"),
    ("PGD(threat=Linf(1), loss='dir')", "unknown loss 'dir'", "PGD(threat=Linf(1), loss='dir')"),
    ("PGD(steps=3)", "PGD needs threat", "PGD(steps=3)"),
    ("PGD(Linf(1))", "takes its settings by name: threat, steps", "Linf(1)"),
    ("MultiTargeted(attack=Linf(1))", "has to be Attack", "Linf(1)"),
    ("Linf(1, 2, 3)", "Linf takes only eps, bounds", "3"),
    ("Linf(1, eps=2)", "'eps' is given twice", "Linf(1, eps=2)"),
    ("Linf(eps=1, eps=2)", "'eps' is given twice", "eps=1"),
    ("Linf(-1)", "not negative", "Linf(-1)"),
    ("Linf(eps=1/0)", "cannot be computed", "1/0"),
    ("Linf('1')", "found '1'", "'1'"),
    ("Linf(2 * 'a')", "arithmetic works on numbers only", "'a'"),
    ("Linf(2 * True)", "arithmetic works on numbers only", "True"),
    ("Linf((-8)**0.5)", "not a real number", "(-8)**0.5"),
    ("Linf(*(1,))", "cannot be used here", "*(1,)"),
    ("Linf(**(1,))", "cannot be used here", "(1,)"),
    ("Linf(1", "never closed", "("),
    ("Linf(é)", "unknown name 'é'", "é"),
    ("PGD(\n  threat=Linf(1),\n  stps=3)", "Did you mean steps", "stps=3"),
]


@pytest.mark.parametrize(("text", "says", "marked"), MISTAKES)
def test_a_mistake_is_shown_at_its_place(text, says, marked):
    with pytest.raises(GrammarError) as error:
        grammar.parse(text)
    message = str(error.value)
    assert says in message
    if marked:
        *_, line, marks = message.splitlines()
        start = marks.index("^")
        assert line[start : start + marks.count("^")] == marked


ATTEMPTS = [
    "__import__('os').system('x')",
    "__import__('os')",
    "open('x')",
    "().__class__.__bases__",
    "Linf.__init__",
    "Linf(0.1).eps",
    "[x for x in (1, 2)]",
    "(x for x in (1, 2))",
    "lambda: 1",
    "(y := 1)",
    "f'{1}'",
    "b'a'",
    "1j",
    "...",
    "{1: 2}",
    "{1}",
    "[1][0]",
    "1 if 2 else 3",
    "1 < 2",
    "not 1",
    "~1",
    "1 // 2",
    "1 << 99",
    "'a' * 10**9",
    "'%s' % 1",
    "9**9**9",
    "9**64**2",
    "2**64**64",
    "10**30",
    "(((2**64)*2**64))",
    "-" * 3000 + "1",
    "(" * 3000,
    "1+" * 1900 + "1",
    "[" * 150 + "]" * 150,
    "9" * 4500,
    "1\0",
    "import os",
    "1; 2",
    "Linf(0.1)(0.2)",
    "await x",
]


@pytest.mark.parametrize("text", ATTEMPTS, ids=[text[:20] for text in ATTEMPTS])
@pytest.mark.parametrize("read", [grammar.parse, grammar.threat, grammar.attack])
def test_nothing_but_the_notation_is_read(read, text):
    with pytest.raises(GrammarError) as error:
        read(text)
    assert max(map(len, str(error.value).splitlines())) < 400


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_by_name(text):
    with contextlib.suppress(GrammarError):
        grammar.parse(text)


@given(st.text("PGDLinf(),.=:*/+-08[]'\"_ \n", max_size=40))
def test_any_text_of_the_notation_is_read_or_refused_by_name(text):
    for read in (grammar.parse, grammar.value, grammar.threat):
        with contextlib.suppress(GrammarError):
            read(text)


def test_another_threat_than_the_one_given_is_refused():
    with pytest.raises(GrammarError, match=r"PGD has the threat Linf\(0.1\), but Linf\(0.2\) is given too"):
        grammar.attack("PGD(threat=Linf(0.1))", "linf:0.2")
    with pytest.raises(GrammarError, match="is given too"):
        grammar.attack("MultiTargeted(attack=APGD(threat=L2(1)))", "linf:0.2")
    with pytest.raises(GrammarError, match="is given too"):
        grammar.attack("pgd", "linf:0.2", ["threat=linf:0.1"])


def test_the_same_threat_twice_is_fine():
    assert grammar.attack("PGD(threat=Linf(1/10))", "linf:0.1").threat == assay.Linf(0.1)


@pytest.mark.parametrize(
    ("given_settings", "says"),
    [
        (["steps"], "written name=value"),
        (["=3"], "written name=value"),
        (["steps=1", "steps=2"], "given twice"),
        (["steps=9**9**9"], "in the setting steps: powers go up to 64"),
        (["steps="], "in the setting steps: the expression is empty"),
        (["steps=ten"], "has to be int, found 'ten'"),
        (["attack.steps=3"], "PGD has no 'attack.steps'"),
        (["stps=3"], "Did you mean steps"),
    ],
)
def test_settings_that_cannot_be_used(given_settings, says):
    with pytest.raises(GrammarError, match=says):
        grammar.attack("pgd", "linf:0.1", given_settings)


def test_a_setting_that_the_text_has_already_is_refused():
    with pytest.raises(GrammarError, match="'steps' is given here and as a setting"):
        grammar.attack("PGD(steps=3)", "linf:0.1", ["steps=4"])


def test_settings_of_an_inner_attack_that_is_written_out_are_refused():
    with pytest.raises(GrammarError, match="put its settings there"):
        grammar.attack("MultiTargeted(attack=APGD())", "linf:0.1", ["attack.steps=4"])


@pytest.mark.parametrize(
    ("read", "text", "says"),
    [
        (grammar.threat, "PGD(threat=Linf(0.1))", "expected a threat"),
        (grammar.threat, "0.1", "Known: Linf, L2, L1"),
        (grammar.attack, "linf:0.1", "expected an attack"),
        (grammar.threat, "PGD()", "expected a threat, found PGD, an attack"),  # whatever else it may lack
        (grammar.attack, "JPEG()", "expected an attack, found JPEG, a transformation"),
        (lambda text: grammar.parse(text, Goal), "Linf(1)", "expected a goal"),
        (grammar.recipe, "pgd", r"expected a recipe, found PGD, an attack. Did you mean PGDAT\(...\)\?"),
        (grammar.recipe, "FGSM(threat=Linf(0.1))", r"Did you mean FGSMAT\(...\)"),
        (grammar.recipe, "linf:0.1", "found Linf, a threat. Known: Standard"),
        (grammar.recipe, "0.1", "expected a recipe, found 0.1. Known: Standard"),
        (grammar.recipe, "pgda", "unknown name 'pgda'. Did you mean PGDAT"),
        (
            lambda text: grammar.attack(text, "linf:0.1"),
            "trades",
            r"found TRADES, a recipe. Did you mean Transfer\(...\)",
        ),
        (grammar.threat, "linf=8/255", "a threat is written linf:8/255; found 'linf=8/255'"),
        (lambda text: grammar.attack("pgd", text), "L2 = 0.5", "a threat is written L2:0.5"),
        (grammar.threat, "line=8", "cannot be read"),
        (grammar.attack, "pgd=8", "cannot be read"),
    ],
)
def test_something_else_than_expected_is_refused(read, text, says):
    with pytest.raises(GrammarError, match=says):
        read(text)


def test_names_from_outside_are_used_as_they_are():
    marker = assay.Linf(0.3)
    assert grammar.parse("THREAT", names={"THREAT": marker}) is marker
    with pytest.raises(GrammarError, match="unknown name 'THREAT'"):
        grammar.parse("THREAT")


@pytest.mark.parametrize(
    "text",
    [
        "EOT(draws=30, share=1.0)",
        "EOT(Rotate(20, padding='border'), Brightness(0.1), draws=10)",
        "EOT(Resample(4, Blur(1), JPEG(60, best=90)), Noise(0.1), draws=2, confirm=0)",
    ],
)
def test_expectations_are_read_and_written(text):
    found = grammar.eot(text)
    assert repr(found) == text
    assert grammar.eot(repr(found)) == found


def test_transformations_alone_are_an_expectation_too():
    assert grammar.eot("Rotate(20)") == grammar.eot("EOT(Rotate(20))")
    assert repr(grammar.eot("[Rotate(20), Blur(1)]")) == "EOT(Rotate(20), Blur(1), draws=10)"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Linf(0.1)", "write random views as EOT(Rotate(20), Noise(0.05), draws=10); found Linf(0.1)"),
        ("[Rotate(20), 3]", "write random views as EOT"),
        ("[]", "write random views as EOT"),
        ("EOT(Linf(0.1))", "has to be Transformation"),
        ("EOT(Rotat(3))", "Did you mean Rotate"),
        ("EOT(Rotate(300))", "from 0 to 180; got 300"),
        ("EOT(draw=3)", "Did you mean draws"),
    ],
)
def test_expectations_that_cannot_be_are_refused_by_name(text, message):
    with pytest.raises(GrammarError, match=re.escape(message)):
        grammar.eot(text)


def test_attacks_of_a_recipe_keep_the_threats_that_they_name():
    text = "MultiThreat(attacks=[PGD(threat=L2(0.5)), FGSM()])"
    for recipe in (
        grammar.recipe(text, "linf:0.1"),
        grammar.recipe("multithreat", "linf:0.1", ["attacks=[PGD(threat=L2(0.5)), FGSM()]"]),
    ):
        assert [attack.threat for attack in recipe.attacks] == [assay.L2(0.5), assay.Linf(0.1)]
    with pytest.raises(GrammarError, match="keep one"):
        grammar.attack("PGD(threat=L2(0.5))", "linf:0.1")
