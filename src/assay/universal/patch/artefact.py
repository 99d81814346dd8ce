"""A fitted patch, and what can be done with it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from assay.errors import InputError, StoreError
from assay.files import write_atomically
from assay.rng import Keyed, derive
from assay.threats import Linf
from assay.universal.fitted import Fitted
from assay.universal.patch.pasting import Pasting
from assay.universal.patch.picture import printed, sheet
from assay.universal.rates import Rates, measure_moves


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class UniversalPatch(Fitted):
    """One patch for all images and places, with where it comes from and what was measured.

    Attributes:
        patch: `(c, p, p)`, its values; of a circle only those inside it are ever seen.
        pasting: its shape and area, and how places are drawn.
        bounds: the smallest and largest valid input value.
        settings: method, target, seed, and the model and data it was fitted on, by name and digest.
        spent: passes over the samples, forwards and backwards in all, and seconds.
        environment: versions and machine.
        rates: what was measured, by the name of the samples: "fit" for those it was fitted on.

    Example:
        >>> patch = UniversalPatch.random(Pasting(area=0.2), torch.zeros(3, 16, 16))
        >>> patch.apply(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 3, 16, 16])
    """

    patch: Tensor
    pasting: Pasting = field(default_factory=Pasting)
    bounds: tuple[float, float] = (0.0, 1.0)

    kind: ClassVar[str] = "patch"
    what: ClassVar[str] = "universal patch"
    part: ClassVar[str] = "patch"

    def __repr__(self) -> str:
        found = ", ".join(f"{name} {rates.fooling.value:.1%}" for name, rates in self.rates.items())
        shape = "x".join(map(str, self.patch.shape))
        return f"UniversalPatch({shape}, {self.pasting!r}{', fooling: ' * bool(found)}{found})"

    @classmethod
    def random(
        cls, pasting: Pasting, like: Tensor, *, bounds: tuple[float, float] = (0.0, 1.0), seed: int = 0
    ) -> UniversalPatch:
        """A patch of random values, uniform between the bounds, to compare with.

        Args:
            pasting: shape, area and places.
            like: an image of the shape, type and device wanted, `(c, h, w)`.
            bounds: the smallest and largest valid input value.
            seed: key of the draw.
        """
        size = pasting.pixels(*like.shape[-2:])
        drawn = Keyed(derive(seed, "random"), torch.zeros(1, dtype=torch.int64, device=like.device))
        values = drawn.uniform(like.shape[0], size, size, low=bounds[0], high=bounds[1])[0].to(like)
        told = {"method": "random", "target": None, "seed": seed}
        return cls(patch=values, pasting=pasting, bounds=bounds, settings=told)

    @property
    def allowed(self) -> Linf:
        """Anything inside the bounds: places differ from image to image."""
        return Linf(self.bounds[1] - self.bounds[0], bounds=self.bounds)

    def baseline(self) -> UniversalPatch:
        """Random values in the same number, pasted in the same way; its target is counted, too."""
        seed = self.settings.get("seed", 0)
        drawn = Keyed(derive(seed, "random"), torch.zeros(1, dtype=torch.int64, device=self.patch.device))
        values = drawn.uniform(*self.patch.shape, low=self.bounds[0], high=self.bounds[1])[0].to(self.patch)
        told = {"method": "random", "target": self.settings.get("target"), "seed": seed}
        return UniversalPatch(patch=values, pasting=self.pasting, bounds=self.bounds, settings=told)

    def apply(self, x: Tensor, *, seed: int = 0, index: Tensor | None = None) -> Tensor:
        """The images with the patch, each at a place of its own.

        Args:
            x: images, `(b, c, h, w)`.
            seed: key of the places.
            index: the samples' own numbers, `(b,)`; their place in this batch when None.

        Raises:
            InputError: the inputs are no images, or have other channels than the patch.
            SettingError: the patch does not fit into images of this size.
        """
        if x.ndim != 4:
            raise InputError(f"a patch needs images (b, channels, height, width); got shape {tuple(x.shape)}.")
        numbers = torch.arange(len(x), device=x.device) if index is None else index.to(x.device)
        places = self.pasting.draw(Keyed(derive(seed, "measure"), numbers), *x.shape[-2:])
        return self.pasting.paste(x, self.patch.to(x), places)

    def measure(self, model: Any, data: Any, *, micro_batch: int | None = None, seed: int = 0) -> Rates:
        """Fooling rate and accuracy on any model and images, at one place drawn for each image.

        Args:
            model: a module or callable; one that grants labels only will do.
            data: (x, y), a map-style Dataset, or an `assay.Data`.
            micro_batch: rows per model call; found automatically when None.
            seed: key of the places.

        Raises:
            InputError: inputs cannot be used, or have other channels than the patch.
            ModelError: the model's output cannot be used.
            SettingError: the patch does not fit into the images.
        """
        return measure_moves(
            model,
            data,
            lambda x, index: self.apply(x, seed=seed, index=index) - x,
            threat=self.allowed,
            target=self.settings.get("target"),
            micro_batch=micro_batch,
        )

    @classmethod
    def files(cls) -> tuple[str, ...]:
        """The print, too."""
        return *super().files(), "patch-print.png"

    def draw_into(self, folder: Path, model: Any, data: Any) -> None:
        """Write the picture and the print."""
        self.print_to(folder / self.files()[3])
        self.picture(folder / self.files()[2], model, data)

    def own(self) -> dict[str, Any]:
        """How it is pasted, and the bounds."""
        return {"pasting": {**asdict(self.pasting), "scale": list(self.pasting.scale)}, "bounds": list(self.bounds)}

    @classmethod
    def from_content(cls, tensor: Tensor, content: dict[str, Any], **known: Any) -> UniversalPatch:
        """Build it from a file's tensor and from what `own` wrote.

        Raises:
            StoreError: a value lies outside of the bounds.
        """
        low, high = (float(bound) for bound in content["bounds"])
        if tensor.ndim != 3 or not bool(((tensor >= low) & (tensor <= high)).all()):
            raise StoreError(f"the patch has values outside of {low:g} to {high:g}, or is no picture.")
        return cls(patch=tensor, pasting=Pasting(**content["pasting"]), bounds=(low, high), **known)

    def print_to(self, path: str | os.PathLike[str], *, centimetres: float = 10.0, dpi: int = 300) -> None:
        """Write the patch as a PNG to be printed: white outside of a circle, with its size on paper.

        Args:
            path: the file.
            centimetres: length of its side on paper.
            dpi: pixels per inch.

        Raises:
            InputError: it has neither 1 nor 3 channels, or would be too small or too large to draw.
            StoreError: the file cannot be written.
        """
        write_atomically(Path(path), printed(self.patch, self.pasting.shape, self.bounds, centimetres, dpi))

    def picture(self, path: str | os.PathLike[str], model: Any = None, data: Any = None, *, examples: int = 8) -> None:
        """Draw the patch, and the first images without and with it.

        Args:
            path: the PNG file to write.
            model: for the decisions below the images.
            data: the images; without them the patch is drawn alone.
            examples: how many images.

        Raises:
            InputError: the patch can not be drawn.
            StoreError: the file cannot be written.
        """
        write_atomically(
            Path(path), sheet(self.patch, self.pasting.shape, self.bounds, self.apply, model, data, examples)
        )
