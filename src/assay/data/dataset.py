"""Data: images with labels and sample numbers, in memory or read when they are asked for."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from assay.errors import DataError, SettingError

_HASHED = 256  # inputs that are brought to the processor at once for the fingerprint


class Pairs(Protocol):
    """A map-style data set: ``len(pairs)`` and ``pairs[i]`` gives (x, y)."""

    def __len__(self) -> int:
        """Number of samples."""
        ...

    def __getitem__(self, position: int, /) -> Any:
        """One (x, y)."""
        ...


@final
@dataclass(frozen=True, eq=False)
class Data(Dataset[tuple[Tensor, int]]):
    """Inputs, labels and sample numbers of a data set; itself a torch map-style Dataset.

    Args:
        x: all inputs as one tensor, or a map-style data set that is read item by item.
        y: labels; None when only reading an item tells its label.
        name: what reports call the data.
        classes: class names in label order, where known.
        index: sample numbers, which key a sample's random draws; positions when None.

    Shapes:
        x: ``(n, *shape)``; y and index: ``(n,)`` int64.

    Raises:
        DataError: when lengths or types do not fit together.

    Example:
        >>> data = Data(torch.zeros(3, 1, 2, 2), torch.tensor([0, 1, 0]))
        >>> len(data), data.batch(1, 3)[2]
        (3, tensor([1, 2]))
    """

    x: Tensor | Pairs
    y: Tensor | None
    name: str = "data"
    classes: tuple[str, ...] | None = None
    index: Tensor | None = None

    def __post_init__(self) -> None:
        for what, values in (("labels", self.y), ("index", self.index)):
            if values is None:
                continue
            if values.is_floating_point() or values.is_complex() or values.dtype is torch.bool:
                raise DataError(f"{what} are {values.dtype}; pass integers (class numbers, not one-hot rows).")
            if tuple(values.shape) != (len(self.x),):
                raise DataError(
                    f"{what} have shape {tuple(values.shape)}, but there are {len(self.x)} samples: "
                    f"pass one integer per sample, shape ({len(self.x)},)."
                )
        if isinstance(self.x, Tensor) and self.y is None:
            raise DataError("inputs given as a tensor need labels: pass (x, y).")
        for field in ("y", "index"):
            values = getattr(self, field)
            if values is not None:
                object.__setattr__(self, field, values.to(torch.int64))

    @staticmethod
    def of(source: Any, *, name: str | None = None) -> Data:
        """Adopt data in any usual form.

        Args:
            source: a ``Data``, (x, y), (x, y, index), or a map-style torch Dataset, which is read lazily.
            name: what reports call it; kept or "data" when None.

        Raises:
            DataError: when it is none of these.

        Example:
            >>> Data.of((torch.rand(2, 3), torch.tensor([1, 0])), name="mine").name
            'mine'
        """
        if isinstance(source, Data):
            return source if name is None else replace(source, name=name)
        name = name or "data"
        if isinstance(source, tuple) and len(source) in (2, 3):
            x, y, *index = (torch.as_tensor(part) for part in source)
            if x.ndim == 0:
                raise DataError("x is a single number; pass a tensor of inputs, shape (n, ...).")
            return Data(x, y, name=name, index=index[0] if index else None)
        if isinstance(source, TensorDataset) and len(source.tensors) == 2:
            return Data(*source.tensors, name=name)
        if isinstance(source, DataLoader):
            raise DataError("a DataLoader was given; pass its data set (loader.dataset): batching is done inside.")
        lazy = hasattr(source, "__getitem__") and hasattr(source, "__len__")
        if lazy and not isinstance(source, str | bytes | dict | tuple | list | Tensor | np.ndarray):
            classes = getattr(source, "classes", None)
            return Data(source, None, name=name, classes=tuple(map(str, classes)) if classes else None)
        raise DataError(
            f"cannot use {type(source).__name__} as data; pass (x, y), (x, y, index), or a torch Dataset "
            "with __len__ and __getitem__ (an IterableDataset has neither)."
        )

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, position: int) -> tuple[Tensor, int]:
        if not -len(self) <= position < len(self):
            raise IndexError(f"sample {position} of {len(self)}")
        position %= len(self)
        if isinstance(self.x, Tensor):
            return self.x[position], int(self._labels()[position])
        return _pair(self.x[position], position)

    def batch(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, labels and sample numbers of positions ``start`` to ``stop`` (exclusive).

        Args:
            start: first position.
            stop: position after the last; cut at the end of the data.

        Shapes:
            ``(b, *shape)``, ``(b,)`` int64, ``(b,)`` int64

        Raises:
            DataError: when there are none, one cannot be read, or one differs in shape from the others.
        """
        rows = slice(start, min(stop, len(self)))
        if not 0 <= rows.start < rows.stop:
            raise DataError(f"no samples in {start}..{stop} of {self.name}, which has {len(self)}.")
        return self.gather(rows)

    def gather(self, rows: Tensor | slice) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, labels and sample numbers of any positions, in their order.

        Args:
            rows: positions, one or more; of a slice, tensors are views.

        Shapes:
            rows `(b,)` int64 -> ``(b, *shape)``, ``(b,)`` int64, ``(b,)`` int64

        Raises:
            DataError: when one cannot be read, or differs in shape from the others.
        """
        places = torch.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        index = places if self.index is None else self.index[rows]
        if isinstance(self.x, Tensor):
            return self.x[rows], self._labels()[rows], index
        pairs = [self[position] for position in places.tolist()]
        for position, (x, _) in zip(places.tolist(), pairs, strict=True):
            if x.shape != pairs[0][0].shape:
                raise DataError(
                    f"{self.name}: sample {int(places[0])} has shape {tuple(pairs[0][0].shape)}, "
                    f"sample {position} has {tuple(x.shape)}; bring all to one shape "
                    "(folder:PATH?size=224&mode=rgb resizes and converts images)."
                )
        return torch.stack([x for x, _ in pairs]), torch.tensor([y for _, y in pairs]), index

    def take(self, count: int | None) -> Data:
        """The first ``count`` samples (all when None or when there are fewer), still lazy where this is.

        Args:
            count: how many.

        Raises:
            SettingError: when it is below 1.
        """
        if count is None or count >= len(self):
            return self
        if count < 1:
            raise SettingError(f"limit is {count}; at least one sample is needed.")
        return replace(
            self,
            x=self.x[:count] if isinstance(self.x, Tensor) else _First(self.x, count),
            y=None if self.y is None else self.y[:count],
            index=None if self.index is None else self.index[:count],
        )

    def fingerprint(self) -> str:
        """Short hash of the class names, the length, the labels, the sample numbers and the inputs.

        All inputs of a tensor are in it; of data that are read lazily, four inputs and the labels that are known.
        """
        digest = hashlib.blake2b(digest_size=8)
        digest.update(repr((len(self), self.classes)).encode())
        for values in (self.y, self.index):
            if values is not None:
                digest.update(values.cpu().numpy().tobytes())
        if isinstance(self.x, Tensor):
            digest.update(repr((tuple(self.x.shape), str(self.x.dtype))).encode())
            for rows in torch.split(self.x.detach(), _HASHED):
                digest.update(rows.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
            return digest.hexdigest()
        for position in sorted({0, len(self) // 3, len(self) // 2, len(self) - 1}) if len(self) else []:
            x, y = self[position]
            digest.update(repr((tuple(x.shape), str(x.dtype), y)).encode())
            digest.update(x.detach().cpu().double().numpy().tobytes())
        return digest.hexdigest()

    def _labels(self) -> Tensor:
        assert self.y is not None  # __post_init__ holds it for tensors
        return self.y


@final
@dataclass(frozen=True)
class _First:
    """The first samples of a lazy data set."""

    pairs: Pairs
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, position: int) -> Any:
        return self.pairs[position]


def _pair(item: Any, position: int) -> tuple[Tensor, int]:
    """An item of a foreign data set as (tensor, int)."""
    if not isinstance(item, tuple | list) or len(item) != 2:
        size = f" of {len(item)}" if isinstance(item, tuple | list) else ""
        raise DataError(f"sample {position} is a {type(item).__name__}{size}; expected (x, y).")
    x, y = item
    try:
        label = int(y)
        exact = bool(label == y)
    except (TypeError, ValueError, OverflowError, RuntimeError) as wrong:
        raise DataError(f"the label of sample {position} is {y!r}; expected an integer.") from wrong
    if not exact:  # a float that int() would cut, or text
        raise DataError(f"the label of sample {position} is {y!r}; expected an integer.")
    if isinstance(x, Tensor):
        return x, label
    if isinstance(x, np.ndarray):
        return torch.from_numpy(x), label
    if hasattr(x, "getbands"):
        return pixels(x), label
    raise DataError(f"sample {position} is a {type(x).__name__}; expected a tensor, an array or a pillow image.")


def eight_bits(image: Any) -> Any:
    """A pillow image of 16 bits scaled to 8, where pillow's own conversion cuts off at 255; others as they are.

    Args:
        image: a ``PIL.Image.Image``.
    """
    if not image.mode.startswith("I"):
        return image
    from PIL import Image

    return Image.fromarray(np.round(np.array(image, dtype=np.float32).clip(0, 65535) / 257).astype(np.uint8))


def pixels(image: Any) -> Tensor:
    """A pillow image as float32 in [0, 1]: grey, of 8 or 16 bits, as (1, H, W), all others as RGB (3, H, W).

    Args:
        image: a ``PIL.Image.Image``.
    """
    if image.mode.startswith("I"):
        return torch.from_numpy(np.array(image, dtype=np.float32))[None] / 65535.0
    image = image.convert("L" if image.mode in ("1", "L", "LA") else "RGB")
    values = torch.from_numpy(np.array(image, dtype=np.float32)) / 255.0
    return values[None] if values.ndim == 2 else values.permute(2, 0, 1).contiguous()
