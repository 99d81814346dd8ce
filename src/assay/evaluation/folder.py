"""The folder of a run: what may be started in it, and what may be removed from it."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from assay.errors import StoreError
from assay.files import failure, is_temporary, write_atomically

RUN = "run.json"
_PROBE = ".writable"


def check(path: str | os.PathLike[str], *, resume: bool = False, overwrite: bool = False) -> None:
    """Make sure that a run can be started or continued here, before a model is loaded.

    Raises:
        StoreError: The folder holds another run and neither ``resume`` nor ``overwrite`` is given, holds
            something else, or cannot be written.
    """
    folder = Path(path)
    if resume and overwrite:
        raise StoreError("--resume continues a run and --overwrite replaces it: give one of the two.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        names = {item.name for item in folder.iterdir() if not item.name.startswith(".")}  # such as .DS_Store
    except OSError as error:
        raise failure(folder / RUN, error) from error
    if RUN in names:
        if not resume and not overwrite:
            raise StoreError(
                f"{folder} holds a run already. Continue it with --resume (resume=True), replace it with "
                "--overwrite (overwrite=True), or choose another --out."
            )
        try:
            read(folder)
        except StoreError as error:  # beside shards it was one of assay: it may be replaced where it is no JSON
            if not (overwrite and "shards" in names and isinstance(error.__cause__, ValueError)):
                raise
    elif names & {"shards", "adv"}:
        raise StoreError(
            f"{folder} holds shards but no {RUN}, which says what run they belong to. Choose another --out."
        )
    elif names:
        raise StoreError(f"{folder} holds other files and is not a run of assay. Choose another --out.")
    probe = folder / _PROBE
    write_atomically(probe, b"")
    probe.unlink(missing_ok=True)


def read(folder: Path) -> dict[str, Any]:
    """The content of ``run.json``, of whatever version.

    Raises:
        StoreError: It is not there, cannot be read, or is not a file of assay.
    """
    file = folder / RUN
    try:
        run = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise StoreError(f"{folder} is not a run: there is no {RUN} in it.") from None
    except NotADirectoryError:
        raise StoreError(f"{folder} is not a folder.") from None
    except ValueError as error:
        raise StoreError(
            f"{file} cannot be read, it is not whole JSON: {error}. Put an intact copy back, replace the run with "
            "--overwrite, or use another folder."
        ) from error
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error.strerror or error}") from error
    if not isinstance(run, dict) or not isinstance(run.get("schema_version"), int):
        raise StoreError(f"{file} is not a run of assay: it has no schema_version.")
    return run


def clear(folder: Path) -> None:
    """Remove what assay wrote, and nothing else."""
    for name in (RUN, "report.html"):
        (folder / name).unlink(missing_ok=True)
    for top in (folder / "shards", folder / "adv", folder / "answers"):
        for path in sorted(top.rglob("*"), reverse=True):
            if path.is_dir():
                with contextlib.suppress(OSError):
                    path.rmdir()
            elif path.suffix in {".safetensors", ".corrupt", ".journal"} or is_temporary(path):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            top.rmdir()
