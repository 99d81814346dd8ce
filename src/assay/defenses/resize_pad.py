"""Random resizing and padding."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from assay.defenses.base import InputDefense, check_count
from assay.errors import InputError, SettingError
from assay.rng import stream
from assay.transformations.base import check_images, check_range

_LOWEST, _FINAL = 310 / 299, 331 / 299  # the paper's, of images with 299 pixels


@final
class RandomResizePad(InputDefense):
    """Each image is resized to a random size and put at a random place of a larger one.

    `x'[i, j] = x[(i - t) h // s, (j - l) w // s]` inside the square of s pixels at (t, l), `fill` around it; s is
    uniform on [lowest, final), t and l are uniform on [0, final - s]. Each image has draws of its own.

    Args:
        lowest: the smallest size, in pixels; 310/299 of the image's larger side when None.
        final: pixels of a side of the result, above every size; 331/299 of the larger side when None. The model has to
            take images of this size: with `lowest=24, final=28` those of 28 pixels stay as large as they are.
        fill: value of the border; 0.5 is the 0 of images in [-1, 1].

    Shapes:
        `(b, c, h, w)` -> `(b, c, final, final)`

    Raises:
        SettingError: a setting is out of range, or the sizes are none.
        InputError: on a call, the inputs are no images.

    Deviations:
        The competition entry also mirrored images, and averaged 30 passes: `Averaged(RandomResizePad(), passes=30)`.

    References:
        Xie, Wang, Zhang, Ren, Yuille, "Mitigating adversarial effects through randomization", ICLR 2018,
        https://arxiv.org/abs/1711.01991

    Example:
        >>> RandomResizePad(lowest=3, final=5)(lambda x: x, torch.ones(2, 1, 4, 4)).shape
        torch.Size([2, 1, 5, 5])
    """

    stochastic = True

    def __init__(self, lowest: int | None = None, final: int | None = None, fill: float = 0.5) -> None:
        super().__init__()
        for name, value in (("lowest", lowest), ("final", final)):
            if value is not None:
                check_count("RandomResizePad", name, value, 1)
        if lowest is not None and final is not None and lowest >= final:
            raise SettingError(f"RandomResizePad takes lowest < final; got lowest={lowest} and final={final}.")
        self.lowest, self.final = lowest, final
        self.fill = check_range("RandomResizePad", "fill", fill, 0, 1)

    def transform(self, x: Tensor) -> Tensor:
        """The images, resized and padded."""
        check_images(x, self)
        lowest, final = self._sizes(max(x.shape[2:]))
        rng = stream(x)
        size = rng.integers(lowest, final)
        corner = (rng.uniform(2) * (final - size + 1)[:, None]).long()  # 24 bits: below final - size + 1
        place = torch.arange(final, device=x.device)
        there, source = [], []
        for dim in (0, 1):
            offset = place - corner[:, dim, None]
            there.append((offset >= 0) & (offset < size[:, None]))
            source.append((offset * x.shape[2 + dim] // size[:, None]).clamp(0, x.shape[2 + dim] - 1))
        flat = (source[0][:, :, None] * x.shape[3] + source[1][:, None, :]).flatten(1)
        found = x.flatten(2).gather(2, flat[:, None].expand(-1, x.shape[1], -1))
        inside = (there[0][:, :, None] & there[1][:, None, :])[:, None]
        return torch.where(inside, found.reshape(*x.shape[:2], final, final), self.fill)

    def _sizes(self, side: int) -> tuple[int, int]:
        final = max(round(side * _FINAL), side + 2) if self.final is None else self.final
        lowest = min(round(side * _LOWEST), final - 1) if self.lowest is None else self.lowest
        if lowest >= final:
            raise InputError(f"{self!r} finds no size for images of {side} pixels: give lowest below final.")
        return lowest, final
