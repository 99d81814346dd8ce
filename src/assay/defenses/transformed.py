"""Image transformations as defenses, JPEG compression among them."""

from __future__ import annotations

import io
from typing import final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from assay.defenses.base import InputDefense
from assay.errors import SettingError
from assay.rng import stream
from assay.transformations import JPEG, Transformation
from assay.transformations.base import apply_each, check_images, draw_each
from assay.transformations.optics import check_transformations

_CODECS = ("simulated", "pillow")


@final
class Transformed(InputDefense):
    """Random transformations of each input before the model sees it, in their order.

    Args:
        transformations: any that `assay list transformations` shows, such as `Rotate(10)`, `Blur(1.0)`, `Noise(0.05)`.

    Raises:
        SettingError: there is none, or something is no transformation.

    Example:
        >>> from assay.transformations import Brightness
        >>> Transformed(Brightness(0.1))
        Transformed(Brightness(0.1))
    """

    stochastic = True

    def __init__(self, *transformations: Transformation) -> None:
        super().__init__()
        check_transformations("Transformed", transformations)
        if not transformations:
            raise SettingError("Transformed needs a transformation, such as Transformed(Blur(1.0)).")
        self.transformations = transformations

    def transform(self, x: Tensor) -> Tensor:
        """The transformed inputs."""
        return apply_each(self.transformations, x, draw_each(self.transformations, stream(x), tuple(x.shape[1:])))


@final
class JPEGDefense(InputDefense):
    """Compression to JPEG and back before the model sees an image.

    The stand-in of the gradient is the transformation `JPEG` of the same quality, whose roundings count as the identity
    on the way back.

    Args:
        quality: from 1 to 100.
        codec: "simulated" for the transformation `JPEG`, on any device; "pillow" for the library's encoder.

    Shapes:
        `(b, c, h, w)` with 1 or 3 channels.

    Raises:
        SettingError: a setting is out of range.
        InputError: on a call, the inputs are no such images.

    References:
        Dziugaite, Ghahramani, Roy, "A study of the effect of JPG compression on adversarial images", 2016,
        https://arxiv.org/abs/1608.00853
        Guo, Rana, Cisse, van der Maaten, "Countering adversarial images using input transformations", ICLR 2018,
        https://arxiv.org/abs/1711.00117

    Example:
        >>> JPEGDefense(50)(lambda x: x, torch.full((1, 1, 8, 8), 100 / 255)).mean().mul(255).round()
        tensor(100.)
    """

    differentiable = False
    gradient = "surrogate"

    def __init__(self, quality: int = 75, codec: str = "simulated") -> None:
        super().__init__()
        if codec not in _CODECS:
            raise SettingError(f"codec of JPEGDefense is 'simulated' or 'pillow'; got {codec!r}.")
        self._jpeg = JPEG(quality)
        self.quality, self.codec = quality, codec

    def transform(self, x: Tensor) -> Tensor:
        """The images as they come out of the file."""
        return self.stand_in(x) if self.codec == "simulated" else _filed(x, self.quality, self)

    def shown(self, x: Tensor) -> Tensor:
        """The same, with the stand-in's gradient."""
        return self.stand_in(x) if self.codec == "simulated" else super().shown(x)

    def stand_in(self, x: Tensor) -> Tensor:
        """The same, differentiable."""
        return self._jpeg.apply(x, torch.full((len(x),), self.quality, device=x.device))


def _filed(x: Tensor, quality: int, who: JPEGDefense) -> Tensor:
    """Images written to JPEG files and read again."""
    check_images(x, who, (1, 3))
    pixels = x.detach().mul(255).round().clamp(0, 255).to("cpu", torch.uint8).permute(0, 2, 3, 1).numpy()
    found = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(file, "JPEG", quality=quality)
        found.append(np.asarray(Image.open(file)).reshape(image.shape))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).to(x).div(255)
