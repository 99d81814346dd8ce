"""The run directory: one file of settings and results, one shard a stage and chunk, never half written."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from datetime import datetime, timezone
from pathlib import Path
from typing import cast, final

import torch

from assay.errors import StoreError
from assay.evaluation import journal
from assay.evaluation.folder import RUN, check, clear, read
from assay.evaluation.merge import Table, worst_case
from assay.evaluation.schema import (
    SCHEMA_VERSION,
    Environment,
    Results,
    Run,
    Settings,
    State,
    differences,
    problem,
    settings_hash,
)
from assay.evaluation.shards import ADV, CLEAN, Damaged, Shard, decode
from assay.files import failure, remove_stale, write_atomically

logger = logging.getLogger("assay")


@final
class Store:
    """One run directory; many processes may write to it side by side, since every file is renamed into place.

    Args:
        path: The folder.
        run: The content of its ``run.json``.

    Example:
        >>> import assay
        >>> found = assay.evaluate("digits-mlp", "digits", threat="linf:0.02", suite="quick", limit=20, progress=False)
        >>> Store.open(found.path).run["results"]["samples"]
        20
    """

    def __init__(self, path: Path, run: Run) -> None:
        self.path = path
        self.run = run

    @classmethod
    def begin(
        cls,
        path: str | os.PathLike[str],
        settings: Settings,
        environment: Environment,
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> Store:
        """Start a run in a new or empty folder, continue one with ``resume``, replace one with ``overwrite``.

        ``resume`` on an empty folder starts the run: a job that is started again and again needs one command.

        Raises:
            StoreError: As ``check``; also where the run to be continued was started with other settings.
        """
        check(path, resume=resume, overwrite=overwrite)
        folder = Path(path)
        remove_stale(folder)
        if (folder / RUN).exists() and resume:
            store = cls.open(folder)
            store.agree(settings)
            if store.run["state"] != "done" or not store.intact():
                (folder / "report.html").unlink(missing_ok=True)  # it shows the run as it was
                store.update(state="running")
            return store
        clear(folder)
        store = cls(
            folder,
            {
                "schema_version": SCHEMA_VERSION,
                "kind": "evaluation",
                "state": "running",
                "settings": settings,
                "settings_hash": settings_hash(settings),
                "environment": environment,
                "started": _now(),
                "finished": None,
                "seconds": 0.0,
                "results": None,
            },
        )
        store._save()
        return store

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Store:
        """Read a run directory.

        Raises:
            StoreError: There is no ``run.json``, it cannot be read, or a newer assay wrote it.
        """
        folder = Path(path)
        file, run = folder / RUN, read(folder)
        version = run["schema_version"]
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{file} was written by a newer assay (schema_version {version}; this one reads up to "
                f"{SCHEMA_VERSION}). Update assay to read it."
            )
        wrong = problem(run)
        if wrong is not None:
            raise StoreError(f"{file} is damaged: {wrong}. Put an intact copy back, or use another folder.")
        return cls(folder, cast(Run, run))

    def agree(self, settings: Settings) -> None:
        """Raise StoreError with each difference when the run was started with other settings."""
        if settings_hash(settings) != self.run["settings_hash"]:
            changes = differences(_in_threat(self.run["settings"], settings["threat"]), settings)
            raise StoreError(
                f"{self.path} was started with other settings and cannot be continued with these:\n"
                + "\n".join(f"  {line}" for line in changes)
                + "\nUse the old settings, replace the run with --overwrite, or choose another --out."
            )

    def update(self, *, state: State, results: Results | None = None, seconds: float = 0.0) -> None:
        """Write ``run.json`` again with a new state; ``seconds`` are added to those of earlier attempts."""
        self.run["state"] = state
        self.run["results"] = results
        self.run["seconds"] += seconds
        self.run["finished"] = _now() if state == "done" else None
        self._save()

    def _save(self) -> None:
        write_atomically(self.path / RUN, (json.dumps(self.run, indent=1, allow_nan=False) + "\n").encode())

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages in order, "clean" first."""
        return (CLEAN, *(stage["name"] for stage in self.run["settings"]["suite"]["stages"]))

    @property
    def minimal(self) -> bool:
        """Whether the run looks for the smallest perturbations: its threat has no budget."""
        return self.run["settings"].get("minimal", False)

    @property
    def chunks(self) -> list[tuple[int, int]]:
        """First position of each chunk, and one past its last."""
        samples, chunk = self.run["settings"]["samples"], self.run["settings"]["chunk"]
        return [(start, min(start + chunk, samples)) for start in range(0, samples, chunk)]

    def shard_path(self, stage: str, start: int) -> Path:
        """Where the shard of a stage and chunk lies."""
        if stage == ADV:
            return self.path / "adv" / f"{start:08d}.safetensors"
        return self.path / "shards" / f"{self.stages.index(stage):02d}-{stage}" / f"{start:08d}.safetensors"

    def journal_path(self, start: int) -> Path:
        """Where answers about a chunk are kept while it is worked on."""
        return self.path / "answers" / f"{start:08d}.journal"

    def remove_journal(self, start: int) -> None:
        """Remove the answers about a chunk that is at its end, and their folder with the last ones."""
        path = self.journal_path(start)
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            path.parent.rmdir()

    def write_shard(self, shard: Shard) -> None:
        """Write a shard to its place, whole or not at all."""
        write_atomically(self.shard_path(shard.stage, shard.start), shard.encode(self.run["settings_hash"]))

    def read_shard(self, stage: str, start: int) -> Shard:
        """Read a shard.

        Raises:
            StoreError: It is not there, or damaged; the message names the file and the way out.
        """
        path = self.shard_path(stage, start)
        try:
            return self._decode(stage, start)
        except FileNotFoundError:
            raise StoreError(f"{path} is missing: the run is not finished. Continue it with --resume.") from None
        except Damaged as error:
            raise StoreError(
                f"{path} is damaged: {error}. Continue the run with --resume to compute it again."
            ) from error

    def find_shard(self, stage: str, start: int) -> Shard | None:
        """The shard, or None where it has to be computed; a damaged one is set aside with a warning."""
        path = self.shard_path(stage, start)
        try:
            return self._decode(stage, start)
        except FileNotFoundError:
            return None
        except Damaged as error:
            aside = path.with_name(path.name + ".corrupt")
            try:
                os.replace(path, aside)
            except OSError as reason:
                raise failure(path, reason) from reason
            logger.warning("%s is damaged: %s. It is kept as %s and computed again.", path, error, aside.name)
            return None

    def _decode(self, stage: str, start: int) -> Shard:
        stop = min(start + self.run["settings"]["chunk"], self.run["settings"]["samples"])
        return decode(
            self.shard_path(stage, start),
            stage=stage,
            start=start,
            stop=stop,
            settings_hash=self.run["settings_hash"],
        )

    def done(self, stage: str) -> list[int]:
        """Start of each chunk whose shard is there (whole or not: reading tells)."""
        return [start for start, _ in self.chunks if self.shard_path(stage, start).exists()]

    def intact(self) -> bool:
        """Whether every shard is there and whole, so that nothing has to be computed."""
        stages = (*self.stages, ADV) if self.run["settings"]["save_adv"] else self.stages
        try:
            for start, _ in self.chunks:
                for stage in stages:
                    self.read_shard(stage, start)
        except StoreError:
            return False
        return True

    def spent(self) -> int:
        """Queries that the run has cost so far: as it noted, or where it was killed as many as its files tell."""
        told = 0
        for start, stop in self.chunks:
            asked = 0
            for stage in self.stages:
                with contextlib.suppress(StoreError):
                    columns = self.read_shard(stage, start).columns
                    asked += stop - start if stage == CLEAN else int(columns["forwards"].sum())
            told += max(asked, journal.count(self.journal_path(start), self.run["settings_hash"]))
        return max(told, self.run.get("queries", {"spent": 0})["spent"])

    def corrupt(self) -> list[Path]:
        """Damaged shards that were set aside, relative to the run directory."""
        return sorted(path.relative_to(self.path) for path in self.path.rglob("*.corrupt"))

    def merge(self) -> Table:
        """The per-sample worst case over all stages; without a budget the smallest perturbation.

        Raises:
            StoreError: A shard is missing or damaged, or does not fit the stages before it.
        """
        parts = [self._merge_chunk(start) for start, _ in self.chunks]
        columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        order = columns["index"].argsort(stable=True)
        return Table(**{name: column[order] for name, column in columns.items()}, stages=self.stages)

    def _merge_chunk(self, start: int) -> dict[str, torch.Tensor]:
        stages = [self.read_shard(stage, start) for stage in self.stages[1:]]
        try:
            goal = self.run["settings"]["goal"]
            return worst_case(self.read_shard(CLEAN, start), stages, minimal=self.minimal, goal=goal)
        except ValueError as error:
            path = self.shard_path(str(error), start)
            raise StoreError(
                f"{path} does not fit the stages before it: it was computed for other samples. "
                "Remove it and continue the run with --resume."
            ) from None


def _in_threat(settings: Settings, threat: str) -> Settings:
    """The settings with another threat inside the attacks, so that a new threat is one difference and not many."""
    stages = settings["suite"]["stages"]
    turned = [{**stage, "attack": stage["attack"].replace(settings["threat"], threat)} for stage in stages]
    return cast(Settings, {**settings, "suite": {**settings["suite"], "stages": turned}})


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
