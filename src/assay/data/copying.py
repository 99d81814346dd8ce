"""Write corrupted copies of a data set in the layouts of CIFAR-10-C and of ImageNet-C."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from assay.corruptions import Corruption
from assay.data.copies import LABELS, SEVERITIES
from assay.data.dataset import Data
from assay.errors import DataError, SettingError
from assay.files import failure, write_atomically

LAYOUTS = ("npy", "folders")
SETTINGS = "copies.json"  # what the copies in a folder were made of, and how
_AT_ONCE = 256  # images

Told = Callable[[str, int], None]  # what was written, and how many images of it


def write_copies(
    data: Data,
    path: str | os.PathLike[str],
    kinds: Sequence[type[Corruption]],
    *,
    layout: str = "npy",
    table: str | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    told: Told | None = None,
) -> Path:
    """Write every corruption at all five severities; what is there already is left as it is.

    Args:
        data: the clean images.
        path: the folder; other files in it stay.
        kinds: the corruptions.
        layout: "npy" for `NAME.npy` and `labels.npy` as in CIFAR-10-C, "folders" for `NAME/SEVERITY/CLASS/` with PNG
            files as in ImageNet-C (whose files are JPEG of quality 85, and so differ from what was computed).
        table: as of `Corruption`.
        seed: key of all draws.
        device: where to compute.
        told: called after every part with the name of the corruption and how many images were written.

    Raises:
        SettingError: the layout is unknown.
        DataError: the folder holds copies of other data, or by other parameters or draws.
        StoreError: it cannot be written.

    Example:
        >>> import tempfile
        >>> from assay.corruptions import select
        >>> x, y = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 1, 0])
        >>> folder = write_copies(Data(x, y), tempfile.mkdtemp(), select("fog"))
        >>> np.load(folder / "fog.npy").shape, np.load(folder / "labels.npy").tolist()[:5]
        ((20, 8, 8, 3), [0, 1, 1, 0, 0])
    """
    if layout not in LAYOUTS:
        raise SettingError(f"layout has to be {' or '.join(map(repr, LAYOUTS))}; got {layout!r}.")
    folder, write = Path(path), _write_array if layout == "npy" else _write_images
    _check(folder, {"data": data.fingerprint(), "layout": layout, "table": table, "seed": seed})
    if layout == "npy":
        _write_labels(folder, data)
    for kind in kinds:
        built = [kind(severity=severity, table=table) for severity in SEVERITIES]
        write(folder, data, built, seed, torch.device(device), told or _silent)
    return folder


def _silent(name: str, count: int) -> None:
    """Nobody wants to know."""


def _parts(data: Data) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    for start in range(0, len(data), _AT_ONCE):
        yield start, *data.batch(start, start + _AT_ONCE)


def _pixels(built: Corruption, x: Tensor, seed: int, index: Tensor, device: torch.device) -> Any:
    """The corrupted images as 8-bit arrays, `(n, height, width[, channels])`; grey ones without channels."""
    found = built(x.to(device), seed=seed, index=index).mul(255).round().to(torch.uint8).cpu()
    return (found[:, 0] if found.shape[1] == 1 else found.permute(0, 2, 3, 1)).contiguous().numpy()


def _check(folder: Path, settings: dict[str, Any]) -> None:
    """Hold that what is in the folder was made like this, and note how where nobody has.

    Raises:
        DataError: it was made otherwise.
        StoreError: it cannot be noted.
    """
    path = folder / SETTINGS
    if not path.exists():
        write_atomically(path, (json.dumps(settings, indent=1) + "\n").encode())
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        other = [f"{name} {found[name]!r} -> {value!r}" for name, value in settings.items() if found[name] != value]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}, which says what the copies beside it are of, cannot be read: {error!r}.") from error
    if other:
        raise DataError(
            f"{folder} holds copies that were made otherwise ({', '.join(other)}), and what is there is not written "
            "again: choose another folder."
        )


def _write_labels(folder: Path, data: Data) -> None:
    labels = np.tile(torch.cat([y for _, _, y, _ in _parts(data)]).numpy(), len(SEVERITIES))
    path = folder / LABELS
    if path.exists():
        if not np.array_equal(np.load(path, allow_pickle=False), labels):
            raise DataError(f"{path} holds labels of other data: choose another folder.")
        return
    content = io.BytesIO()
    np.save(content, labels)
    write_atomically(path, content.getvalue())


def _write_array(
    folder: Path, data: Data, built: Sequence[Corruption], seed: int, device: torch.device, told: Told
) -> None:
    """One array; under a temporary name until it is whole."""
    slug = built[0].slug
    path, temporary = folder / f"{slug}.npy", folder / f".{slug}.npy.part"
    if path.exists():
        told(slug, len(data) * len(built))
        return
    try:
        array: Any = None
        for start, x, _, index in _parts(data):
            for row, each in enumerate(built):
                pixels = _pixels(each, x, seed, index, device)
                if array is None:
                    shape = (len(data) * len(built), *pixels.shape[1:])
                    array = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
                first = row * len(data) + start
                array[first : first + len(pixels)] = pixels
                told(slug, len(pixels))
        array.flush()
        os.replace(temporary, path)
    except OSError as error:
        raise failure(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_images(
    folder: Path, data: Data, built: Sequence[Corruption], seed: int, device: torch.device, told: Told
) -> None:
    """One file for each image, and a folder for each class, also for those without an image."""
    classes = _class_folders(data)
    for each in built:
        for name in classes:
            path = folder / each.slug / str(each.severity) / name
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise failure(path, error) from error
    for _, x, y, index in _parts(data):
        for each in built:
            root = folder / each.slug / str(each.severity)
            numbered = zip(y.tolist(), index.tolist(), strict=True)
            paths = [root / classes[label] / f"{number:08d}.png" for label, number in numbered]
            if not all(path.exists() for path in paths):
                for path, picture in zip(paths, _pixels(each, x, seed, index, device), strict=True):
                    content = io.BytesIO()
                    Image.fromarray(picture).save(content, "PNG")
                    write_atomically(path, content.getvalue())
            told(each.slug, len(x))


def _class_folders(data: Data) -> list[str]:
    """Names of folders whose sorted order is that of the labels: the classes' own where they are so already."""
    if data.classes is None:
        most = max(int(y.max()) for _, _, y, _ in _parts(data))
        return [f"{label:04d}" for label in range(most + 1)]
    safe = [re.sub(r"[^\w.-]+", "-", name).strip(".-") for name in data.classes]
    if safe == sorted(set(safe)) and all(safe):
        return safe
    return [f"{label:04d}_{name}" for label, name in enumerate(safe)]
