"""Answers written down as they come, so that a run whose server or total ends in the middle of a chunk loses none."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict, deque
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, final

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import Self

from assay.files import failure
from assay.oracle import granted_access

_KEY = 16  # bytes of an input's hash


@final
class Journal(nn.Module):
    """A model whose answers are kept in a file; those of an earlier attempt are given again in place of asking.

    An attack that is started again asks the same questions, since its random draws are keyed, and so comes to where it
    was without the model. Each answer is given once: a question that is asked twice was answered twice.

    The file is a line of JSON (type and shape of an answer) and then, for each answer, 16 bytes of the input's BLAKE2
    hash and the answer's own bytes. A last answer that was cut short is left out. A model that sends requests of
    limited size (`batch`) is asked in pieces of that size, so that each answered request is written down.

    Args:
        model: what is asked: inputs as a tensor, answers as one.
        path: the file.
        run: names the run: a file of another one is begun anew.

    Shapes:
        as the model
    """

    def __init__(self, model: Any, path: Path, run: str) -> None:
        super().__init__()
        self.model, self.access = model, granted_access(model)
        self.path, self.run = path, run
        self.training = isinstance(model, nn.Module) and model.training
        parts = model.modules() if isinstance(model, nn.Module) else ()
        sizes = [getattr(part, "batch", None) for part in parts if getattr(part, "remote", False)]
        self._together: int | None = min((size for size in sizes if isinstance(size, int)), default=None)
        self._known: defaultdict[bytes, deque[Tensor]] = defaultdict(deque)
        self._file: BinaryIO | None = None
        self._kind: Tensor | None = None  # an empty answer

    def __enter__(self) -> Self:
        self._read()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def forward(self, x: Tensor) -> Tensor:
        """Answers of an earlier attempt, and of the model where there are none."""
        keys = [_key(row) for row in x.cpu()]
        old = [self._known[key].popleft() if self._known.get(key) else None for key in keys]
        new = [place for place, answer in enumerate(old) if answer is None]
        if len(new) == len(old):
            return self._asked(x, keys)
        answers = torch.stack([answer if answer is not None else self._empty() for answer in old]).to(x.device)
        if new:
            places = torch.tensor(new, device=x.device)
            answers[places] = self._asked(x[places], [keys[place] for place in new]).to(answers)
        return answers

    def _asked(self, x: Tensor, keys: list[bytes]) -> Tensor:
        """The model's answers, written down request by request: a failure loses those of no earlier request."""
        found, together = [], self._together or max(1, len(x))
        for start in range(0, max(1, len(x)), together):
            found.append(self.model(x[start : start + together]))
            self._write(keys[start : start + together], found[-1])
        return torch.cat(found)

    def _empty(self) -> Tensor:
        assert self._kind is not None  # an answer was read
        return torch.zeros_like(self._kind)

    def _read(self) -> None:
        """Take in what an earlier attempt left, and cut off an answer that is not whole."""
        if not self.path.exists():
            return
        rows, self._kind, size = _content(self.path, self.run)
        if self._kind is None:
            self.path.unlink()
            return
        answers = rows[:, _KEY:].contiguous().view(self._kind.dtype).reshape(-1, *self._kind.shape)
        for row, answer in zip(rows[:, :_KEY].numpy(), answers, strict=True):
            self._known[row.tobytes()].append(answer)
        with self.path.open("r+b") as file:
            file.truncate(size)

    def _write(self, keys: list[bytes], answers: Tensor) -> None:
        """Keep answers, in the hands of the operating system before they are used."""
        rows = answers.detach().cpu().contiguous()
        try:
            if self._file is None:
                self._file = self._open(rows)
            values = rows.reshape(len(rows), -1).view(torch.uint8).numpy()
            self._file.write(b"".join(key + value.tobytes() for key, value in zip(keys, values, strict=True)))
            self._file.flush()
        except OSError as error:
            raise failure(self.path, error) from error

    def _open(self, rows: Tensor) -> BinaryIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        fresh = not self.path.exists()
        file = self.path.open("ab")
        if fresh:
            dtype = str(rows.dtype).removeprefix("torch.")
            told = {"run": self.run, "dtype": dtype, "shape": list(rows.shape[1:])}
            file.write(json.dumps(told).encode() + b"\n")
        return file


def count(path: Path, run: str) -> int:
    """How many answers a journal holds; 0 where there is none of this run."""
    return len(_content(path, run)[0]) if path.exists() else 0


def _content(path: Path, run: str) -> tuple[Tensor, Tensor | None, int]:
    """The whole records as bytes `(n, size)`, an answer of zeros, and the bytes of the file that are whole.

    There is no answer where the file is of another run or cannot be read.
    """
    head, _, body = path.read_bytes().partition(b"\n")
    try:
        told = json.loads(head)
        if told["run"] != run:
            return torch.zeros(0, 0), None, 0
        kind = torch.zeros(told["shape"], dtype=getattr(torch, told["dtype"]))
    except (ValueError, KeyError, AttributeError, TypeError):
        return torch.zeros(0, 0), None, 0
    size = _KEY + kind.numel() * kind.element_size()
    whole = len(body) // size * size
    rows = np.frombuffer(body[:whole], dtype=np.uint8).reshape(-1, size).copy()
    return torch.from_numpy(rows), kind, len(head) + 1 + whole


def _key(row: Tensor) -> bytes:
    return hashlib.blake2b(row.contiguous().numpy().tobytes(), digest_size=_KEY).digest()
