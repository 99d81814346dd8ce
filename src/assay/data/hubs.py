"""Data sets of optional packages: Hugging Face ``datasets`` and ``torchvision.datasets``."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from assay.data.dataset import Data
from assay.errors import DataError
from assay.importing import near, optional, options


def read_hf(spec: str) -> Data:
    """Load ``hf:NAME`` from the Hugging Face hub; images are decoded when asked for.

    Args:
        spec: "hf:NAME"; options ``split`` ("test" when not given), ``config``, ``image`` and ``label`` (names of
            columns, found by their type when not given).

    Raises:
        MissingExtraError: ``datasets`` is not installed.
        DataError: it cannot be loaded, or has no image or label column.
    """
    name, chosen = options(spec.removeprefix("hf:"), ("split", "config", "image", "label"), DataError)
    datasets = optional("datasets", "hf", f"DATA {spec!r}")
    split = chosen.get("split", "test")
    try:
        rows = datasets.load_dataset(name, chosen.get("config"), split=split)
    except Exception as failed:
        raise DataError(
            f"loading {name!r} (split {split!r}) failed: {type(failed).__name__}: {failed}. "
            "Another split or configuration: hf:NAME?split=validation&config=NAME."
        ) from failed
    image = _column(rows, chosen.get("image"), datasets.Image, "image", name)
    label = _column(rows, chosen.get("label"), datasets.ClassLabel, "label", name)
    classes = getattr(rows.features[label], "names", None)
    labels = torch.tensor(rows[label][:]) if isinstance(rows.features[label], datasets.ClassLabel) else None
    return Data(Columns(rows, image, label), labels, name=name, classes=tuple(classes) if classes else None)


def _column(rows: Any, wanted: str | None, kind: type, what: str, name: str) -> str:
    found: list[str] = [column for column, feature in rows.features.items() if isinstance(feature, kind)]
    if wanted is not None and wanted in rows.features:
        return wanted
    if wanted is not None or len(found) != 1:
        raise DataError(
            f"cannot tell the {what} column of {name!r} (asked for {wanted!r}, found {found}); its columns "
            f"are {', '.join(rows.features)}: say which with ?{what}=COLUMN."
        )
    return found[0]


@final
@dataclass(frozen=True)
class Columns:
    """Two columns of a table as (x, y)."""

    rows: Any
    image: str
    label: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        row = self.rows[position]
        return row[self.image], row[self.label]


def read_torchvision(spec: str) -> Data:
    """Load the test part of ``torchvision:NAME``, downloading it when it is absent.

    Args:
        spec: "torchvision:NAME"; options ``root`` (torch's cache folder when not given) and ``split``.

    Raises:
        MissingExtraError: ``torchvision`` is not installed.
        DataError: no such data set, or loading failed.
    """
    name, chosen = options(spec.removeprefix("torchvision:"), ("root", "split"), DataError)
    sets = optional("torchvision", "torchvision", f"DATA {spec!r}").datasets
    if name not in sets.__all__ or not inspect.isclass(getattr(sets, name)):
        raise DataError(f"torchvision has no data set {name!r}.{near(name, sets.__all__)}")
    maker = getattr(sets, name)
    accepted = inspect.signature(maker).parameters
    root = Path(chosen.get("root") or Path(torch.hub.get_dir()).parent / "datasets").expanduser()
    settings: dict[str, Any] = {"root": str(root), "download": True, "split": chosen.get("split", "test")}
    if "train" in accepted:
        settings["train"] = chosen.get("split", "test") == "train"
    try:
        made = maker(**{key: value for key, value in settings.items() if key in accepted})
    except Exception as failed:
        raise DataError(f"loading torchvision's {name} failed: {type(failed).__name__}: {failed}") from failed
    return Data.of(made, name=name)
