"""The search of Defense-GAN: numbers from which a generator makes the image nearest to a given one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from assay.rng import Keyed

_ROWS = {"cpu": 640, "cuda": 1 << 15}  # searches at once: what a cache holds, or what fills a card
_LATE, _LESS = 0.8, 0.1  # after this share of the steps the rate is this much of what it was


@runtime_checkable
class LinearEnd(Protocol):
    """A generator whose last layer is linear: `G(z) = head(features(z))`."""

    head: nn.Linear

    def features(self, z: Tensor) -> Tensor:
        """What the last layer is given, `(b, hidden)`."""


def draw(rng: Keyed, restarts: int, latent: int) -> Tensor:
    """Where descents begin: `z_0 ~ N(0, 1 / latent)`, `(b, restarts, latent)`; more of them begin with the same."""
    starts: Tensor = torch.stack([rng.normal(latent) for _ in range(restarts)], dim=1) * latent**-0.5
    return starts


def search(
    generator: nn.Module, x: Tensor, starts: Tensor, *, steps: int = 200, lr: float = 10.0, momentum: float = 0.7
) -> tuple[Tensor, Tensor]:
    r"""Numbers whose image is nearest to each input, the best of several descents.

    $$v \leftarrow m v + \nabla_z \tfrac1d \lVert G(z) - x \rVert_2^2, \qquad z \leftarrow z - \eta v$$

    with a tenth of the rate in the last fifth of the steps. All descents of all inputs go side by side. Where the
    generator ends with a linear layer, `G(z) = W h(z) + b`, the gradient at h is `2/d (W^T W h - W^T (x - b))`: a
    matrix as wide as h takes the place of one as long as an image.

    Args:
        generator: from `(n, latent)` to `(n, *shape)`; its parameters are left alone.
        x: inputs.
        starts: where each descent begins.
        steps: of a descent.
        lr: its rate.
        momentum: share of the velocity that is carried on.

    Shapes:
        x: `(b, *shape)`.
        starts: `(b, restarts, latent)`; returns the best numbers `(b, latent)`, and the mean square `(b,)` of what is
        left between each input and its image.

    Example:
        >>> generator = nn.Linear(2, 3, bias=False)
        >>> z, left = search(generator, generator(torch.ones(1, 2)), torch.zeros(1, 4, 2), steps=50, lr=1, momentum=0.5)
        >>> z.shape, left.shape
        (torch.Size([1, 2]), torch.Size([1]))
    """
    restarts = starts.shape[1]
    at_once = max(1, _ROWS.get(x.device.type, _ROWS["cuda"]) // restarts)
    found = [
        _searched(generator, x[top : top + at_once], starts[top : top + at_once], steps, lr, momentum)
        for top in range(0, len(x), at_once)
    ]
    return torch.cat([z for z, _ in found]), torch.cat([left for _, left in found])


def _searched(
    generator: nn.Module, x: Tensor, starts: Tensor, steps: int, lr: float, momentum: float
) -> tuple[Tensor, Tensor]:
    count, restarts, latent = starts.shape
    slope = _slope(generator, x, restarts)
    z = starts.reshape(-1, latent).clone()
    velocity = torch.zeros_like(z)
    for step in range(steps):
        velocity.mul_(momentum).add_(slope(z))
        z.sub_(velocity, alpha=lr if step < _LATE * steps else lr * _LESS)
    with torch.no_grad():
        left = (generator(z).flatten(1) - _each(x, restarts)).square_().mean(dim=1)
    left = torch.where(left.isfinite(), left, torch.inf).reshape(count, restarts)
    best = left.argmin(dim=1)
    rows = torch.arange(count, device=x.device)
    return z.reshape(count, restarts, latent)[rows, best], left[rows, best]


def _each(x: Tensor, restarts: int) -> Tensor:
    """Each input as a row of numbers, once for each of its descents."""
    return x.flatten(1).repeat_interleave(restarts, dim=0)


def _slope(generator: nn.Module, x: Tensor, restarts: int) -> Callable[[Tensor], Tensor]:
    """The gradient of each descent's distance at its numbers."""
    share = 2 / x[0].numel()
    if not isinstance(generator, LinearEnd):
        wanted = _each(x, restarts)

        def through_images(z: Tensor) -> Tensor:
            with torch.enable_grad():
                at = z.detach().requires_grad_()
                images = generator(at).flatten(1)
            return torch.autograd.grad(images, at, share * (images.detach() - wanted))[0]

        return through_images

    weight = generator.head.weight.detach()
    rest = x.flatten(1) if generator.head.bias is None else x.flatten(1) - generator.head.bias.detach()
    square, towards = share * (weight.T @ weight), share * _each(rest @ weight, restarts)

    def through_features(z: Tensor) -> Tensor:
        with torch.enable_grad():
            at = z.detach().requires_grad_()
            h = generator.features(at)
        return torch.autograd.grad(h, at, torch.addmm(-towards, h.detach(), square))[0]

    return through_features
