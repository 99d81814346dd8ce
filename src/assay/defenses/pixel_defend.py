"""PixelDefend: images are made likely again, and unlikely ones are detected."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from assay.defenses.base import InputDefense, Model, check_count
from assay.defenses.detector import Detector
from assay.defenses.generative import Density, as_levels, called, name_of, trained
from assay.defenses.logistic_mixture import LEVELS
from assay.transformations.base import check_images, check_range


@final
class PixelDefend(InputDefense):
    """Each value becomes the likeliest one within eps of it, given those before it: greedy, in raster order.

    `z_i = argmax_{|v - x_i| <= eps} p(v | z_1, ..., z_{i-1})` over the 256 levels, the channels of a pixel one after
    the other. It is computed in double precision, whatever the type of the inputs, so that the images do not depend on
    how they are batched. The gradient counts it as the identity.

    Args:
        density: the density p.
        eps: levels that a value may change by, of 255.
        above: images are changed only where they take more bits per value than this; None for all.

    Shapes:
        `(b, c, h, w)` as the density.

    Raises:
        SettingError: a setting is out of range, or names no density.
        ModelError: the density cannot be loaded.
        InputError: on a call, the inputs are no such images.

    References:
        Song, Kim, Nowozin, Ermon, Kushman, "PixelDefend: leveraging generative models to understand and defend against
        adversarial examples", ICLR 2018, https://arxiv.org/abs/1710.10766
        Broken by: Athalye, Carlini, Wagner, "Obfuscated gradients give a false sense of security", ICML 2018,
        https://arxiv.org/abs/1802.00420

    Example:
        >>> from assay.models.networks import PixelCNN
        >>> defense = PixelDefend(PixelCNN(width=2, dilations=(1,)), eps=16)
        >>> x = torch.rand(1, 1, 4, 4)
        >>> bool(((defense.transform(x) - x).abs() <= 16.5 / 255).all())
        True
    """

    differentiable = False
    gradient = "straight-through"

    def __init__(
        self, density: str | nn.Module = "fashion-pixelcnn", eps: int = 32, above: float | None = None
    ) -> None:
        super().__init__()
        self.eps = check_count("PixelDefend", "eps", eps, 0, LEVELS - 1)
        self.above = None if above is None else check_range("PixelDefend", "above", above, 0, float("inf"))
        self.network = trained("PixelDefend", "density", density, Density)  # type: ignore[type-abstract]
        self.density = name_of(density)

    def transform(self, x: Tensor) -> Tensor:
        """The likelier images."""
        check_images(x, self, (self.network.channels,))
        with torch.no_grad():
            rows = torch.ones(len(x), dtype=torch.bool, device=x.device)
            if self.above is not None:
                rows = self.network.double().bits(x.double()) > self.above
            found = x.clone()
            if bool(rows.any()):
                found[rows] = decoded(self.network.double(), as_levels(x[rows].double()), self.eps).to(x) / (LEVELS - 1)
        return found


def decoded(density: Density, levels: Tensor, eps: int) -> Tensor:
    """The likeliest images near some, greedily, pixel by pixel.

    Args:
        density: the network, in double precision.
        levels: whole numbers from 0 to 255, `(b, c, h, w)` in double precision.
        eps: levels that each may change by.
    """
    found = levels.clone()
    scan = density.scan(levels)
    reach = torch.arange(-eps, eps + 1, device=levels.device, dtype=levels.dtype)
    for row in range(levels.shape[2]):
        for column in range(levels.shape[3]):
            mixture, known = scan.at(row, column), list[Tensor]()
            for own in levels[:, :, row, column].unbind(dim=1):
                values = own[:, None] + reach
                likely = mixture.conditional(known, values)
                likely = likely.masked_fill((values < 0) | (values > LEVELS - 1), -torch.inf)
                known.append(values.gather(1, likely.argmax(dim=1, keepdim=True)).squeeze(1))
            found[:, :, row, column] = torch.stack(known, dim=1)
            scan.put(row, column, found[:, :, row, column])
    return found


@final
class DensityDetector(Detector):
    """Rejects images that take more bits per value than most do: PixelDefend's detector.

    Args:
        density: the density.
        thresholds: bits per value above which an image is rejected; `calibrate` finds the one that a share of inputs
            exceeds.

    Raises:
        SettingError: a setting is out of range, or names no density; on a call, there is no threshold.
        ModelError: the density cannot be loaded.

    Deviations:
        Gradients count the rounding to 256 levels as the identity. The paper tells p-values, the share of training
        images that are less likely, as `p_values` does. Where `calibrate` drops k of n images, those with p-values of
        at most `(k + 1) / (n + 1)` are rejected.

    References:
        Song, Kim, Nowozin, Ermon, Kushman, "PixelDefend: leveraging generative models to understand and defend against
        adversarial examples", ICLR 2018, https://arxiv.org/abs/1710.10766

    Example:
        >>> from assay.models.networks import PixelCNN
        >>> defense = DensityDetector(PixelCNN(width=2, dilations=(1,)), thresholds=(9.0,))
        >>> defense(nn.Flatten(), torch.rand(2, 1, 4, 4)).shape
        torch.Size([2, 17])
    """

    differentiable = False
    gradient = "surrogate"

    def __init__(self, density: str | nn.Module = "fashion-pixelcnn", thresholds: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.thresholds = self.checked(thresholds)
        self.network = trained("DensityDetector", "density", density, Density)  # type: ignore[type-abstract]
        self.density = name_of(density)

    @property
    def statistics(self) -> tuple[str, ...]:
        """What the statistic is called."""
        return ("bits per value",)

    def judged(self, model: Model, x: Tensor) -> tuple[Tensor, Any]:
        """Bits per value, and the model's answer."""
        return called(self.network.bits, x)[:, None], model(x)


def p_values(bits: Tensor, reference: Tensor) -> Tensor:
    """How often inputs are as unlikely as these: `(1 + #{r >= bits}) / (1 + n)`, `(b,)`.

    Args:
        bits: bits per value of inputs, `(b,)`.
        reference: those of n inputs that nobody has attacked, `(n,)`.

    Example:
        >>> p_values(torch.tensor([0.5, 9.0]), torch.tensor([1.0, 2.0, 3.0]))
        tensor([1.0000, 0.2500])
    """
    return (1 + (reference[None] >= bits[:, None]).sum(dim=1)) / (1 + len(reference))
