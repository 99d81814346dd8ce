"""Images and labels in one NumPy archive."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from assay.data.dataset import Data
from assay.errors import DataError

_CHANNELS = (1, 3)


def read_npz(spec: str) -> Data:
    """Read ``npz:PATH``: arrays ``x`` (inputs) and ``y`` (integer labels).

    A uint8 ``x`` holds images and is divided by 255; (n, H, W) gains a channel, and (n, H, W, C) becomes
    (n, C, H, W) when the last dimension is 1 or 3 and the second is neither. A float ``x`` of any shape is kept
    as it is, in float32.

    Args:
        spec: "npz:PATH".

    Raises:
        DataError: unreadable file, missing array, or an array of another kind.
    """
    path = Path(spec.removeprefix("npz:")).expanduser()
    arrays = _read(path)
    x, y = arrays["x"], arrays["y"]
    if x.shape[:1] != y.shape[:1] or y.ndim != 1:
        raise DataError(f"{path}: x has shape {x.shape} and y {y.shape}; y needs one label per row of x.")
    if not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{path}: y is {y.dtype}; save integer class numbers.")
    return Data(_inputs(x, path), torch.from_numpy(y.astype(np.int64)), name=path.stem)


def _read(path: Path) -> dict[str, NDArray[np.generic]]:
    if not path.exists():
        raise DataError(f"no file {path}.")
    try:
        with path.open("rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path} holds a single array; save both: numpy.savez(path, x=..., y=...).")
            missing = [key for key in ("x", "y") if key not in file.files]
            if missing:
                raise DataError(
                    f"{path} has no array {' and '.join(map(repr, missing))}; it holds "
                    f"{', '.join(map(repr, file.files)) or 'nothing'}. "
                    "Save with numpy.savez(path, x=..., y=...)."
                )
            return {key: file[key] for key in ("x", "y")}
    except DataError:
        raise
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as unreadable:
        reason = "it holds no arrays of numbers" if "pickle" in str(unreadable) else str(unreadable)
        raise DataError(
            f"cannot read {path} as an npz archive: {reason}. It was cut short or is another kind of file; "
            "write it with numpy.savez(path, x=..., y=...)."
        ) from unreadable


def _inputs(x: NDArray[np.generic], path: Path) -> Tensor:
    if np.issubdtype(x.dtype, np.floating):
        return torch.from_numpy(x.astype(np.float32))
    if x.dtype != np.uint8:
        raise DataError(f"{path}: x is {x.dtype}; save images as uint8 in 0..255, or inputs as floats.")
    if x.ndim == 3:
        x = x[:, None]
    elif x.ndim == 4 and x.shape[-1] in _CHANNELS and x.shape[1] not in _CHANNELS:
        x = x.transpose(0, 3, 1, 2)
    return torch.from_numpy(np.ascontiguousarray(x)).to(torch.float32) / 255.0
