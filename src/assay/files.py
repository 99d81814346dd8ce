"""Files that are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from assay.errors import StoreError

_TEMPORARY = re.compile(r"^\..+\.(?P<host>[^.]+)-(?P<pid>\d+)-[0-9a-f]+\.tmp$")
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name beside ``path``, flush it to the disk and rename it.

    Raises:
        StoreError: The disk is full, the folder cannot be written, or any other failure of the file system;
            the temporary file is gone and whatever ``path`` held before is unchanged.
    """
    host = socket.gethostname().split(".")[0] or "localhost"
    temporary = path.with_name(f".{path.name}.{host}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(temporary, content)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise failure(path, error) from error
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def failure(path: Path, error: OSError) -> StoreError:
    """The error of the operating system, with what it means for the run."""
    if error.errno in _FULL:
        return StoreError(
            f"the disk is full: {path} could not be written ({error.strerror}). Everything written "
            "before is kept: free some space and continue with --resume (resume=True)."
        )
    if error.errno in _DENIED:
        return StoreError(
            f"{path.parent} cannot be written ({error.strerror}). Choose another --out, or change its permissions."
        )
    if error.errno in {errno.ENOTDIR, errno.EEXIST}:
        return StoreError(f"{path.parent} is not a folder. Choose another --out.")
    return StoreError(f"{path} could not be written: {error.strerror or error}")


def is_temporary(path: Path) -> bool:
    """Whether this file was left by an unfinished write, of this or another process."""
    return _TEMPORARY.match(path.name) is not None


def remove_stale(folder: Path) -> None:
    """Remove temporary files whose writer on this machine is no longer alive.

    Those of other machines are left: their writers may be at work, and no reader looks at temporary files.
    """
    host = socket.gethostname().split(".")[0] or "localhost"
    for path in folder.rglob(".*.tmp"):
        match = _TEMPORARY.match(path.name)
        if match and match["host"] == host and not alive(int(match["pid"])):
            with contextlib.suppress(OSError):
                path.unlink()


@contextlib.contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """A folder for short-lived files, outside the run so that a full disk there does not silence what is told in it.

    Folders of the same name that a killed process left are removed first.
    """
    host, parent = socket.gethostname().split(".")[0] or "localhost", Path(tempfile.gettempdir())
    for path in parent.glob(f".{name}.*.tmp"):
        match = _TEMPORARY.match(path.name)
        if match and match["host"] == host and not alive(int(match["pid"])):
            shutil.rmtree(path, ignore_errors=True)
    folder = parent / f".{name}.{host}-{os.getpid()}-{secrets.token_hex(4)}.tmp"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def alive(pid: int) -> bool:
    """Whether a process of this machine still runs (on Windows, where asking could end it: always yes)."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
