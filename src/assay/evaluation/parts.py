"""Runs that ask a model about a data set part by part, and keep each part once it is done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from assay.data import Data, adopted
from assay.errors import SettingError
from assay.evaluation import prepare
from assay.evaluation.chunks import placement
from assay.evaluation.ranks import own_device
from assay.evaluation.record import Record
from assay.models.load import load_model, recorded

Columns = dict[str, Tensor]
Step = Callable[[int, int, dict[str, Any]], None]


@final
@dataclass(frozen=True, kw_only=True)
class Asked:
    """A model and the data that it is asked about.

    Attributes:
        name: what settings call the model.
        model: the model.
        data: the samples.
        batch: samples of a part.
        device: where the model's inputs go.
        dtype: what they are converted to; None leaves them as they are.
    """

    name: str
    model: Any
    data: Data
    batch: int
    device: torch.device
    dtype: torch.dtype | None

    @classmethod
    def about(cls, model: Any, data: Any, *, limit: int | None, batch: int, device: str | None) -> Asked:
        """Read both, and see where the model is.

        Args:
            model: a module, or what `load_model` loads.
            data: (x, y), a map-style Dataset, or what `load_data` loads.
            limit: use only the first so many samples.
            batch: samples of a part.
            device: where to compute; where the model is, or CUDA where there is some, when None.

        Raises:
            AssayError: the named error of whatever cannot be used.
        """
        if batch < 1:
            raise SettingError(f"batch must be at least 1; got {batch}.")
        samples, wanted = adopted(data, limit), prepare.device(device, 1)
        named = isinstance(model, str)
        network = load_model(model, device=wanted or own_device()) if named else model
        place, dtype = placement(network, wanted or own_device(), None if named else wanted)
        name = recorded(model) if named else type(model).__name__
        return cls(name=name, model=network, data=samples, batch=batch, device=place, dtype=dtype)

    @property
    def settings(self) -> dict[str, Any]:
        """What the settings of every such run hold."""
        return {
            "model": self.name,
            "model_digest": prepare.digest(self.model),
            "data": self.data.name,
            "data_digest": self.data.fingerprint(),
            "samples": len(self.data),
            "batch": self.batch,
        }

    def in_parts(
        self,
        part: Callable[[int, int], Columns],
        summary: Callable[[list[Columns]], dict[str, Any]],
        record: Record | None,
        step: Step | None,
    ) -> tuple[list[Columns], dict[str, Any]]:
        """The columns of all parts and their summary; what is kept already is read.

        Args:
            part: computes the columns of samples start to stop.
            summary: the numbers of the parts so far.
            record: where parts are kept; nowhere when None.
            step: called after each part with samples done, all samples, and the numbers so far.

        Raises:
            StoreError: a part cannot be written.
        """
        parts: list[Columns] = []
        total = len(self.data)
        try:
            for start in range(0, total, self.batch):
                stop = min(start + self.batch, total)
                found = record.find(start) if record else None
                if found is None:
                    found = {name: column.cpu() for name, column in part(start, stop).items()}
                    if record:
                        record.write(start, found)
                parts.append(found)
                if step:
                    step(stop, total, summary(parts))
        except BaseException:
            if record:
                record.save("interrupted", summary(parts) if parts else None)
            raise
        results = summary(parts)
        if record:
            record.save("done", results)
        return parts, results
