"""One look for every error, one exit code for each kind."""

from __future__ import annotations

import io
import json

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from assay import errors
from assay.cli import terminal


def outcome(raised, during_the_run=False):
    app = typer.Typer()

    @app.command()
    @terminal.guarded
    def command() -> None:
        if during_the_run:
            with terminal.running():
                raise raised
        raise raised

    found = CliRunner().invoke(app, [])
    assert found.stdout == ""
    return found.exit_code, found.stderr


USAGE = [
    "InputError",
    "ModelError",
    "AccessError",
    "ThreatError",
    "LossError",
    "SettingError",
    "GrammarError",
    "DataError",
    "MissingExtraError",
]


@pytest.mark.parametrize("name", USAGE)
def test_named_errors_about_arguments_end_with_2(name):
    code, said = outcome(getattr(errors, name)("found this [x]; do that"))
    assert code == 2
    assert "found this [x]; do that" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("name", ["InputError", "ModelError", "AccessError", "DataError", "StoreError"])
def test_named_errors_of_the_run_end_with_3(name):
    code, said = outcome(getattr(errors, name)("it broke"), during_the_run=True)
    assert code == 3
    assert f"{name[:-5]} error" in said


def test_settings_found_wrong_during_the_run_are_usage_all_the_same():
    assert outcome(errors.SettingError("no"), during_the_run=True)[0] == 2


def test_a_run_directory_that_cannot_be_used_ends_with_3():
    assert outcome(errors.StoreError("full"))[0] == 3


def test_any_other_error_ends_with_3_and_says_how_to_see_more():
    code, said = outcome(ZeroDivisionError("division by zero"))
    assert code == 3
    assert "ZeroDivisionError: division by zero" in said
    assert "ASSAY_DEBUG=1" in said
    assert "Traceback" not in said


def test_the_traceback_is_shown_on_request(monkeypatch):
    monkeypatch.setenv("ASSAY_DEBUG", "1")
    assert "Traceback (most recent call last)" in outcome(errors.InputError("no"))[1]


def test_interrupted():
    code, said = outcome(KeyboardInterrupt())
    assert code == 130
    assert "Stopped by Ctrl-C" in said


def test_exit_codes_of_commands_pass():
    assert outcome(typer.Exit(7))[0] == 7


def test_a_document_is_strict_json(capsys):
    terminal.document({"a": [float("inf"), float("nan"), 1.5], "b": (1, None)})
    assert json.loads(capsys.readouterr().out) == {"a": [None, None, 1.5], "b": [1, None]}


@pytest.mark.parametrize(("more", "shown"), [({}, []), ({"elapsed": True}, ["0:00:00"]), ({"left": True}, ["left"])])
def test_a_bar_is_for_people_with_a_terminal(more, shown, monkeypatch):
    for terminal_there, quiet in ((True, False), (True, True), (False, False)):
        text = io.StringIO()
        monkeypatch.setattr(terminal, "people", Console(file=text, force_terminal=terminal_there, width=120))
        with terminal.bar("{task.fields[won]}", quiet=quiet, **more) as bar:
            bar.add_task("pgd", total=4, completed=1, won="3 won")
            bar.refresh()
        found = text.getvalue()
        words = ["pgd", "1/4", "3 won", *shown]
        assert [word in found for word in words] == [terminal_there and not quiet] * len(words)
        assert "left" in shown or "left" not in found
