"""Linear filters that corruptions are made of: Gaussian blur, any small kernel, motion along a line, zoom."""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

_WIDE = 32  # places of a line that one product with a band gives
_FARTHEST = 5.0  # standard deviations of a motion that are looked at


def gaussian(x: Tensor, sigma: float, *, reach: float = 4.0) -> Tensor:
    """Gaussian blur of images `(b, c, height, width)`, cut off at `reach` standard deviations, edges repeated."""
    if round(reach * sigma) < 1:
        return x
    across = _along(x, float(sigma), reach)
    return _along(across.transpose(2, 3), float(sigma), reach).transpose(2, 3).contiguous()


def _along(x: Tensor, sigma: float, reach: float) -> Tensor:
    """The blur of every row: windows of it times a band of weights, which takes the products of an image alone."""
    side, band = x.shape[3], _band(sigma, reach).to(x)
    radius = (len(band) - _WIDE) // 2
    windows = pad(x, (radius, radius + -side % _WIDE, 0, 0), mode="replicate").unfold(3, len(band), _WIDE)
    found = torch.bmm(windows.reshape(len(x), -1, len(band)), band.expand(len(x), -1, -1))
    return found.view(*x.shape[:3], -1)[..., :side]


@cache
def _band(sigma: float, reach: float) -> Tensor:
    """What each place of a window gives to each of the places in its middle, `(wide + 2 radius, wide)`."""
    radius = int(reach * sigma + 0.5)
    weights = bell(radius, sigma)
    band = torch.zeros(_WIDE + 2 * radius, _WIDE, dtype=torch.float64)
    for place in range(_WIDE):
        band[place : place + 2 * radius + 1, place] = weights
    return band


def bell(radius: int, sigma: float) -> Tensor:
    """Gaussian weights of the offsets -radius to radius, with the sum 1, float64."""
    offset = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-offset.square() / (2 * sigma**2))
    return weights / weights.sum()


def reflected(x: Tensor, down: int, right: int) -> Tensor:
    """Images with a margin that mirrors them at their outermost pixels; margins may be wider than they are."""
    for dim, margin in ((2, down), (3, right)):
        if margin:
            last = x.shape[dim] - 1
            place = torch.arange(-margin, last + 1 + margin, device=x.device) % max(2 * last, 1)
            x = x.index_select(dim, torch.minimum(place, 2 * last - place) if last else place)
    return x


def correlated(x: Tensor, kernel: Tensor) -> Tensor:
    """Each place under a kernel: `sum_k kernel[k] x[i + k]`, x with margins as wide as half the kernel.

    Shapes:
        x `(b, c, h + 2 down, w + 2 right)`, kernel `(1 or b, 1, 2 down + 1, 2 right + 1)`, returns `(b, c, h, w)`.
    """
    size = [_fast(side) for side in x.shape[2:]]
    spectrum = torch.fft.rfft2(x, s=size) * torch.fft.rfft2(kernel, s=size).conj()
    height, width = (side - wide + 1 for side, wide in zip(x.shape[2:], kernel.shape[2:], strict=True))
    found: Tensor = torch.fft.irfft2(spectrum, s=size)
    return found[..., :height, :width]


@cache
def _fast(side: int) -> int:
    """The next even length with no prime factor above 5."""
    for length in range(side + side % 2, 2 * side + 4, 2):
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
    raise AssertionError("a power of two lies in between")


def moved(x: Tensor, angle: Tensor, radius: int, sigma: float) -> Tensor:
    """Motion away from each pixel along a line: half a bell of weights at whole steps, edges repeated.

    Args:
        x: images.
        angle: of the line, in degrees, one for each image.
        radius: half as many steps.
        sigma: standard deviation of the weights.
    """
    steps = min(2 * radius, math.ceil(_FARTHEST * sigma))
    step = torch.arange(steps + 1, dtype=torch.float64, device=x.device)
    weights = torch.exp(-step.square() / (2 * sigma**2))
    radians = angle.double()[:, None] * (math.pi / 180)
    down, right = ((step * way - 0.5).ceil().long() + steps for way in (radians.sin(), radians.cos()))
    wide = 2 * steps + 1
    kernel = torch.zeros(len(x), wide * wide, dtype=torch.float64, device=x.device)
    kernel.scatter_add_(1, down * wide + right, (weights / weights.sum()).expand(len(x), -1))
    return correlated(pad(x, (steps,) * 4, mode="replicate"), kernel.reshape(-1, 1, wide, wide).to(x))


def zoomed(x: Tensor, factor: float) -> Tensor:
    """The middle of images, enlarged by the factor, bilinear, and cut to their size again."""
    sides = x.shape[2:]
    for dim, side in enumerate(sides, start=2):
        kept = math.ceil(side / factor)
        x = x.narrow(dim, (side - kept) // 2, kept)
    found = interpolate(x, [round(side * factor) for side in x.shape[2:]], mode="bilinear", align_corners=True)
    for dim, side in enumerate(sides, start=2):
        found = found.narrow(dim, (found.shape[dim] - side) // 2, side)
    return found
