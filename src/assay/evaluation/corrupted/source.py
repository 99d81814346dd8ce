"""Where corrupted images come from: computed from clean ones, or read from copies on a disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor

from assay.corruptions import Corruption
from assay.data import Data
from assay.data.copies import Copies
from assay.errors import InputError
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

    def batch(self, cell: Cell, start: int, stop: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Read the clean images and corrupt them."""
        x, y, index = self.data.batch(start, stop)
        _check(x, start, stop)
        x = x.to(device)
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
    """

    copies: Copies
    data: Data | None
    limit: int | None

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
