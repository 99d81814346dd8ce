"""The folder that keeps what was fitted: the artefact, what was measured as JSON, and pictures."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, Literal, final

from assay.data import Data
from assay.errors import InputError, StoreError
from assay.files import write_atomically
from assay.universal.fitted import Fitted

_PROBE = ".writable"


@final
class Folder:
    """A folder for one artefact.

    Args:
        path: the folder; it is made where there is none.
        kind: what it keeps.
    """

    def __init__(self, path: str | os.PathLike[str], kind: type[Fitted]) -> None:
        self.path, self._kind = Path(path), kind

    def check(self, *, overwrite: bool = False) -> None:
        """Make sure that it can be kept here, before anything is computed.

        Raises:
            StoreError: the folder holds one and `overwrite` is not given, holds something else, or cannot be
                written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            names = {item.name for item in self.path.iterdir() if not item.name.startswith(".")}
        except OSError as error:
            raise self._failure(error) from error
        if names - set(self._kind.files()):
            raise StoreError(f"{self.path} holds other files than a {self._kind.what}. Choose another --out.")
        if names and not overwrite:
            raise StoreError(
                f"{self.path} holds a {self._kind.what} already. Replace it with --overwrite, or choose another --out."
            )
        self._write(_PROBE, b"")
        (self.path / _PROBE).unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove what was kept here, and nothing else."""
        for name in self._kind.files():
            (self.path / name).unlink(missing_ok=True)

    def keep(self, found: Fitted, state: Literal["running", "interrupted", "finished"]) -> None:
        """Write the artefact and what is known about it; each file is whole at every moment.

        Raises:
            StoreError: they cannot be written; what was kept before is unchanged.
        """
        try:
            found.save(self.path / self._kind.files()[0])
        except StoreError as error:
            raise self._failure(error.__cause__ or error) from error
        record = {"state": state, **found.as_dict()}
        self._write(self._kind.files()[1], json.dumps(record, indent=1).encode())

    def draw(self, found: Fitted, model: Any, data: Data) -> None:
        """Write the pictures; inputs that cannot be drawn have none.

        Raises:
            StoreError: they cannot be written.
        """
        with contextlib.suppress(InputError):
            found.draw_into(self.path, model, data)

    @property
    def files(self) -> list[Path]:
        """What is there."""
        return [path for name in self._kind.files() if (path := self.path / name).exists()]

    def _write(self, name: str, content: bytes) -> None:
        try:
            write_atomically(self.path / name, content)
        except StoreError as error:
            raise self._failure(error.__cause__ or error) from error

    def _failure(self, error: BaseException) -> StoreError:
        reason = getattr(error, "strerror", None) or error
        return StoreError(f"{self.path} cannot be written: {reason}. Free some space or choose another --out.")
