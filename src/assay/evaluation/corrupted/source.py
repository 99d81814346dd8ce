"""Where corrupted images come from: computed from clean ones, or read from copies on a disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, final

import torch
from torch import Tensor

from assay.corruptions import Corruption
from assay.corruptions.base import table_of
from assay.data import Data
from assay.data.copies import Copies
from assay.errors import DataError, InputError
from assay.inputs import check_inputs

Cell = tuple[type[Corruption], int] | None  # a corruption at a severity; None are the clean images


class Source(Protocol):
    """Images of every cell, part by part."""

    @property
    def name(self) -> str:
        """What reports call the data."""
        ...

    @property
    def samples(self) -> int:
        """Images in each cell."""
        ...

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, where known."""
        ...

    @property
    def has_clean(self) -> bool:
        """Whether clean images are there."""
        ...

    @property
    def by_cell(self) -> bool:
        """Whether one cell after the other is the cheaper way to read all, or one part after the other."""
        ...

    def fingerprint(self) -> str:
        """Short hash of what the images are made of."""
        ...

    def batch(self, cell: Cell, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Images, labels and numbers of one part of a cell; images on the device."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class Computed:
    """Clean images, corrupted when they are asked for.

    Attributes:
        data: the clean images.
        table: whose parameters; by the size of the images when None.
        seed: key of all draws.
    """

    data: Data
    table: str | None
    seed: int
    has_clean: bool = True
    by_cell: bool = False
    _last: dict[tuple[int, int, torch.device], tuple[Tensor, Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def name(self) -> str:
        """That of the data."""
        return self.data.name

    @property
    def samples(self) -> int:
        """Clean images."""
        return len(self.data)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Those of the data."""
        return self.data.classes

    def fingerprint(self) -> str:
        """That of the clean images."""
        return self.data.fingerprint()

    @property
    def own_table(self) -> str:
        """Whose parameters these images have."""
        return self.table or table_of(tuple(self.data[0][0].shape))

    def batch(self, cell: Cell, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Corrupt the clean images, which are read once for all cells of a part."""
        part = start, stop, device
        if part not in self._last:
            x, y, index = self.data.batch(start, stop)
            _check(x, start, stop)
            self._last.clear()
            self._last[part] = x.to(device), y, index
        x, y, index = self._last[part]
        if cell is None:
            return x, y, index
        kind, severity = cell
        return kind(severity=severity, table=self.table)(x, seed=self.seed, index=index), y, index


@final
@dataclass(frozen=True, kw_only=True)
class Read:
    """Copies that were corrupted before.

    Attributes:
        copies: where they are.
        data: the clean images, where they are known.
        limit: use only the first so many images of each cell.

    Raises:
        DataError: the clean images are not those of the copies.
    """

    copies: Copies
    data: Data | None
    limit: int | None
    by_cell: bool = True

    def __post_init__(self) -> None:
        if self.data is None:
            return
        if len(self.data) != self.samples:
            raise DataError(
                f"there are {len(self.data)} clean images and {self.samples} copies of each corruption and severity: "
                "give the data that the copies were made of, or none."
            )
        own, others = self.copies.classes, self.data.classes
        if own and others and own != others and sorted(own) == sorted(others):
            raise DataError(
                f"the classes of the copies are {', '.join(own[:3])}, ... in this order, those of the clean data "
                f"{', '.join(others[:3])}, ...: labels mean different classes."
            )
        if self.data.y is not None and not self._same_labels(self.data.y):
            raise DataError(
                "the clean images have other labels than the copies: give the data that the copies were made of, or "
                "none. (With a limit both must be in one order; class folders take turns.)"
            )

    def _same_labels(self, clean: Tensor) -> bool:
        """Whether labels are those of the copies: in any order, but one by one where a limit cuts both."""
        copied = self.copies.data(next(iter(self.copies.slugs)), 1).y
        if copied is None or self.samples < len(copied):
            return copied is None or torch.equal(copied[: self.samples], clean)
        return torch.equal(copied.sort().values, clean.sort().values)

    @property
    def name(self) -> str:
        """That of the folder."""
        return self.copies.path.name

    @property
    def samples(self) -> int:
        """Images in each cell."""
        return self.copies.samples if self.limit is None else min(self.limit, self.copies.samples)

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the class folders, or those of the clean data."""
        return self.copies.classes or (None if self.data is None else self.data.classes)

    @property
    def has_clean(self) -> bool:
        """Whether clean data were given."""
        return self.data is not None

    def fingerprint(self) -> str:
        """That of the copies."""
        return self.copies.fingerprint()

    def batch(self, cell: Cell, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Read the copies."""
        found: Any = self.data if cell is None else self.copies.data(cell[0].slug, cell[1])
        x, y, index = found.batch(start, stop)
        _check(x, start, stop)
        return x.to(device), y, index


def _check(x: Tensor, start: int, stop: int) -> None:
    try:
        check_inputs(x, (0.0, 1.0))
    except InputError as error:
        raise InputError(f"samples {start} to {stop - 1} (row 0 is sample {start}): {error}") from error
