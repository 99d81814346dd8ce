"""Adversarial examples on paper: what is left of them after printing and photographing, simulated.

Example:
    >>> import torch
    >>> from assay import physical
    >>> photos = physical.photograph(torch.rand(2, 3, 16, 16), photos=5)
    >>> photos.shape
    torch.Size([2, 5, 3, 16, 16])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, final

import torch
from torch import Tensor

from assay.attacks.base import evaluating
from assay.errors import InputError, SettingError
from assay.goals import Untargeted
from assay.inputs import check_classes, check_inputs
from assay.oracle import granted_access
from assay.oracle.memory import MicroBatch
from assay.oracle.verdicts import check_output, decisions
from assay.rng import Keyed, derive
from assay.transformations import (
    EOT,
    JPEG,
    Blur,
    Brightness,
    ColourResponse,
    Contrast,
    Noise,
    Perspective,
    Resample,
    Transformation,
)

CAMERA: tuple[Transformation, ...] = (
    Resample(
        4,  # a pixel of the input is a square of 4 x 4 sensor pixels
        ColourResponse(0.1, 0.2),  # inks and lamp
        Perspective(0.05, padding="border"),  # a corner is up to 5 % of the side from where it should be
        Blur(3.0),  # up to 0.75 pixels of the input
        Contrast(0.1),
        Brightness(0.1),
        Noise(0.05),  # per sensor pixel
        JPEG(60, 95),  # the file that the camera writes
    ),
)
"""Print and photograph, in this order: the colours of the print, a hand-held view of it from nearly in front, focus,
exposure, sensor noise, the camera's file, and the crop brought to the network's input size. The strengths are those of
a careful photograph of one printed image in good light; another camera is another tuple."""


@final
@dataclass(frozen=True, kw_only=True)
class Photographed:
    """How many images are classified rightly before and after the camera. With several photographs each one counts.

    Attributes:
        samples: images.
        photos: photographs of each image.
        clean_right: clean images that are classified rightly.
        adversarial: of those, images whose adversarial version is classified wrongly.
        destroyed: photographs of these that are classified rightly again.
        clean_photos_right: photographs of all clean images that are classified rightly.
        fooled: of these, those whose adversarial image is classified wrongly by a photograph from the same place.
    """

    samples: int
    photos: int
    clean_right: int
    adversarial: int
    destroyed: int
    clean_photos_right: int
    fooled: int

    @classmethod
    def nothing(cls, photos: int) -> Photographed:
        """No image yet."""
        names = [field.name for field in fields(cls) if field.name != "photos"]
        return cls(photos=photos, **dict.fromkeys(names, 0))

    @property
    def success_before(self) -> float | None:
        """Share of rightly classified images with an adversarial version, no camera between; None if there is none."""
        return _share(self.adversarial, self.clean_right)

    @property
    def success_after(self) -> float | None:
        """Share of rightly classified clean photographs whose adversarial counterpart is classified wrongly."""
        return _share(self.fooled, self.clean_photos_right)

    @property
    def destruction_rate(self) -> float | None:
        """Share of photographs of adversarial images that are classified rightly again; None without such images.

        `sum C(X) (1 - C(X_adv)) C(T(X_adv)) / sum C(X) (1 - C(X_adv))`, C being 1 for an image that is classified
        rightly and T the camera.
        """
        return _share(self.destroyed, self.adversarial * self.photos)

    def as_dict(self) -> dict[str, Any]:
        """Counts and shares, ready for JSON."""
        counts = {field.name: getattr(self, field.name) for field in fields(self)}
        shares = ("success_before", "success_after", "destruction_rate")
        return counts | {name: getattr(self, name) for name in shares}

    def __add__(self, other: Photographed) -> Photographed:
        """The counts of both, which are of different images.

        Raises:
            SettingError: they have different numbers of photographs.
        """
        if self.photos != other.photos:
            raise SettingError(f"counts of {self.photos} and of {other.photos} photos an image cannot be added.")
        names = [field.name for field in fields(self) if field.name != "photos"]
        return Photographed(photos=self.photos, **{name: getattr(self, name) + getattr(other, name) for name in names})


def photograph(
    x: Tensor,
    camera: Sequence[Transformation] = CAMERA,
    *,
    photos: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Print every image and photograph it.

    Args:
        x: images, `(b, channels, height, width)`, inside the bounds.
        camera: what happens to them, in order.
        photos: photographs of each, all different.
        seed: key of all draws.
        index: the images' own numbers, `(b,)` int64; their places when None. Images of one number (such as the clean
            and the adversarial version) are photographed in the same way.
        bounds: the smallest and largest valid input value.

    Returns:
        Photographs `(b, photos, channels, height, width)`.

    Raises:
        InputError: the images cannot be used, or the index has another length.
        SettingError: the number of photos is out of range, or the camera holds something else than transformations.
    """
    check_inputs(x, bounds)
    _check(photos, camera)
    views = EOT(*camera)
    numbers = _numbers(x, index).repeat_interleave(photos)
    stream = torch.arange(photos, device=x.device).repeat(len(x))
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    rng = Keyed(derive(seed, "camera"), numbers, dtype=wide, stream=stream)
    taken = views.views(x.repeat_interleave(photos, dim=0), rng, bounds)
    return taken.reshape(len(x), photos, *x.shape[1:])


def measure(
    model: Any,
    x: Tensor,
    x_adv: Tensor,
    y: Tensor,
    camera: Sequence[Transformation] = CAMERA,
    *,
    photos: int = 1,
    seed: int = 0,
    index: Tensor | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    micro_batch: int | None = None,
) -> Photographed:
    """Count what a classifier gets right before and after the camera.

    Args:
        model: a module or callable; one that grants labels only will do.
        x: clean images, `(b, channels, height, width)`.
        x_adv: their adversarial versions.
        y: right labels, `(b,)`.
        camera: as for `photograph`.
        photos: photographs of each image.
        seed: key of all draws; they are others than those of a search with the same seed.
        index: as for `photograph`.
        bounds: as for `photograph`.
        micro_batch: images per model call; found automatically when None.

    Raises:
        InputError: images or labels cannot be used.
        ModelError: the model's output cannot be used.
        SettingError: as for `photograph`.

    References:
        Kurakin, Goodfellow, Bengio, "Adversarial examples in the physical world", ICLR 2017 workshop,
        https://arxiv.org/abs/1607.02533 (destruction rate)

    Example:
        >>> x = torch.rand(4, 1, 8, 8)
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        >>> measure(net, x, x, net(x).argmax(1), photos=3).success_after
        0.0
    """
    check_inputs(x_adv, bounds)
    _check(photos, camera)
    if x_adv.shape != x.shape:
        raise InputError(f"clean images have shape {tuple(x.shape)}, adversarial ones {tuple(x_adv.shape)}.")
    if y.shape != x.shape[:1]:
        raise InputError(f"labels must be (b,), one for each of {len(x)} images; got shape {tuple(y.shape)}.")
    numbers = torch.arange(len(x), device=x.device) if index is None else index
    rows = MicroBatch(model, x, micro_batch).rows
    step = max(1, rows // photos)
    total = Photographed.nothing(photos)
    with evaluating(model), torch.inference_mode(False), torch.no_grad():
        for start in range(0, len(x), step):
            some = slice(start, start + step)
            seen = [
                torch.cat(
                    [
                        images[some, None],
                        photograph(images[some], camera, photos=photos, seed=seed, index=numbers[some], bounds=bounds),
                    ],
                    dim=1,
                )
                for images in (x, x_adv)
            ]
            clean, moved = (_right(model, each, y[some], rows) for each in seen)
            total += _counted(clean, moved)
    return total


def _right(model: Any, seen: Tensor, y: Tensor, rows: int) -> Tensor:
    """Which of several pictures `(n, pictures, ...)` of each image are classified rightly, `(n, pictures)`."""
    flat = seen.flatten(0, 1)
    goal = Untargeted(y.to(seen.device).repeat_interleave(seen.shape[1]))
    found = []
    for start in range(0, len(flat), rows):
        part = torch.arange(start, min(start + rows, len(flat)), device=seen.device)
        output = model(flat[part])
        check_output(output, part)
        if isinstance(output, Tensor) and output.ndim == 2:
            check_classes(goal, output.shape[1])
        found.append(decisions(goal.at(part), output, granted_access(model)) == goal.classes[part])
    return torch.cat(found).reshape(seen.shape[:2])


def _counted(clean: Tensor, moved: Tensor) -> Photographed:
    """Counts from what is classified rightly, `(n, 1 + photos)`: the image itself, then its photographs."""
    adversarial = clean[:, 0] & ~moved[:, 0]
    return Photographed(
        samples=len(clean),
        photos=clean.shape[1] - 1,
        clean_right=int(clean[:, 0].sum()),
        adversarial=int(adversarial.sum()),
        destroyed=int(moved[adversarial, 1:].sum()),
        clean_photos_right=int(clean[:, 1:].sum()),
        fooled=int((clean[:, 1:] & ~moved[:, 1:]).sum()),
    )


def _numbers(x: Tensor, index: Tensor | None) -> Tensor:
    """The images' own numbers, `(b,)`.

    Raises:
        InputError: they are no whole numbers, or there is not one for each image.
    """
    numbers = torch.arange(len(x), device=x.device) if index is None else index.to(x.device)
    if numbers.is_floating_point() or numbers.ndim != 1:
        raise InputError(f"index must hold whole numbers (b,); got {numbers.dtype} of shape {tuple(numbers.shape)}.")
    if len(numbers) != len(x):
        raise InputError(f"index holds {len(numbers)} numbers for {len(x)} images.")
    return numbers.long()


def _check(photos: int, camera: Sequence[Transformation]) -> None:
    if isinstance(photos, bool) or not isinstance(photos, int) or not 1 <= photos <= 1 << 16:
        raise SettingError(f"photos must be a whole number from 1 to {1 << 16}; got {photos!r}.")
    if not isinstance(camera, Sequence):
        raise SettingError(f"camera must be a list of transformations, such as physical.CAMERA; got {camera!r}.")


def _share(count: int, of: int) -> float | None:
    return count / of if of else None
