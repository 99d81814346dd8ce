"""The folder of a run over corruptions: settings and results in one file, predictions in shards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, final

from torch import Tensor

from assay.errors import StoreError
from assay.evaluation import folder
from assay.evaluation.folder import RUN
from assay.evaluation.schema import Environment, State, differences
from assay.evaluation.shards import CLEAN, Damaged, Shard, decode
from assay.files import remove_stale, write_atomically

KIND = "corruptions"
SCHEMA = 1
CLEAN_CELL = "clean"


@final
class Record:
    """A run that was begun.

    Args:
        path: the folder.
        run: the content of its run.json.
    """

    def __init__(self, path: Path, run: dict[str, Any]) -> None:
        self.path, self.run = path, run
        self._since = time.monotonic()

    @classmethod
    def begin(
        cls, path: Path, settings: dict[str, Any], environment: Environment, *, resume: bool, overwrite: bool
    ) -> Record:
        """Start a run in a new or empty folder, continue one with `resume`, replace one with `overwrite`.

        Raises:
            StoreError: the folder holds something else, or a run with other settings.
        """
        folder.check(path, resume=resume, overwrite=overwrite)
        remove_stale(path)
        if (path / RUN).exists() and resume:
            found = cls.open(path)
            other = differences(found.run["settings"], settings)
            if other:
                raise StoreError(
                    f"{path} was started with other settings and cannot be continued with these:\n"
                    + "\n".join(f"  {line}" for line in other)
                    + "\nUse the old settings, replace the run with --overwrite, or choose another --out."
                )
            return found
        folder.clear(path)
        found = cls(
            path,
            {
                "schema_version": SCHEMA,
                "kind": KIND,
                "state": "running",
                "settings": settings,
                "environment": environment,
                "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "seconds": 0.0,
                "results": None,
            },
        )
        found.save("running")
        return found

    @classmethod
    def open(cls, path: Path) -> Record:
        """The run in a folder.

        Raises:
            StoreError: there is none, or one of another kind.
        """
        run = folder.read(path)
        if run.get("kind") != KIND or "settings" not in run:
            raise StoreError(f"{path} holds no run over corruptions (`assay corrupt`), but {run.get('kind')!r}.")
        if run["schema_version"] > SCHEMA:
            raise StoreError(f"{path / RUN} was written by a newer assay. Update assay to read it.")
        return cls(path, run)

    def save(self, state: State, results: dict[str, Any] | None = None) -> None:
        """Write run.json."""
        now = time.monotonic()
        self.run["seconds"] += now - self._since
        self._since = now
        self.run["state"] = state
        self.run["results"] = results if results is not None else self.run["results"]
        write_atomically(self.path / RUN, (json.dumps(self.run, indent=1, allow_nan=False) + "\n").encode())

    def write(self, cell: str, start: int, columns: dict[str, Tensor], seconds: float) -> Shard:
        """Keep the predictions on one part of the images of a cell."""
        stop = start + len(columns["index"])
        shard = Shard(stage=CLEAN, start=start, stop=stop, columns=columns, seconds=seconds)
        write_atomically(self._path(cell, start), shard.encode(self._key(cell)))
        return shard

    def find(self, cell: str, start: int, stop: int) -> Shard | None:
        """These predictions; None where they have to be computed. A damaged file counts as none."""
        with contextlib.suppress(FileNotFoundError, Damaged):
            return decode(self._path(cell, start), stage=CLEAN, start=start, stop=stop, settings_hash=self._key(cell))
        return None

    def _path(self, cell: str, start: int) -> Path:
        return self.path / "shards" / cell / f"{start:08d}.safetensors"

    def _key(self, cell: str) -> str:
        """What a shard of this run and cell is known by."""
        text = json.dumps([self.run["settings"], cell], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]
