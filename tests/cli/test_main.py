"""The command as a whole: what it offers, how it starts, and where it writes."""

from __future__ import annotations

import re
import resource
import subprocess
import sys

import pytest

import assay as package
from assay.cli.main import main

OPTIONS = {
    "evaluate": "access attack budget chunk data decimals defense device devices fail-under help json limit "
    "max-queries out overwrite quiet resume save-adv seed suite surrogate targeted threat top-k total-queries",
    "calibrate": "data defense device drop help json limit quiet skip",
    "certify": "alpha batch data device draws help json limit out overwrite quiet resume seed selection sigma",
    "attack": "access attack batch data decimals device eot help json limit max-queries picture quiet save seed set "
    "targeted threat top-k total-queries",
    "corrupt": "baseline chunk copies corruptions data device fail-under help json layout limit out overwrite quiet "
    "resume save seed severities table",
    "train": "augment average batch channels-last clip compile data device devices epochs extra extra-share guard help "
    "json keep label-smoothing limit optimizer out overwrite patience precision quiet recipe resume schedule seed set "
    "suite test test-limit threat validation warmup",
    "study": "augment average batch data device epochs eps help json limit optimizer out overwrite quiet recipes "
    "resume samples schedule seed suite test test-limit threat",
    "universal": "data device fit help json limit load method out overwrite quiet seed set start target test-data "
    "threat",
    "patch": "area bounds data device fit help json limit load out overwrite quiet rotation scale seed set "
    "shape start target test-data",
    "physical": "attack batch camera data device draws help json limit photos quiet seed set threat",
    "attribute": "attack attribution batch beta change data device fail-under help json limit masks out overwrite "
    "quiet resume seed set threat top-k",
    "substitute": "bounds data device held-out help json limit max-queries network out overwrite quiet rounds seed set",
    "list": "help json",
    "show": "help json",
    "report": "help json open",
    "export": "format help json out",
}


def python(*arguments):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)


def test_help_names_the_commands(assay):
    found = assay("--help")
    assert found.code == 0
    assert re.findall(r"^│ ([a-z]+) ", found.out, re.MULTILINE) == list(OPTIONS)
    assert "Exit codes: 0 done, 1 below --fail-under, 2 usage" in " ".join(found.out.split())


@pytest.mark.parametrize("command", OPTIONS)
def test_help_of_each_command_names_its_options(assay, command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    found = assay(command, "--help")
    assert found.code == 0
    assert sorted(re.findall(r"^│ +\*? *(?:-\w, ?)?--([a-z-]+)", found.out, re.MULTILINE)) == OPTIONS[command].split()
    assert found.err == ""


def test_version(assay):
    assert assay("--version").out == f"{package.__version__}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["list", "--nonsense"], ["evaluate"], ["list", "sauces"]])
def test_wrong_usage_ends_with_2_and_leaves_stdout_alone(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("command", "panel", "options"),
    [
        ("train", "Options", "data recipe threat set epochs out resume overwrite limit seed device json quiet help"),
        ("train", "Steps", "batch optimizer schedule average augment label-smoothing clip warmup extra extra-share"),
        ("train", "Speed", "precision channels-last compile devices"),
        ("train", "What is measured and kept", "validation patience guard keep test test-limit suite"),
        ("study", "Steps", "batch optimizer schedule average augment"),
        ("study", "What is measured and kept", "test test-limit suite"),
    ],
)
def test_help_of_training_stands_in_panels(assay, command, panel, options, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    _, _, rest = assay(command, "--help").out.partition(f"─ {panel} ─")
    shown = re.findall(r"^│ +\*? *--([a-z-]+)", rest.partition("╰")[0], re.MULTILINE)
    assert shown == options.split()


def test_without_a_command_the_help_is_shown(assay):
    found = assay()
    assert found.code == 2
    assert "evaluate" in found.out + found.err


def test_main_returns_the_exit_code(capsys):
    assert main(["list", "threats", "--json"]) == 0
    assert main(["show", "nonsense"]) == 2


@pytest.mark.parametrize(
    "arguments", ["['--help']", "['evaluate', '--help']", "['list']", "['list', 'models', '--json']"]
)
def test_help_and_list_do_without_torch(arguments):
    code = (
        "import sys; from assay.cli.main import main\n"
        f"code = main({arguments})\n"
        "heavy = {'torch', 'numpy', 'jinja2', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.exit(code)"
    )
    found = python("-c", code)
    assert found.returncode == 0, found.stderr


def test_start_takes_less_than_a_second_of_work():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert python("-m", "assay", "--help").returncode == 0
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1.0


def test_a_mistake_costs_no_import_of_torch():
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = python("-m", "assay", "attack", "digits-mlp", "--data", "digits", "--attack", "pgd")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (found.returncode, found.stdout) == (2, "")
    assert "pgd needs a threat" in found.stderr
    assert after.ru_utime - before.ru_utime < 1.0


def test_the_module_is_the_command():
    found = python("-m", "assay", "list", "threats", "--json")
    assert found.returncode == 0
    assert found.stderr == ""
    assert '"Linf"' in found.stdout


def test_a_reader_that_goes_away_is_no_failure():
    for pipe in ("list --json | true", "list 2>&1 >/dev/null | true", "show PGD --json | head -c 1 >/dev/null"):
        found = subprocess.run(
            ["bash", "-c", f'"{sys.executable}" -m assay {pipe}; exit ${{PIPESTATUS[0]}}'],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert (found.returncode, found.stderr) == (0, ""), pipe
