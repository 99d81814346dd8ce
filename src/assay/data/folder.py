"""Class folders of image files, read when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, final

import torch
from PIL import Image
from torch import Tensor

from assay.data.dataset import Data, eight_bits, pixels
from assay.errors import DataError
from assay.importing import options

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")


def read_folder(spec: str) -> Data:
    """Find the images of ``folder:PATH``, one folder per class.

    Labels are the positions of the class names in sorted order. The classes take turns, so that the first
    samples are a fair share of all classes. Pixels are scaled to [0, 1].

    Args:
        spec: "folder:PATH"; ``?size=224`` scales the shorter side to 224 and cuts the centre square,
            ``mode=rgb`` or ``mode=grey`` converts, and ``&`` joins both.

    Raises:
        DataError: no such folder, no class folders, no images. An image that cannot be read, or whose size
            differs, is reported when it is asked for.
    """
    text, chosen = options(spec.removeprefix("folder:"), ("size", "mode"), DataError)
    size, mode = chosen.get("size"), chosen.get("mode")
    if size is not None and not (size.isdecimal() and int(size)):
        raise DataError(f"size is {size!r} in {spec!r}; give a whole number of pixels.")
    if mode not in (None, "rgb", "grey"):
        raise DataError(f"mode is {mode!r} in {spec!r}; give rgb or grey.")
    root = Path(text).expanduser()
    if not root.is_dir():
        raise DataError(f"no folder {root}.")
    try:
        return _find(root, int(size) if size else None, mode)
    except OSError as unreadable:
        raise DataError(f"cannot read the folder {root}: {unreadable}") from unreadable


def _find(root: Path, size: int | None, mode: str | None) -> Data:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise DataError(f"{root} has no folders; put the images of each class into a folder named after it.")
    per_class = [sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES) for folder in folders]
    turns = zip_longest(*([(path, label) for path in paths] for label, paths in enumerate(per_class)))
    found = [pair for turn in turns for pair in turn if pair is not None]
    if not found:
        raise DataError(f"no images below {root}; files ending in {', '.join(SUFFIXES)} are read.")
    images = Images(tuple(path for path, _ in found), tuple(label for _, label in found), size, mode)
    return Data(images, torch.tensor(images.labels), name=root.resolve().name, classes=tuple(f.name for f in folders))


@final
@dataclass(frozen=True)
class Images:
    """Image files with labels: a lazy data set.

    Args:
        paths: the files.
        labels: one per file.
        size: scale the shorter side to this and cut the centre square; sizes must agree when None.
        mode: "rgb", "grey", or None to take each image as it is.
    """

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    size: int | None = None
    mode: str | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        path = self.paths[position]
        try:
            with Image.open(path) as file:
                image: Any = file
                if self.mode is not None:
                    image = eight_bits(image).convert("RGB" if self.mode == "rgb" else "L")
                if self.size is not None:
                    image = _square(image, self.size)
                return pixels(image), self.labels[position]
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as unreadable:
            raise DataError(
                f"cannot read the image {path}: {unreadable}. Replace it, or move it out of the folder."
            ) from unreadable


def _square(image: Any, size: int) -> Any:
    """The centre square of the image after its shorter side was scaled to ``size``."""
    scale = size / min(image.size)
    width, height = (max(size, round(side * scale)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
