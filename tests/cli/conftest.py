from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from assay.cli.main import app
from assay.errors import StoreError


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """What people read, without boxes and line breaks."""
        return " ".join(self.err.translate(dict.fromkeys(map(ord, "│╭╮╰╯─"), " ")).split())

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="session")
def assay() -> Callable[..., Outcome]:
    def run(*arguments: str | Path) -> Outcome:
        found = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
        return Outcome(found.exit_code, found.stdout, found.stderr)

    return run


@pytest.fixture(scope="session")
def refused(assay) -> Callable[..., None]:
    """Holds that a command line ends with this code, says this, and prints nothing else."""

    def check(arguments: tuple[str, ...], code: int, says: str) -> None:
        found = assay(*arguments)
        assert (found.code, found.out) == (code, "")
        assert says in found.said
        assert "Traceback" not in found.err

    return check


@pytest.fixture
def full_disk() -> Callable[..., None]:
    """To be put in the place of what saves."""

    def save(*_: object) -> None:
        raise StoreError("full") from OSError(28, "No space left on device")

    return save


@pytest.fixture
def stopped_at_once() -> Callable[..., Iterator[None]]:
    """To be put in the place of a generator: Ctrl-C before it gives anything."""

    def steps(*_: object, **__: object) -> Iterator[None]:
        raise KeyboardInterrupt
        yield

    return steps


@pytest.fixture
def no_work() -> Callable[..., None]:
    """To be put in the place of the work that must not be begun."""
    return lambda *_, **__: pytest.fail("the work was begun")


@pytest.fixture(scope="session")
def finished(assay, tmp_path_factory) -> Path:
    """A small finished run."""
    out = tmp_path_factory.mktemp("runs") / "a"
    stages = ("--attack", "fgsm", "--attack", "PGD(steps=3)", "--attack", "square:queries=5")
    found = assay(
        "evaluate", "digits-mlp", "--data", "digits", "--threat", "linf:0.1", *stages, "--limit", 40, "--out", out
    )
    assert found.code == 0, found.err
    return out
