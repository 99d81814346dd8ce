"""Several processes for one run: chunks are dealt out, shards are files, and nobody talks to anybody.

A rank is told its number by ``torchrun``, through the environment. It computes the chunks that fall to it and writes
their shards; whoever started the ranks waits for the files. No process group is made and no collective is called, so
a rank that dies takes nothing with it but the shard it was working on.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from assay import errors, grammar
from assay.errors import AssayError, SettingError, StoreError
from assay.evaluation import defended
from assay.evaluation.chunks import Work, missing, placement, run
from assay.evaluation.folder import RUN
from assay.evaluation.shards import Shard
from assay.evaluation.stages import Suite
from assay.evaluation.store import Store
from assay.files import alive, remove_stale, scratch_folder

Report = Callable[[Shard], None]

_POLL = 0.2  # seconds between two looks at the folder
_PATIENCE = 600.0  # seconds until rank 0 must have written run.json, and between two shards
_SLOWER = 10  # times the slowest shard so far: the patience where shards take long
_LAUNCHER = "ASSAY_LAUNCHER"
_FAILURES = "ASSAY_FAILURES"
_RANK = "import sys; from assay.evaluation.ranks import main; main(sys.argv[1:])"


@final
@dataclass(frozen=True, kw_only=True)
class Group:
    """This process among those that work on the run.

    Args:
        rank: Number of this process.
        world: How many there are.
    """

    rank: int = 0
    world: int = 1

    @staticmethod
    def here() -> Group:
        """As ``torchrun`` says; a group of one without it."""
        return Group(rank=int(os.environ.get("RANK", "0")), world=int(os.environ.get("WORLD_SIZE", "1")))

    def share(self, chunks: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The chunks that fall to this process, dealt out in turn.

        Example:
            >>> Group(rank=1, world=2).share([(0, 4), (4, 8), (8, 9)])
            [(4, 8)]
        """
        return chunks[self.rank :: self.world]


def own_device() -> torch.device:
    """The graphics card of this process, where there is one."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def check_devices(devices: int, model: object, data: object) -> None:
    """Hold that a run can be spread over so many processes.

    Raises:
        SettingError: It cannot: not a positive number, more than there are cards, Python objects that another process
            cannot load, or a process that is a rank already.
    """
    if devices < 1:
        raise SettingError(f"devices must be at least 1; got {devices}.")
    if devices == 1:
        return
    if Group.here().world > 1:
        raise SettingError("this process was started by torchrun already: leave devices at 1.")
    if torch.cuda.is_available() and devices > torch.cuda.device_count():
        raise SettingError(f"devices={devices}, but this machine has {torch.cuda.device_count()} graphics card(s).")
    for what, value in (("model", model), ("data", data)):
        if not isinstance(value, str):
            raise SettingError(
                f"devices={devices} starts processes that load the {what} by name, and a {type(value).__name__} was "
                "given. Name it (a zoo name, a file, package.module:callable), or start your own script with torchrun."
            )


def launch(store: Store, model: str, data: str, devices: int, report: Report) -> None:
    """Start the ranks on this machine and wait until all shards are there.

    Args:
        store: The run, begun.
        model: What each rank loads.
        data: What each rank reads.
        devices: How many ranks.
        report: Called with every shard that appears.

    Raises:
        AssayError: What a rank raised.
        StoreError: A rank was killed; its shards are kept.
    """
    for stage in store.run["settings"]["suite"]["stages"]:
        _check_text(stage["attack"])
    with scratch_folder("assay-ranks") as scratch:
        command = [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--no-python"),
            *("--nproc-per-node", str(devices), sys.executable, "-c", _RANK),
            *(str(store.path.resolve()), model, data),
        ]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // devices)),
            _LAUNCHER: str(os.getpid()),
            _FAILURES: str(scratch),
        }
        log = scratch / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
            try:
                whole = _watch(store, process, report)
            finally:
                _end(process)
                remove_stale(store.path)
        if not whole:
            raise _failure(store, scratch, log, process.returncode)


def _check_text(attack: str) -> None:
    try:
        grammar.attack(attack)
    except AssayError as error:
        raise SettingError(f"{attack} cannot be handed to other processes as text: {error}") from error


def wait(store: Store, group: Group, report: Report) -> None:
    """Wait until the other ranks have written their shards, and for the results where rank 0 makes them.

    A shard counts once it can be read: a damaged one of an earlier attempt is still to be replaced by its rank.

    Raises:
        StoreError: Nothing appeared for ten minutes, or ten times as long as the slowest shard took.
    """
    seen = {(stage, start) for start, _ in group.share(store.chunks) for stage in store.stages}
    slowest = max((store.read_shard(*key).seconds for key in seen), default=0.0)
    last = time.monotonic()

    def heard(shard: Shard) -> None:
        nonlocal slowest, last
        slowest, last = max(slowest, shard.seconds), time.monotonic()
        report(shard)

    def pause() -> None:
        patience = max(_PATIENCE, _SLOWER * slowest)
        if time.monotonic() - last > patience:
            raise StoreError(
                f"nothing came from the other processes of this run for {patience:.0f} s. RANK={group.rank} and "
                f"WORLD_SIZE={group.world} in the environment say that {group.world} processes work on {store.path}: "
                "make the same call in all of them, not in one (`if rank == 0:`), and look whether one has died. For "
                "a run of one process unset RANK and WORLD_SIZE, or leave out=None."
            )
        time.sleep(_POLL)

    while not _tell(store, seen, heard):
        pause()
    last = time.monotonic()
    while group.rank > 0 and Store.open(store.path).run["state"] != "done":
        pause()


def join(path: Path) -> Store:
    """The run that rank 0 begins.

    Raises:
        StoreError: It did not within ten minutes.
    """
    deadline = time.monotonic() + _PATIENCE
    while not (path / RUN).exists():
        if time.monotonic() > deadline:
            raise StoreError(
                f"rank 0 has written no {RUN} to {path} within {_PATIENCE:.0f} s. All ranks need to see one folder."
            )
        time.sleep(_POLL)
    return Store.open(path)


def main(arguments: list[str]) -> None:
    """A rank that `launch` started: run directory, model and data by name."""
    path, model_name, data_name = arguments
    group = Group.here()
    try:
        _work(Path(path), model_name, data_name, group)
    except Exception as error:
        failure = {"error": type(error).__name__, "message": str(error)}
        (Path(os.environ[_FAILURES]) / f"{group.rank}.json").write_text(json.dumps(failure), encoding="utf-8")
        raise SystemExit(1) from error


def _work(path: Path, model_name: str, data_name: str, group: Group) -> None:
    from assay.data import load_data
    from assay.models import load_model

    store = Store.open(path)
    settings = store.run["settings"]
    threat = grammar.threat(settings["threat"])
    model = load_model(model_name, device=own_device())
    device, dtype = placement(model, own_device())
    launcher = int(os.environ[_LAUNCHER])

    def report(shard: Shard) -> None:
        if not alive(launcher):  # killed without a word: nobody waits for these shards any more
            raise SystemExit(1)

    work = Work(
        store=store,
        model=model,
        data=load_data(data_name, limit=settings["limit"]),
        threat=threat,
        suite=Suite.read(settings["suite"]),
        device=device,
        dtype=dtype,
        report=report,
        surrogate=load_model(settings["surrogate"], device=device) if "surrogate" in settings else defended.bare(model),
    )
    run(work, group.share(store.chunks))


def _watch(store: Store, process: subprocess.Popen[bytes], report: Report) -> bool:
    """Report shards until the process ends; whether all are there."""
    seen: set[tuple[str, int]] = set()
    while process.poll() is None:
        _tell(store, seen, report)
        time.sleep(_POLL)
    return _tell(store, seen, report)


def _tell(store: Store, seen: set[tuple[str, int]], report: Report) -> bool:
    """Report the shards that appeared since the last look; whether all are there and whole."""
    for stage in store.stages:
        for start in store.done(stage):
            if (stage, start) in seen:
                continue
            with contextlib.suppress(StoreError):  # damaged, left by an earlier attempt: its rank computes it again
                shard = store.read_shard(stage, start)
                if not shard.partial:  # left by an attempt with a total of queries
                    report(shard)
                    seen.add((stage, start))
    return len(seen) == len(store.stages) * len(store.chunks)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Stop the launcher and its ranks, if they still run."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
    with contextlib.suppress(ProcessLookupError, PermissionError, AttributeError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _failure(store: Store, scratch: Path, log: Path, code: int) -> AssayError:
    """What went wrong, in the words of the rank where it left any."""
    total = len(store.chunks) * len(store.stages)
    kept = total - len(missing(store))
    way_on = f"{kept} of {total} shards are kept in {store.path}: continue with --resume, with any number of devices."
    for path in sorted(scratch.glob("*.json")):
        told = json.loads(path.read_text(encoding="utf-8"))
        kind = getattr(errors, told["error"], None)
        if kind is None:
            return StoreError(f"a process of the run failed with {told['error']}: {told['message']}. {way_on}")
        error = kind(told["message"])
        assert isinstance(error, AssayError)
        return error
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    codes = [int(found) for found in re.findall(r"exitcode\s*:\s*(-?\d+)", text)]
    if codes and codes[-1] < 0:  # torchrun lists the process that fell first at the end
        number = -codes[-1]
        memory = ": the machine may have run out of memory" if number == signal.SIGKILL else ""
        return StoreError(f"a process of the run was killed by signal {number}{memory}. {way_on}")
    last = "\n".join(f"  {line}" for line in text.splitlines()[-15:])
    return StoreError(
        f"a process of the run was killed or crashed (torchrun ended with {code}). {way_on} It last said:\n{last}"
    )
