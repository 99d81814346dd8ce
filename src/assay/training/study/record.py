"""What a study keeps: its settings and one row per network, as JSON and as CSV."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, TypedDict, final

from assay.errors import SettingError, StoreError
from assay.evaluation.schema import differences
from assay.files import write_atomically

RECORD, TABLE = "study.json", "study.csv"
SCHEMA = 1
COLUMNS = (
    "recipe", "eps", "samples", "epochs", "clean_error", "adversarial_error", "difference",
    "clean_accuracy", "clean_low", "clean_high", "robust_accuracy", "robust_low", "robust_high", "folder",
)  # fmt: skip


class Row(TypedDict):
    """One network that was trained and measured, by COLUMNS."""

    recipe: str
    eps: float
    samples: int
    epochs: int
    clean_error: float
    adversarial_error: float
    difference: float
    clean_accuracy: float
    clean_low: float
    clean_high: float
    robust_accuracy: float
    robust_low: float
    robust_high: float
    folder: str


@final
class Record:
    """The folder of a study.

    Args:
        path: the folder.
        content: that of `study.json`.
    """

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path, self.content = path, content

    @classmethod
    def begin(cls, path: Path, settings: dict[str, Any], *, resume: bool, overwrite: bool) -> Record:
        """Start a study, or take up the one that is there.

        Raises:
            StoreError: the folder holds a study and neither was asked for, or something else.
            SettingError: the study there has other settings.
        """
        known = path / RECORD
        if known.exists() and not overwrite:
            if not resume:
                raise StoreError(
                    f"{path} holds a study. Continue it with --resume (resume=True), replace it with --overwrite "
                    "(overwrite=True), or choose another --out."
                )
            found = cls.open(path)
            other = differences(found.content["settings"], settings)
            if other:
                raise SettingError(
                    f"{path} is a study with other settings: {'; '.join(other)}. Repeat them to continue, or choose "
                    "another --out."
                )
            return found
        if path.exists() and not known.exists() and any(not item.name.startswith(".") for item in path.iterdir()):
            raise StoreError(f"{path} holds something else than a study. Choose another --out.")
        found = cls(path, {"schema": SCHEMA, "settings": settings, "runs": []})
        found.save()
        return found

    @classmethod
    def open(cls, path: Path) -> Record:
        """The study in a folder.

        Raises:
            StoreError: there is none, or it cannot be read.
        """
        try:
            content = json.loads((path / RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise StoreError(f"{path} holds no study: {RECORD} cannot be read ({error}).") from error
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise StoreError(f"{path / RECORD} has another format than version {SCHEMA}, which this assay reads.")
        return cls(path, content)

    @property
    def rows(self) -> list[Row]:
        """The networks so far."""
        found: list[Row] = self.content["runs"]
        return found

    def add(self, row: Row) -> None:
        """Note one more network."""
        self.content["runs"] = [each for each in self.rows if each["folder"] != row["folder"]] + [row]
        self.save()

    def save(self) -> None:
        """Write both files."""
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(self.rows)
        write_atomically(self.path / TABLE, text.getvalue().encode())
        write_atomically(self.path / RECORD, (json.dumps(self.content, indent=1) + "\n").encode())


def row(recipe: str, eps: float, samples: int, epochs: int, folder: str, results: Any) -> Row:
    """The row of one network.

    Args:
        recipe: its text.
        eps: of the training.
        samples: of the training.
        epochs: of the training.
        folder: its name.
        results: those of its evaluation, `results` of `run.json`.
    """
    clean, robust = results["clean_accuracy"], results["robust_accuracy"]
    return {
        "recipe": recipe, "eps": eps, "samples": samples, "epochs": epochs,
        "clean_error": 1 - clean["value"],
        "adversarial_error": 1 - robust["value"],
        "difference": clean["value"] - robust["value"],
        "clean_accuracy": clean["value"], "clean_low": clean["low"], "clean_high": clean["high"],
        "robust_accuracy": robust["value"], "robust_low": robust["low"], "robust_high": robust["high"],
        "folder": folder,
    }  # fmt: skip
