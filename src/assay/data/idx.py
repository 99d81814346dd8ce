"""The files that MNIST and its relatives come in: one of images and one of labels, big-endian, often gzipped."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from assay.data.dataset import Data
from assay.errors import DataError
from assay.importing import options

_PREFIXES = {"train": "train", "test": "t10k"}
_BYTES = 8  # the type code of unsigned bytes, the only one in use


def read_idx(spec: str) -> Data:
    """Read ``idx:FOLDER``: ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, with or without ``.gz``.

    Images are scaled to [0, 1] and gain a channel: (n, 1, H, W).

    Args:
        spec: "idx:FOLDER"; ``?part=test`` reads the files that begin with ``t10k``.

    Raises:
        DataError: no such folder or file, or one that is damaged.
    """
    text, chosen = options(spec.removeprefix("idx:"), ("part",), DataError)
    part = chosen.get("part", "train")
    if part not in _PREFIXES:
        raise DataError(f"part is {part!r} in {spec!r}; give train or test.")
    folder = Path(text).expanduser()
    images = array(_found(folder, f"{_PREFIXES[part]}-images-idx3-ubyte"), 3)
    labels = array(_found(folder, f"{_PREFIXES[part]}-labels-idx1-ubyte"), 1)
    if len(images) != len(labels):
        raise DataError(f"{folder} holds {len(images)} images and {len(labels)} labels of {part}.")
    x = torch.from_numpy(images.astype(np.float32))[:, None] / 255.0
    return Data(x, torch.from_numpy(labels.astype(np.int64)), name=f"{folder.resolve().name}-{part}")


def array(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array in one file.

    Args:
        path: the file; gzipped where its name ends in ``.gz``.
        dimensions: how many it has to have: 3 for images, 1 for labels.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError, zlib.error) as unreadable:
        raise DataError(f"cannot read {path}: {unreadable}") from unreadable
    start = 4 + 4 * dimensions
    if len(content) < start or tuple(content[:4]) != (0, 0, _BYTES, dimensions):
        raise DataError(f"{path} is no idx file of bytes with {dimensions} dimension{'s' * (dimensions > 1)}.")
    shape = tuple(int(n) for n in np.frombuffer(content, dtype=">u4", count=dimensions, offset=4))
    found = np.frombuffer(content, dtype=np.uint8, offset=start)
    if len(found) != np.prod(shape):
        raise DataError(f"{path} is cut off: it holds {len(found)} values of {int(np.prod(shape))}.")
    return found.reshape(shape)


def _found(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise DataError(f"{folder} has neither {name} nor {name}.gz: give the folder with the four files of MNIST's kind.")
