"""Shards: the rows of one stage over one chunk of the data, as safetensors with a checked header."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from assay.evaluation.schema import SCHEMA_VERSION

CLEAN = "clean"
ADV = "adv"

_CLEAN_COLUMNS = {
    "index": torch.int64,
    "label": torch.int64,
    "prediction": torch.int64,
    "confidence": torch.float32,
}
_ATTACK_COLUMNS = {
    "index": torch.int64,
    "label": torch.int64,
    "prediction": torch.int64,
    "adv_prediction": torch.int64,
    "success": torch.uint8,
    "distance": torch.float64,
    "forwards": torch.int32,
    "backwards": torch.int32,
}
_ADV_COLUMNS = {"index": torch.int64, "x_adv": None}  # None: the type of the inputs


class Damaged(Exception):  # noqa: N818  (a state that the store handles, not an error for a user)
    """A shard that cannot be used: cut short, altered, or of another run. The store decides what follows."""


@final
@dataclass(frozen=True, kw_only=True)
class Shard:
    """One stage over the samples at positions ``start`` to ``stop`` of the data.

    Args:
        stage: Name of the stage; "clean" for the predictions on the unchanged inputs, "adv" for saved inputs.
        start: Position of the first sample of the chunk.
        stop: One past the position of the last.
        columns: One tensor a column, all of the same length: one row a sample that was asked.
        seconds: Time the stage took.
        examples: ``example_index``, ``example_x``, ``example_adv`` of a few broken samples, ``example_move`` where the
            difference does not tell it, or empty.
        partial: The total of queries was used up before the stage ended: it holds what was found until then.
    """

    stage: str
    start: int
    stop: int
    columns: dict[str, Tensor]
    seconds: float = 0.0
    examples: dict[str, Tensor] = field(default_factory=dict)
    partial: bool = False

    @property
    def left(self) -> int:
        """How many of its samples are right on the unchanged input, or withstood the stage."""
        if self.stage == CLEAN:
            return int((self.columns["prediction"] == self.columns["label"]).sum())
        return int((self.columns["success"] == 0).sum())

    def encode(self, settings_hash: str) -> bytes:
        """The bytes of the file; every column is converted to its documented type."""
        wanted = _wanted(self.stage)
        tensors = {name: self.columns[name].detach().cpu() for name in wanted}
        tensors = {name: tensor.to(wanted[name]).contiguous() for name, tensor in tensors.items()}
        tensors |= {name: tensor.detach().cpu().contiguous() for name, tensor in self.examples.items()}
        return save(
            tensors,
            metadata={
                "schema_version": str(SCHEMA_VERSION),
                "stage": self.stage,
                "start": str(self.start),
                "stop": str(self.stop),
                "settings_hash": settings_hash,
                "seconds": f"{self.seconds:.6f}",
                "digest": _digest(tensors),
                **({"partial": "yes"} if self.partial else {}),
            },
        )


def decode(path: Path, *, stage: str, start: int, stop: int, settings_hash: str) -> Shard:
    """Read one shard and check that it is whole and belongs to this place of this run.

    Raises:
        Damaged: It does not; the message says why.
        FileNotFoundError: There is no such file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a dict)
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, ValueError) as error:
        raise Damaged(f"it is not a whole safetensors file ({error})") from error
    expected = {"stage": stage, "start": str(start), "stop": str(stop), "settings_hash": settings_hash}
    for key, value in expected.items():
        if metadata.get(key) != value:
            raise Damaged(f"its {key} is {metadata.get(key)!r} where {value!r} belongs")
    if metadata.get("digest") != _digest(tensors):
        raise Damaged("its content does not agree with its own checksum")
    wanted = _wanted(stage)
    for name, dtype in wanted.items():
        if name not in tensors or (dtype is not None and tensors[name].dtype != dtype):
            raise Damaged(f"column {name!r} is missing or of another type")
    columns = {name: tensors[name] for name in wanted}
    if len({len(column) for column in columns.values()}) != 1:
        raise Damaged("its columns differ in length")
    examples = {name: tensor for name, tensor in tensors.items() if name.startswith("example_")}
    return Shard(
        stage=stage,
        start=start,
        stop=stop,
        columns=columns,
        seconds=float(metadata.get("seconds", 0.0)),
        examples=examples,
        partial="partial" in metadata,
    )


def _wanted(stage: str) -> dict[str, torch.dtype] | dict[str, torch.dtype | None]:
    if stage == CLEAN:
        return _CLEAN_COLUMNS
    return _ADV_COLUMNS if stage == ADV else _ATTACK_COLUMNS


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].dtype} {tuple(tensors[name].shape)}".encode())
        digest.update(tensors[name].contiguous().view(torch.uint8).numpy().tobytes() if tensors[name].numel() else b"")
    return digest.hexdigest()
