"""What is kept of every fit: where it comes from, what was measured, and the file that holds it."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from typing_extensions import Self

from assay.errors import AssayError, StoreError
from assay.files import write_atomically
from assay.threats import Threat
from assay.universal.rates import Rate, Rates

FORMAT = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted(ABC):
    """Something that was fitted to many inputs at once.

    Attributes:
        settings: method, target, seed, and the model and data it was fitted on, by name and digest.
        spent: passes over the samples, forwards and backwards in all, and seconds.
        environment: versions and machine.
        rates: what was measured, by the name of the samples: "fit" for those it was fitted on.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    spent: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, Rates] = field(default_factory=dict)

    kind: ClassVar[str]  # of files, and of JSON documents
    what: ClassVar[str]  # in messages
    part: ClassVar[str]  # the attribute that is the tensor, and its name in files

    @abstractmethod
    def measure(self, model: Any, data: Any, *, micro_batch: int | None = None) -> Rates:
        """Fooling rate and accuracy on any model and samples."""

    @abstractmethod
    def baseline(self) -> Self:
        """A random one of the same size, to compare with."""

    @abstractmethod
    def picture(self, path: str | os.PathLike[str], model: Any = None, data: Any = None, *, examples: int = 8) -> None:
        """Draw it, and what it does to the first samples."""

    @property
    @abstractmethod
    def allowed(self) -> Threat:
        """What it may do to an input."""

    @classmethod
    def files(cls) -> tuple[str, ...]:
        """What a folder holds of it: the artefact, the record as JSON, pictures."""
        return f"{cls.kind}.safetensors", f"{cls.kind}.json", f"{cls.kind}.png"

    def draw_into(self, folder: Path, model: Any, data: Any) -> None:
        """Write the pictures of `files`."""
        self.picture(folder / self.files()[2], model, data)

    @abstractmethod
    def own(self) -> dict[str, Any]:
        """What tells its set of allowed values, for JSON."""

    @classmethod
    @abstractmethod
    def from_content(cls, tensor: Tensor, content: dict[str, Any], **known: Any) -> Self:
        """Build it from a file's tensor, from what `own` wrote, and from the fields that all have.

        Raises:
            StoreError: the tensor does not belong to the rest.
        """

    def fooling_rate(self, model: Any, data: Any) -> Rate:
        """Share of the samples whose decision it changes, right or wrong as that was: (value, low, high)."""
        return self.measure(model, data).fooling

    def with_rates(self, name: str, rates: Rates) -> Self:
        """The same with what was measured on further samples."""
        return replace(self, rates={**self.rates, name: rates})

    def as_dict(self) -> dict[str, Any]:
        """Everything but the numbers themselves, for JSON."""
        return {
            "format": FORMAT,
            **self.own(),
            "shape": list(self.tensor.shape),
            "settings": self.settings,
            "spent": self.spent,
            "environment": self.environment,
            "rates": {name: rates.as_dict() for name, rates in self.rates.items()},
        }

    @property
    def tensor(self) -> Tensor:
        """What was fitted."""
        found: Tensor = getattr(self, self.part)
        return found

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file: the tensor under its name, and `as_dict` as JSON in the metadata.

        Raises:
            StoreError: the file cannot be written; what was there is unchanged.
        """
        tensors = {self.part: self.tensor.detach().cpu().contiguous()}
        write_atomically(Path(path), save(tensors, metadata={f"assay_{self.kind}": json.dumps(self.as_dict())}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote, from the file or from the folder of a run that holds it.

        Raises:
            StoreError: the file cannot be read, holds something else, or was altered.
        """
        path = Path(path)
        if path.is_dir():
            path = path / cls.files()[0]
        try:
            with safe_open(path, framework="pt") as file:
                content = json.loads((file.metadata() or {})[f"assay_{cls.kind}"])
                tensor = file.get_tensor(cls.part)
        except FileNotFoundError:
            raise StoreError(f"there is no file {path}.") from None
        except (KeyError, ValueError) as error:
            raise StoreError(f"{path} is not a {cls.what} of assay.") from error
        except (SafetensorError, OSError) as error:
            raise StoreError(f"{path} cannot be read as safetensors: {error}") from error
        if content["format"] != FORMAT:
            raise StoreError(f"{path} was written by a newer assay (format {content['format']}): update assay.")
        try:
            rates = {name: Rates.from_dict(found) for name, found in content["rates"].items()}
            told = {name: dict(content[name]) for name in ("settings", "spent", "environment")}
            return cls.from_content(tensor, content, rates=rates, **told)
        except StoreError as error:
            raise StoreError(f"{path} was altered: {error}") from error
        except (KeyError, TypeError, AssayError) as error:
            raise StoreError(f"{path} does not say what belongs to a {cls.what}: {error}") from error
