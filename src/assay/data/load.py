"""``load_data``: what each way of naming data stands for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay.data.dataset import Data
from assay.errors import DataError
from assay.importing import named_object, near

SHIPPED = Path(__file__).resolve().parent / "shipped"

FORMS = (
    "a shipped name ({names}), folder:PATH, npz:PATH, idx:FOLDER, hf:NAME, torchvision:NAME, or package.module:callable"
)


def load_data(spec: str, *, limit: int | None = None) -> Data:
    """Load data by name.

    Args:
        spec: a shipped name ("fashion-mnist", "digits"), "folder:PATH" (class folders of images, read when
            asked for), "npz:PATH" (arrays x and y), "idx:FOLDER" (the files of MNIST's kind), "hf:NAME",
            "torchvision:NAME", or "package.module:callable", which is called without arguments and returns
            anything that ``Data.of`` adopts.
        limit: keep only the first so many samples.

    Raises:
        DataError: unknown name, unreadable data, or no samples.
        MissingExtraError: the form needs a package that is not installed.
        SettingError: limit below 1.

    Example:
        >>> data = load_data("digits", limit=100)
        >>> len(data), data.x.shape
        (100, torch.Size([100, 1, 8, 8]))
    """
    found = _reader(spec)(spec)
    if len(found) == 0:
        raise DataError(f"{spec!r} holds no samples.")
    return found.take(limit)


def names() -> list[str]:
    """Names of the shipped data sets, sorted."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def _reader(spec: str) -> Callable[[str], Data]:
    scheme, colon, _ = spec.partition(":")
    if not colon:
        return _shipped
    if scheme == "folder":
        from assay.data.folder import read_folder

        return read_folder
    if scheme == "npz":
        from assay.data.npz import read_npz

        return read_npz
    if scheme == "idx":
        from assay.data.idx import read_idx

        return read_idx
    if scheme in ("hf", "torchvision"):
        from assay.data import hubs

        return hubs.read_hf if scheme == "hf" else hubs.read_torchvision
    return _called


def adopted(source: Any, limit: int | None = None) -> Data:
    """Data as the functions of this library take them: named as for `load_data`, or whatever `Data.of` adopts.

    Args:
        source: what was given.
        limit: use only the first so many samples.

    Raises:
        DataError: there is no such data, or they cannot be used.

    Example:
        >>> len(adopted("digits", 7)), len(adopted((torch.rand(9, 3), torch.zeros(9, dtype=torch.int64))))
        (7, 9)
    """
    return (load_data(source) if isinstance(source, str) else Data.of(source)).take(limit)


def _shipped(name: str) -> Data:
    if name not in names():
        raise DataError(
            f"no data named {name!r}.{near(name, names())} DATA is {FORMS.format(names=', '.join(names()))}."
        )
    card = json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8"))
    with np.load(SHIPPED / f"{name}.npz") as file:
        x = torch.from_numpy(file["x"].astype(np.float32))[:, None] / card["white"]
        y = torch.from_numpy(file["y"].astype(np.int64))
    return Data(x, y, name=name, classes=tuple(card["classes"]))


def _called(spec: str) -> Data:
    if "/" in spec.partition(":")[0] or "\\" in spec:
        raise DataError(f"cannot read {spec!r} as data: DATA is {FORMS.format(names=', '.join(names()))}.")
    found = named_object(spec, DataError)
    if not callable(found):
        return Data.of(found, name=spec)
    try:
        made = found()
    except (Exception, SystemExit) as failed:
        raise DataError(f"calling {spec!r} failed: {type(failed).__name__}: {failed}") from failed
    return made if isinstance(made, Data) else Data.of(made, name=spec)
