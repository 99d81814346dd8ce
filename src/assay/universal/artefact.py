"""A fitted universal perturbation: what can be done with it, and the file that keeps it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from assay import grammar
from assay.errors import AssayError, InputError, StoreError
from assay.evaluation.files import write_atomically
from assay.rng import Keyed, derive
from assay.threats import Threat
from assay.universal.method import Ball
from assay.universal.picture import draw
from assay.universal.rates import Rate, Rates, measure

FORMAT = 1
_KEY = "assay_universal"


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Universal:
    """One perturbation for all inputs, with where it comes from and what was measured.

    Attributes:
        perturbation: `(*shape)`, what is added to every input.
        threat: the ball that it belongs to.
        settings: method, target, seed, and the model and data it was fitted on, by name and digest.
        spent: passes over the samples, forwards and backwards in all, and seconds.
        environment: versions and machine.
        rates: what was measured, by the name of the samples: "fit" for those it was fitted on.

    Example:
        >>> import assay
        >>> model, x = torch.nn.Linear(4, 3), torch.rand(20, 4)
        >>> found = assay.fit_universal(model, (x, torch.zeros(20, dtype=torch.int64)), threat="linf:0.1", epochs=2)
        >>> found.apply(x).shape, bool((found.perturbation.abs() <= 0.1).all())
        (torch.Size([20, 4]), True)
    """

    perturbation: Tensor
    threat: Threat
    settings: dict[str, Any] = field(default_factory=dict)
    spent: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    rates: dict[str, Rates] = field(default_factory=dict)

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {rates.fooling.value:.1%}" for name, rates in self.rates.items())
        shape = "x".join(map(str, self.perturbation.shape))
        return f"Universal({shape}, {self.threat!r}{', fooling: ' * bool(found)}{found})"

    @classmethod
    def random(cls, threat: Threat, like: Tensor, *, seed: int = 0) -> Universal:
        """A random perturbation of the full size, to compare with: for Linf random signs times eps.

        Args:
            threat: `Linf` or `L2` with a budget; for L2 the direction is uniform.
            like: a perturbation or input of the shape, type and device wanted, `(*shape)`.
            seed: key of the draw.
        """
        ball = Ball(threat, torch.zeros_like(like)[None])
        drawn = Keyed(derive(seed, "random"), torch.zeros(1, dtype=torch.int64, device=like.device))
        grad = drawn.normal(*like.shape).to(like)
        v = ball.ascend(ball.zero, grad, float(threat.budget(ball.zero)))[0]
        return cls(perturbation=v, threat=threat, settings={"method": "random", "target": None, "seed": seed})

    def apply(self, x: Tensor) -> Tensor:
        """The perturbed inputs, clipped to the bounds.

        Raises:
            InputError: the inputs have another shape.
        """
        if x.shape[1:] != self.perturbation.shape:
            raise InputError(
                f"the perturbation is made for inputs of shape {tuple(self.perturbation.shape)}; these are "
                f"{tuple(x.shape[1:])}."
            )
        return self.threat.apply(x, self.perturbation.to(x))

    def measure(self, model: Any, data: Any, *, micro_batch: int | None = None) -> Rates:
        """Fooling rate and accuracy on any model and samples, see `assay.universal.measure`."""
        return measure(
            model,
            data,
            perturbation=self.perturbation,
            threat=self.threat,
            target=self.settings.get("target"),
            micro_batch=micro_batch,
        )

    def fooling_rate(self, model: Any, data: Any) -> Rate:
        """Share of the samples whose decision it changes, right or wrong as that was: (value, low, high)."""
        return self.measure(model, data).fooling

    def with_rates(self, name: str, rates: Rates) -> Universal:
        """The same with what was measured on further samples."""
        return replace(self, rates={**self.rates, name: rates})

    def as_dict(self) -> dict[str, Any]:
        """Everything but the numbers themselves, for JSON."""
        return {
            "format": FORMAT,
            "threat": repr(self.threat),
            "shape": list(self.perturbation.shape),
            "settings": self.settings,
            "spent": self.spent,
            "environment": self.environment,
            "rates": {name: rates.as_dict() for name, rates in self.rates.items()},
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file: the tensor `perturbation`, and `as_dict` as JSON in the metadata.

        Raises:
            StoreError: the file cannot be written; what was there is unchanged.
        """
        tensors = {"perturbation": self.perturbation.detach().cpu().contiguous()}
        write_atomically(Path(path), save(tensors, metadata={_KEY: json.dumps(self.as_dict())}))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Universal:
        """Read what `save` wrote.

        Raises:
            StoreError: the file cannot be read, is no universal perturbation, or was altered.
        """
        try:
            with safe_open(path, framework="pt") as file:
                content = json.loads((file.metadata() or {})[_KEY])
                perturbation = file.get_tensor("perturbation")
        except FileNotFoundError:
            raise StoreError(f"there is no file {path}.") from None
        except (KeyError, ValueError) as error:
            raise StoreError(f"{path} is not a universal perturbation of assay.") from error
        except (SafetensorError, OSError) as error:
            raise StoreError(f"{path} cannot be read as safetensors: {error}") from error
        if content["format"] != FORMAT:
            raise StoreError(f"{path} was written by a newer assay (format {content['format']}): update assay.")
        try:
            threat = grammar.threat(content["threat"])
            rates = {name: Rates.from_dict(found) for name, found in content["rates"].items()}
            told = {name: dict(content[name]) for name in ("settings", "spent", "environment")}
        except (KeyError, TypeError, AssayError) as error:
            raise StoreError(f"{path} does not say what belongs to a universal perturbation: {error}") from error
        if not Ball(threat, torch.zeros_like(perturbation)[None]).contains(perturbation[None]):
            raise StoreError(f"{path} was altered: the perturbation does not lie in {threat!r}.")
        return cls(perturbation=perturbation, threat=threat, rates=rates, **told)

    def picture(self, path: str | os.PathLike[str], model: Any = None, data: Any = None, *, examples: int = 8) -> None:
        """Draw the perturbation, scaled to full contrast, and what it does to the first samples.

        Args:
            path: the PNG file to write.
            model: for the decisions below the samples.
            data: the samples; without them the perturbation is drawn alone.
            examples: how many samples.

        Raises:
            InputError: the inputs are no images and too long to be drawn as a strip.
            StoreError: the file cannot be written.
        """
        write_atomically(Path(path), draw(self.perturbation, self.threat, model, data, examples))
