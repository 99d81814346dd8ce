"""The folder of a training run: settings, metrics and checkpoint, each written as a whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, final

import torch

from assay.errors import SettingError, StoreError
from assay.evaluation.schema import differences
from assay.files import failure, is_temporary, remove_stale, write_atomically
from assay.models import saved

RUN = "train.json"
CHECKPOINT = "checkpoint.pt"
METRICS = "metrics.csv"
EVALUATION = "evaluation"
SCHEMA = 1
COLUMNS = ("epoch", "step", "lr", "loss", "clean", "robust", "quality", "images_per_second", "seconds")

Row = dict[str, Any]  # one epoch, by COLUMNS


@final
class Folder:
    """What a run keeps.

    Args:
        path: the folder.
        run: the content of `train.json`.
    """

    def __init__(self, path: Path, run: dict[str, Any]) -> None:
        self.path = path
        self.run = run

    @classmethod
    def begin(cls, path: Path, settings: dict[str, Any], around: Any, *, resume: bool, overwrite: bool) -> Folder:
        """Start a run, or take up the one that is there.

        Args:
            path: where.
            settings: everything that the weights depend on.
            around: versions, device and time.
            resume: go on with the run in the folder; start it where there is none.
            overwrite: replace the run in the folder.

        Raises:
            StoreError: the folder holds a run and neither was asked for, something else, or cannot be written.
            SettingError: the run there has other settings.
        """
        remove_stale(path)
        known = path / RUN
        if known.exists() and resume:
            found = cls.open(path)
            other = differences(found.run["settings"], settings)
            if other:
                raise SettingError(
                    f"{path} was trained with other settings: {'; '.join(other)}. Repeat them to continue, or choose "
                    "another --out."
                )
            return found
        if known.exists() and not overwrite:
            raise StoreError(
                f"{path} holds a training run. Continue it with --resume (resume=True), replace it with --overwrite "
                "(overwrite=True), or choose another --out."
            )
        if not known.exists() and not cls._empty(path):
            raise StoreError(f"{path} holds something else than a training run. Choose another --out.")
        for old in (CHECKPOINT, METRICS, saved.WEIGHTS, saved.CARD):
            (path / old).unlink(missing_ok=True)
        shutil.rmtree(path / EVALUATION, ignore_errors=True)
        found = cls(path, {"schema": SCHEMA, "state": "running", "settings": settings, "environment": around})
        found.save()
        return found

    @staticmethod
    def _empty(path: Path) -> bool:
        """Whether nothing is there, but for what an unfinished write left."""
        try:
            return all(is_temporary(each) for each in path.iterdir())
        except FileNotFoundError:
            return True
        except OSError as error:
            raise failure(path / RUN, error) from error

    @classmethod
    def open(cls, path: Path) -> Folder:
        """The run in a folder.

        Raises:
            StoreError: there is none, or it cannot be read.
        """
        try:
            run = json.loads((path / RUN).read_text(encoding="utf-8"))
        except OSError as error:
            raise StoreError(f"{path} holds no training run: {RUN} cannot be read ({error.strerror}).") from error
        except ValueError as error:
            raise StoreError(f"{path / RUN} is damaged: {error}. Replace the run with --overwrite.") from error
        if not isinstance(run, dict) or run.get("schema") != SCHEMA:
            raise StoreError(f"{path / RUN} has another format than version {SCHEMA}, which this assay reads.")
        return cls(path, run)

    def save(self, **changes: Any) -> None:
        """Write `train.json` with these changes."""
        self.run |= changes
        write_atomically(self.path / RUN, (json.dumps(self.run, indent=1) + "\n").encode())

    def write_metrics(self, history: list[Row]) -> None:
        """Write one line an epoch."""
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows({key: "" if cell is None else cell for key, cell in row.items()} for row in history)
        write_atomically(self.path / METRICS, text.getvalue().encode())

    def write_checkpoint(self, content: dict[str, Any]) -> None:
        """Replace the checkpoint: tensors, numbers and texts in dicts and lists."""
        file = io.BytesIO()
        torch.save(content, file)
        write_atomically(self.path / CHECKPOINT, file.getvalue())


def read_metrics(folder: Path) -> list[Row]:
    """The epochs of a run, one row each; none where none has ended.

    Raises:
        StoreError: the file is damaged.
    """
    path = folder / METRICS
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_row(line) for line in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise StoreError(f"{path} cannot be read: {error}. --resume writes it again.") from error


def _row(line: dict[str, str]) -> Row:
    whole = ("epoch", "step")
    cells = {name: line.get(name) for name in COLUMNS}
    return {name: int(cell or "") if name in whole else float(cell) if cell else None for name, cell in cells.items()}


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The checkpoint of a run; None where none was written yet.

    Raises:
        StoreError: it is damaged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as parts:  # torch reads damaged numbers without a word
            broken = parts.testzip()
        if broken is not None:
            raise zipfile.BadZipFile(broken)
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        aside = path.with_name(f"{CHECKPOINT}.corrupt-{int(time.time())}")
        with suppress(FileNotFoundError):  # another process has done it
            path.rename(aside)
        raise StoreError(
            f"{path} is damaged ({type(error).__name__}) and was set aside as {aside.name}. With --resume training "
            "starts from the beginning; the network of the best epoch so far is untouched."
        ) from error
    return content
