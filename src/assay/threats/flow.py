"""Spatial threats: every pixel is taken from a place near its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

import torch
from torch import Tensor

from assay.errors import ThreatError
from assay.threats.additive import HALF
from assay.threats.boxed import Boxed
from assay.threats.sampling import check_images, pixels, sample

_MEASURES = ("displacement", "roughness")
_TINY = 1e-8  # square pixels under the root of the roughness, which give it a gradient where the flow is even


@final
@dataclass(frozen=True, eq=False, repr=False)
class Flow(Boxed):
    r"""Every pixel is taken from a place at most eps away: $x'(p) = x(p + f(p))$, by bilinear interpolation.

    A move is the field f, `(b, 2, height, width)`: how far to the right and how far down the place lies, in the unit in
    which the image reaches from -1 at the centre of its first pixel to 1 at that of its last. So eps = 0.05 is 0.775
    pixels on an image 32 pixels wide. It limits both axes by itself.

    Places lie inside the image: `project` brings those beyond the outermost pixels back to them, which changes no image
    (what is outside looks like the nearest pixel), and keeps their gradients alive. Steepest ascent:
    `f + step * sign(grad)`. Start: uniform.

    `roughness` is what stAdv penalises: $\sum_p \sum_q \sqrt{\|\Delta\|_2^2 + 10^{-8}} - 10^{-4}$ over the pixels p and
    their neighbours q above, below, left and right, with $\Delta = f(p) - f(q)$ in pixels; each pair counts twice.

    Args:
        eps: the largest displacement along each axis; half the side of the image is 1.
        bounds: the smallest and largest valid input value.
        measure: what makes a flow small where no eps is given and the smallest is looked for: its largest
            "displacement", or its "roughness", which is what stAdv minimises.

    Shapes:
        x `(b, c, height, width)`.

    Raises:
        ThreatError: the measure is unknown, or is roughness and eps is given; at use, the inputs are not images.

    Deviations:
        From stAdv: a limit on displacements, places inside the image, and a roughness of 0 where the flow is even (the
        paper's has the root of its small constant for each pair of neighbours). From the combined functional attack:
        the roughness counts pixels, both directions and every pair twice, as in stAdv's formula.

    References:
        Xiao, Zhu, Li, He, Liu, Song, "Spatially transformed adversarial examples", ICLR 2018,
        https://arxiv.org/abs/1801.02612
        Laidlaw, Feizi, "Functional adversarial attacks", NeurIPS 2019, https://arxiv.org/abs/1906.00001 (the limit).

    Example:
        >>> import torch
        >>> x = torch.tensor([[[[0.0, 0.5, 1.0]]]])
        >>> right = torch.tensor([[[[1.0, 0.5, 0.0]], [[0.0, 0.0, 0.0]]]])  # 1, 1/2 and 0 pixels
        >>> Flow(1).apply(x, right)
        tensor([[[[0.5000, 0.7500, 1.0000]]]])
        >>> Flow(1).roughness(x, right)
        tensor([1.9996])
    """

    measure: Literal["displacement", "roughness"] = field(default="displacement", kw_only=True)

    name: ClassVar[str] = "flow"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.measure not in _MEASURES:
            raise ThreatError(f"measure must be 'displacement' or 'roughness'; got {self.measure!r}.")
        if self.measure == "roughness" and self.eps is not None:
            raise ThreatError(
                "Flow has no eps on roughness: Flow(measure='roughness') asks for the smoothest flow, which StAdv "
                "finds (--attack stadv); Flow(0.05) limits displacements."
            )

    def apply(self, x: Tensor, theta: Tensor) -> Tensor:
        """The image seen through the flow."""
        check_images(x, "Flow")
        row, column = pixels(x)
        right, down = self._pixels(x, theta).unbind(1)
        return sample(x, row + down, column + right, "border", self.bounds)

    def project(self, x: Tensor, theta: Tensor) -> Tensor:
        """Clipped to eps, and to places inside the image."""
        check_images(x, "Flow")
        inside = torch.minimum(torch.maximum(theta, self._to(x, 0)), self._to(x, 1))
        return super().project(x, inside)

    def size(self, x: Tensor, theta: Tensor) -> Tensor:
        """The largest displacement along an axis, or the roughness."""
        return super().size(x, theta) if self.measure == "displacement" else self.roughness(x, theta)

    def roughness(self, x: Tensor, theta: Tensor) -> Tensor:
        """How much neighbours' displacements differ, in pixels, `(b,)`."""
        check_images(x, "Flow")
        flow = self._pixels(x, theta)
        total = flow.new_zeros(len(x))
        for axis in (2, 3):
            square = flow.diff(dim=axis).square().sum(dim=1)
            # sqrt(square + tiny) - sqrt(tiny), exact where square is small
            total = total + 2 * (square / ((square + _TINY).sqrt() + _TINY**0.5)).flatten(1).sum(dim=1)
        return total.to(theta.dtype)

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        check_images(x, "Flow")
        return (2, *x.shape[2:])

    def _pixels(self, x: Tensor, theta: Tensor) -> Tensor:
        """A flow in pixels, in float32 at least."""
        flow = theta.float() if theta.dtype in HALF else theta
        half = flow.new_tensor([(x.shape[3] - 1) / 2, (x.shape[2] - 1) / 2])
        return flow * half[:, None, None]

    def _to(self, x: Tensor, end: int) -> Tensor:
        """The displacement of every pixel that leads to the first (0) or last (1) pixel of each axis, `(2, h, w)`."""
        row, column = pixels(x)
        height, width = x.shape[2:]
        right = (end * (width - 1) - column) / max((width - 1) / 2, 0.5)
        down = (end * (height - 1) - row) / max((height - 1) / 2, 0.5)
        return torch.stack([right.expand(height, -1), down.expand(-1, width)]).to(x.dtype)
