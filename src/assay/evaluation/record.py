"""The folder of a run: settings and results as JSON, and one file of columns for each part of the samples."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from assay.errors import StoreError
from assay.evaluation import folder
from assay.evaluation.schema import State, differences
from assay.files import remove_stale, write_atomically


@final
@dataclass(frozen=True)
class RunKind:
    """What a run is: its name in run.json, the version of what that holds, and the command that makes such runs."""

    name: str
    schema: int
    command: str


@final
class Record:
    """A run that was begun.

    Args:
        path: the folder.
        run: the content of its run.json.
    """

    def __init__(self, path: Path, run: dict[str, Any]) -> None:
        self.path, self.run = path, run

    @classmethod
    def begin(
        cls, path: Path, kind: RunKind, settings: dict[str, Any], environment: Any, *, resume: bool, overwrite: bool
    ) -> Record:
        """Start a run in a new or empty folder, continue one with `resume`, replace one with `overwrite`.

        Raises:
            StoreError: the folder holds something else, or a run with other settings.
        """
        folder.check(path, resume=resume, overwrite=overwrite)
        remove_stale(path)
        if (path / folder.RUN).exists() and resume:
            found = cls.open(path, kind)
            if other := differences(found.run["settings"], settings):
                raise StoreError(
                    f"{path} was started with other settings and cannot be continued with these: {'; '.join(other)}. "
                    "Use the old ones, replace the run with --overwrite, or choose another --out."
                )
            return found
        folder.clear(path)
        content = {"schema_version": kind.schema, "kind": kind.name, "state": "running", "settings": settings}
        found = cls(path, content | {"environment": environment, "results": None})
        found.save("running")
        return found

    @classmethod
    def open(cls, path: Path, kind: RunKind) -> Record:
        """The run in a folder.

        Raises:
            StoreError: there is none, or one of another kind or a newer assay.
        """
        run = folder.read(path)
        if run.get("kind") != kind.name or "settings" not in run:
            raise StoreError(f"{path} holds no run of `{kind.command}`, but {run.get('kind')!r}.")
        if run["schema_version"] > kind.schema:
            raise StoreError(f"{path / folder.RUN} was written by a newer assay. Update assay to read it.")
        return cls(path, run)

    def save(self, state: State, results: dict[str, Any] | None = None) -> None:
        """Write run.json."""
        self.run["state"] = state
        self.run["results"] = self.run["results"] if results is None else results
        write_atomically(self.path / folder.RUN, (json.dumps(self.run, indent=1, allow_nan=False) + "\n").encode())

    def write(self, start: int, columns: dict[str, Tensor], of: str = "") -> None:
        """Keep the columns of the part that begins with this sample; `of` names a series of parts of its own."""
        plain = {name: value.detach().cpu().contiguous() for name, value in columns.items()}
        write_atomically(self._file(start, of), save(plain, metadata={"settings": self._key, "of": of}))

    def find(self, start: int, of: str = "") -> dict[str, Tensor] | None:
        """The columns of a part; None where they have to be computed, a file that cannot be read among them."""
        try:
            with safe_open(self._file(start, of), framework="pt") as file:
                known = file.metadata() or {}
                if known.get("settings") != self._key or known.get("of", "") != of:
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
        except (OSError, SafetensorError):
            return None

    @property
    def parts(self) -> list[dict[str, Tensor]]:
        """The columns of all parts that are there."""
        starts = sorted(int(path.stem) for path in (self.path / "shards").glob("*.safetensors"))
        return [columns for start in starts if (columns := self.find(start)) is not None]

    def _file(self, start: int, of: str = "") -> Path:
        return self.path / "shards" / of / f"{start:08d}.safetensors"

    @property
    def _key(self) -> str:
        """What a part of this run is known by."""
        return hashlib.sha256(json.dumps(self.run["settings"], sort_keys=True).encode()).hexdigest()[:16]
