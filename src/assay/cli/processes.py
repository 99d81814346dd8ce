"""The processes that train one network: started by the command, started again when one is killed, ended together."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import typer

from assay.cli import terminal
from assay.errors import AssayError, DivergedError, SettingError, StoreError, TrainingError

_RESTARTS = 3  # of all processes after one of them was killed


def launch(devices: int, arguments: list[str], out: Path | None, *, quiet: bool) -> NoReturn:
    """Run the same command in several processes; when one is killed, all start again and go on from the checkpoint.

    Args:
        devices: how many.
        arguments: of the command line.
        out: the folder of the run; without one there is no checkpoint to go on from.
        quiet: say nothing of processes that were killed.

    Raises:
        SettingError: there are not so many graphics cards.
        TrainingError: the processes failed.
        Exit: with 0 when they are done, or with the code of a usage error or an interruption.
    """
    import torch

    if torch.cuda.is_available() and devices > torch.cuda.device_count():
        raise SettingError(f"--devices {devices}: this machine has {torch.cuda.device_count()} graphics card(s).")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, torch.get_num_threads() // devices)))
    arguments = _without_devices(arguments)
    for restarts_left in reversed(range(_RESTARTS + 1)):
        codes = _exit_codes(devices, arguments)
        killed = bool(codes) and codes[0] < 0  # what was not killed failed for a reason that stays
        if not killed or out is None or not restarts_left:
            break
        if not quiet:
            terminal.people.print(f"a process was killed (signal {-codes[0]}): on from the checkpoint")
        arguments = [each for each in arguments if each not in ("--overwrite", "--resume")] + ["--resume"]
    for code in (terminal.USAGE, terminal.INTERRUPTED):
        if code in codes:
            raise typer.Exit(code)
    if codes:
        kept = "nothing was kept: give --out" if out is None else f"the run so far is kept in {out}"
        raise TrainingError(f"the processes ended with {codes}; {kept}.")
    raise typer.Exit


@contextmanager
def told_once() -> Iterator[None]:
    """What is wrong in every process alike is said by the first one."""
    from assay.training.workers import Workers

    try:
        yield
    except (AssayError, typer.BadParameter, KeyboardInterrupt) as error:
        own = isinstance(error, (TrainingError, StoreError)) and not isinstance(error, DivergedError)
        if own or Workers.here() == 0:
            raise
        if isinstance(error, KeyboardInterrupt):
            raise typer.Exit(terminal.INTERRUPTED) from None
        raise typer.Exit(terminal.FAILED if isinstance(error, TrainingError) else terminal.USAGE) from None


def end() -> None:
    """Leave a process that was one of several: gloo may abort while the interpreter shuts down."""
    from assay.training.workers import Workers

    if Workers.expected() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _exit_codes(devices: int, arguments: list[str]) -> list[int]:
    """Run the command in several processes, once: the exit codes of those that failed."""
    import logging
    import signal
    import uuid

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.5,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "assay", *arguments)
    except ChildFailedError as error:
        codes = {failure.exitcode for failure in error.failures.values()}
        return sorted(codes - {-signal.SIGTERM} or codes)  # which those get that are left over
    except SignalException as stopped:
        if stopped.sigval == signal.SIGINT:  # which the processes had too
            return [terminal.INTERRUPTED]
        raise
    return []


def _without_devices(arguments: list[str]) -> list[str]:
    """The command line for one of the processes."""
    found = []
    left = iter(arguments)
    for each in left:
        if each == "--devices":
            next(left, None)
        elif not each.startswith("--devices="):
            found.append(each)
    return found
