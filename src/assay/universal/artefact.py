"""A fitted universal perturbation, and what can be done with it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from assay import grammar
from assay.errors import InputError, StoreError
from assay.files import write_atomically
from assay.rng import Keyed, derive
from assay.threats import Threat
from assay.universal.fitted import Fitted
from assay.universal.method import Ball
from assay.universal.picture import draw
from assay.universal.rates import Rates, measure


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Universal(Fitted):
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

    kind: ClassVar[str] = "universal"
    what: ClassVar[str] = "universal perturbation"
    part: ClassVar[str] = "perturbation"

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

    @property
    def allowed(self) -> Threat:
        """The threat."""
        return self.threat

    def baseline(self) -> Universal:
        """`random` with this threat, shape and seed."""
        return self.random(self.threat, self.perturbation, seed=self.settings["seed"])

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

    def own(self) -> dict[str, Any]:
        """The threat."""
        return {"threat": repr(self.threat)}

    @classmethod
    def from_content(cls, tensor: Tensor, content: dict[str, Any], **known: Any) -> Universal:
        """Build it from a file's tensor and the threat that `own` wrote.

        Raises:
            StoreError: the perturbation does not lie in the threat's ball.
        """
        threat = grammar.threat(content["threat"])
        if not Ball(threat, torch.zeros_like(tensor)[None]).contains(tensor[None]):
            raise StoreError(f"the perturbation does not lie in {threat!r}.")
        return cls(perturbation=tensor, threat=threat, **known)

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
