"""Corrupted copies of a data set on a disk, in the layouts of CIFAR-10-C and of ImageNet-C."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from assay.data.dataset import Data
from assay.data.folder import read_folder
from assay.errors import DataError

LABELS = "labels.npy"
SEVERITIES = range(1, 6)


@final
@dataclass(frozen=True)
class Copies:
    """A folder of corrupted images.

    CIFAR-10-C: `NAME.npy` with images `(5 n, height, width, 3)` of 8 bits, all of severity 1 first, and `labels.npy`
    with as many labels. ImageNet-C: image files in `NAME/SEVERITY/CLASS/`, where `NAME` may lie in one more folder,
    such as `noise/`.

    Args:
        path: the folder.

    Raises:
        DataError: it holds neither, or what it holds cannot be read.
    """

    path: Path
    _last: dict[Path, Data] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.slugs:
            raise DataError(
                f"{self.path} holds no corrupted images: neither NAME.npy files beside a {LABELS}, as in CIFAR-10-C, "
                "nor folders NAME/SEVERITY/CLASS, as in ImageNet-C."
            )

    @cached_property
    def slugs(self) -> dict[str, Path]:
        """The file or folder of each corruption."""
        if (self.path / LABELS).is_file():
            files = sorted(self.path.glob("*.npy"))
            return {file.stem: file for file in files if file.name != LABELS and not file.name.startswith(".")}
        found = (folder.parent for depth in ("*/1", "*/*/1") for folder in sorted(self.path.glob(depth)))
        return {folder.name: folder for folder in found if folder.is_dir()}

    @cached_property
    def samples(self) -> int:
        """Images of one corruption at one severity."""
        return len(self._array(next(iter(self.slugs)))) // len(SEVERITIES) if self._arrays else len(self._first)

    @cached_property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the class folders; None where labels are numbers alone."""
        return None if self._arrays else self._first.classes

    def fingerprint(self) -> str:
        """Short hash of the names and of some images."""
        digest = hashlib.blake2b(digest_size=8)
        for slug in self.slugs:
            digest.update(f"{slug} {self.data(slug, 1).fingerprint() if not self._arrays else ''}".encode())
        if self._arrays:
            digest.update(self._labels.tobytes())
            for slug in self.slugs:
                digest.update(np.ascontiguousarray(self._array(slug)[:: max(1, self.samples // 4)]).tobytes())
        return digest.hexdigest()

    def data(self, slug: str, severity: int) -> Data:
        """The images of one corruption at one severity.

        Raises:
            DataError: they are not there, or not as many, or of other classes than those of the other corruptions.
        """
        if slug not in self.slugs:
            raise DataError(f"{self.path} holds no {slug}; it has {', '.join(self.slugs)}.")
        if not self._arrays:
            return self._folder(self.slugs[slug] / str(severity))
        rows = slice((severity - 1) * self.samples, severity * self.samples)
        labels = torch.from_numpy(self._labels[rows].astype(np.int64))
        pictures: Any = _Pictures(self._array(slug)[rows], labels)
        return Data(pictures, labels, name=f"{slug} {severity}")

    def _folder(self, path: Path) -> Data:
        """The images of one folder; the last one is remembered, since finding its files takes long."""
        if path not in self._last:
            found = read_folder(f"folder:{path}")
            for what, own, others in (
                ("images", len(found), len(self._first)),
                ("classes", found.classes, self._first.classes),
            ):
                if own != others:
                    raise DataError(
                        f"{path} holds other {what} than {self._first_path} ({_said(own)} and {_said(others)}): all "
                        "corruptions and severities must hold the same. When writing them was interrupted, go on with "
                        "the same command."
                    )
            self._last.clear()
            self._last[path] = found
        return self._last[path]

    @property
    def _first_path(self) -> Path:
        return next(iter(self.slugs.values())) / "1"

    @cached_property
    def _first(self) -> Data:
        """Those that all others are compared with, of folders."""
        return read_folder(f"folder:{self._first_path}")

    @property
    def _arrays(self) -> bool:
        return (self.path / LABELS).is_file()

    @cached_property
    def _labels(self) -> Any:
        return _loaded(self.path / LABELS)

    def _array(self, slug: str) -> Any:
        found = _loaded(self.slugs[slug])
        images = found.ndim == 3 or (found.ndim == 4 and found.shape[3] in (1, 3))
        if found.dtype != np.uint8 or not images or len(found) != len(self._labels):
            raise DataError(
                f"{self.slugs[slug]} holds {found.dtype} of shape {found.shape}; expected uint8 images "
                f"({len(self._labels)}, height, width[, 1 or 3]), one for each row of {LABELS}."
            )
        if len(found) % len(SEVERITIES):
            raise DataError(f"{self.slugs[slug]} holds {len(found)} images, which are not five severities of as many.")
        return found


@final
@dataclass(frozen=True)
class _Pictures:
    """Images of an array that stays on the disk."""

    array: Any
    labels: Tensor

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        picture = torch.from_numpy(np.array(self.array[position], dtype=np.float32)) / 255.0
        channels_first = picture[None] if picture.ndim == 2 else picture.permute(2, 0, 1).contiguous()
        return channels_first, int(self.labels[position])


def _said(found: Any) -> str:
    return str(len(found)) if isinstance(found, tuple) else str(found)


def _loaded(path: Path) -> Any:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as unreadable:
        raise DataError(f"cannot read {path} as an array: {unreadable}.") from unreadable
