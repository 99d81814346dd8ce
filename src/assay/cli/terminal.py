"""Where output goes, and what every error looks like: people read stderr, programs read stdout."""

from __future__ import annotations

import functools
import json
import math
import os
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TextIO, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

from assay.errors import AccessError, AssayError, DataError, InputError, ModelError, StoreError, TrainingError

if TYPE_CHECKING:
    from rich.progress import Progress

P = ParamSpec("P")
R = TypeVar("R")

BELOW, USAGE, FAILED, INTERRUPTED = 1, 2, 3, 130


class _People(Console):
    """The console on stderr."""

    def on_broken_pipe(self) -> None:
        """Go on silently when nobody reads any more: the exit code still tells how the command ended."""
        self.quiet = True
        _discard(sys.stderr)


people = _People(stderr=True, highlight=False, markup=False)


class RunError(Exception):
    """A named error that came up during the run: the arguments were fine, the run failed."""

    def __init__(self, reason: AssayError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def result(text: str) -> None:
    """Write to stdout; a reader that has gone away wants no more of it, and that is no failure."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)


def _discard(stream: TextIO) -> None:
    """Send what is still buffered, and what follows, to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def document(content: Any) -> None:
    """Write one JSON document to stdout; numbers that JSON does not have become null."""
    result(json.dumps(_plain(content), indent=1, allow_nan=False))


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _plain(item) for key, item in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(item) for item in content]
    if isinstance(content, float) and not math.isfinite(content):
        return None
    return content


def panel(title: str, message: str, style: str = "red") -> None:
    """Show a message in a box on stderr."""
    people.print(Panel(Text(message), title=escape(title), title_align="left", border_style=style))


def bar(field: str = "", *, quiet: bool, elapsed: bool = False, left: bool = False) -> Progress:
    """A bar on stderr, on terminals only.

    Args:
        field: what stands behind it, in the words of rich: "{task.fields[won]}".
        quiet: show nothing.
        elapsed: show the time so far.
        left: show the time that is left.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *([TextColumn(field)] if field else []),
        *([TimeElapsedColumn()] if elapsed else []),
        *([TextColumn("left"), TimeRemainingColumn()] if left else []),
        console=people,
        transient=True,
        disable=quiet or not people.is_terminal,
    )


def way_on(out: Path | None) -> str:
    """How an interrupted run goes on."""
    if out is None:
        return "Nothing was kept: with --out DIR a run can be continued later."
    line = [part for part in sys.argv[1:] if part not in ("--overwrite", "--resume")]
    again = shlex.join(["assay", *line, "--resume"])
    return f"Every finished part is kept in {out}. Continue with:\n\n  {again}"


@contextmanager
def running() -> Iterator[None]:
    """Around the run itself: model and data were loaded and tried, so what they raise now is no usage error."""
    try:
        yield
    except (InputError, ModelError, AccessError, DataError, StoreError) as error:
        raise RunError(error) from error


@contextmanager
def kept(out: Path | None) -> Iterator[None]:
    """Around a run whose parts are kept: Ctrl-C tells how it goes on.

    Raises:
        Exit: it was stopped.
    """
    try:
        yield
    except KeyboardInterrupt:
        panel("Interrupted", way_on(out), "yellow")
        raise typer.Exit(INTERRUPTED) from None


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Show every error of a command as a panel and end with its exit code; a traceback only for ASSAY_DEBUG=1."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except KeyboardInterrupt:
            panel("Interrupted", "Stopped by Ctrl-C.", "yellow")
            raise typer.Exit(INTERRUPTED) from None
        except RunError as error:
            _fail(error.reason, FAILED)
        except (StoreError, TrainingError) as error:
            _fail(error, FAILED)
        except AssayError as error:
            _fail(error, USAGE)
        except Exception as error:
            _fail(error, FAILED)

    return wrapper


def _fail(error: BaseException, code: int) -> NoReturn:
    name = type(error).__name__
    message = str(error) or "no message"
    if not isinstance(error, AssayError):
        message = f"{name}: {message}\nFor the traceback set ASSAY_DEBUG=1."
        name = "Failed"
    panel(_words(name), message)
    if os.environ.get("ASSAY_DEBUG") == "1":
        people.print("".join(traceback.format_exception(error)))
    raise typer.Exit(code) from None


def _words(name: str) -> str:
    """``StoreError`` as ``Store error``."""
    return "".join(f" {c.lower()}" if c.isupper() and i else c for i, c in enumerate(name))
