"""Smoothing of images: total variation and the median."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor
from torch.nn.functional import pad

from assay.defenses.base import InputDefense, check_count
from assay.rng import stream
from assay.transformations.base import check_images, check_range

_STEP = 8.0**-0.5  # of both variables: the squared norm of the difference operator is below 8


@final
class TotalVariation(InputDefense):
    r"""Each channel of an image is replaced by the smoothest one near it, which random pixels alone have to agree with.

    $$\min_z \tfrac12 \sum_i m_i (z_i - x_i)^2 + \lambda \sum_i \lVert (\nabla z)_i \rVert_2,
      \qquad m_i \sim \operatorname{Bernoulli}(\text{keep})$$

    solved by the primal-dual iteration of Chambolle and Pock. The gradient counts it as the identity.

    Args:
        weight: lambda.
        keep: share of the pixels that the image is reconstructed from, above 0; with 1 nothing is drawn.
        steps: of the iteration.

    Shapes:
        `(b, c, h, w)`; all channels of a pixel are kept or left out together.

    Raises:
        SettingError: a setting is out of range.
        InputError: on a call, the inputs are no images.

    Deviations:
        The paper has the distance without its square, and solves for 0.03 times the norm.

    References:
        Guo, Rana, Cisse, van der Maaten, "Countering adversarial images using input transformations", ICLR 2018,
        https://arxiv.org/abs/1711.00117
        Chambolle, Pock, "A first-order primal-dual algorithm for convex problems with applications to imaging", 2011,
        https://doi.org/10.1007/s10851-010-0251-1

    Example:
        >>> x = torch.tensor([[[[0.0, 1.0]]]])
        >>> TotalVariation(0.25, keep=1.0, steps=200)(lambda x: x, x)
        tensor([[[[0.2500, 0.7500]]]])
    """

    differentiable = False
    gradient = "straight-through"

    def __init__(self, weight: float = 0.03, keep: float = 0.5, steps: int = 50) -> None:
        super().__init__()
        self.weight = check_range("TotalVariation", "weight", weight, 0, float("inf"))
        self.keep = check_range("TotalVariation", "keep", keep, 1e-3, 1)
        self.steps = check_count("TotalVariation", "steps", steps, 1)
        self.stochastic = self.keep < 1

    def transform(self, x: Tensor) -> Tensor:
        """The smoothed images."""
        check_images(x, self)
        kept = torch.ones_like(x[:, :1])
        if self.stochastic:
            kept = (stream(x).uniform(1, *x.shape[2:]) < self.keep).to(x)
        z, ahead = x * kept, x * kept
        down, right = torch.zeros_like(x), torch.zeros_like(x)
        for _ in range(self.steps):
            down = down + _STEP * pad(ahead.diff(dim=2), (0, 0, 0, 1))
            right = right + _STEP * pad(ahead.diff(dim=3), (0, 1))
            long = (down.square() + right.square()).sqrt().div(max(self.weight, 1e-12)).clamp_min(1)
            down, right = down / long, right / long
            back = z + _STEP * (pad(down, (0, 0, 1, 0)).diff(dim=2) + pad(right, (1, 0)).diff(dim=3))
            new = (back + _STEP * kept * x) / (1 + _STEP * kept)
            z, ahead = new, 2 * new - z
        return z.clamp(0, 1)


@final
class MedianFilter(InputDefense):
    """Each value becomes the median of a window around it: `x'_i = median {x_j: j in window of i}`, per channel.

    The image is mirrored at its edges. The gradient goes to the value that was chosen.

    Args:
        size: pixels of a side of the window; of an even number of values the upper of the two in the middle is taken,
            and the window reaches one pixel further up and left.

    Shapes:
        `(b, c, h, w)`, each side at least as long as half the window.

    Raises:
        SettingError: the size is below 2.
        InputError: on a call, the inputs are no images.

    References:
        Xu, Evans, Qi, "Feature squeezing: detecting adversarial examples in deep neural networks", NDSS 2018,
        https://arxiv.org/abs/1704.01155

    Example:
        >>> MedianFilter(3)(lambda x: x, torch.eye(3).reshape(1, 1, 3, 3)).flatten()[:3]
        tensor([1., 0., 0.])
    """

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.size = check_count("MedianFilter", "size", size, 2)

    def transform(self, x: Tensor) -> Tensor:
        """The filtered images."""
        check_images(x, self)
        before, after = self.size // 2, (self.size - 1) // 2
        wide = _mirrored(_mirrored(x, 2, before, after), 3, before, after)
        windows = wide.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4)
        found: Tensor = windows.kthvalue(self.size**2 // 2 + 1, dim=4).values
        return found


def _mirrored(x: Tensor, dim: int, before: int, after: int) -> Tensor:
    """The image with margins along a side that mirror it, its outermost pixels included."""
    side = x.shape[dim]
    place = torch.arange(-before, side + after, device=x.device) % (2 * side)
    return x.index_select(dim, torch.minimum(place, 2 * side - 1 - place))
