"""Images on rubber: moved corners and smooth random displacements, edges mirrored."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from assay.corruptions.draws import uniform
from assay.corruptions.filters import bell
from assay.rng import Keyed

_REACH = 3.0  # standard deviations at which the smoothing of a field is cut off


def affine(x: Tensor, shift: Tensor) -> Tensor:
    """The map that moves three points around the middle; images go on mirrored at their outermost pixels.

    Args:
        x: images `(b, c, height, width)`.
        shift: of each point, `(b, 3, 2)`, (right, down) in pixels.
    """
    height, width = x.shape[2:]
    middle = torch.tensor([width // 2, height // 2], device=x.device, dtype=torch.float64)
    reach = max(min(height, width) // 3, 1)
    corner = torch.tensor([[reach, reach], [reach, -reach], [-reach, -reach]], device=x.device, dtype=torch.float64)
    before = torch.cat([middle + corner, torch.ones(3, 1, device=x.device, dtype=torch.float64)], dim=1)
    after = (middle + corner + shift.double()).transpose(1, 2)
    forth = after @ torch.linalg.inv(before).T  # (b, 2, 3): where a point goes
    linear, offset = forth[:, :, :2], forth[:, :, 2]
    back = torch.linalg.inv(linear)
    rows, columns = _pixels(x)
    places = torch.stack([columns.expand(height, width), rows.expand(height, width)], dim=-1).double().reshape(-1, 2)
    source = (places - offset[:, None]) @ back.transpose(1, 2)
    return _sampled(x, source.reshape(len(x), height, width, 2).float(), outermost=True)


def displaced(x: Tensor, field: Tensor) -> Tensor:
    """Every pixel taken from a place nearby; images go on mirrored at their edges, the outermost pixels twice.

    Args:
        x: images `(b, c, height, width)`.
        field: displacement in pixels, (right, down), `(b, 2, height, width)`.
    """
    rows, columns = _pixels(x)
    return _sampled(x, torch.stack([columns + field[:, 0], rows + field[:, 1]], dim=-1), outermost=False)


def smooth(rng: Keyed, x: Tensor, sigma: float) -> Tensor:
    """Uniform draws on (-1, 1) after a Gaussian blur of sigma pixels, `(b, 2, height, width)`, edges mirrored."""
    field = uniform(rng, 2, *x.shape[2:]).mul_(2).sub_(1)
    down, right = (_mirroring(side, sigma).to(field) for side in x.shape[2:])
    return down @ field @ right.T


def _mirroring(side: int, sigma: float) -> Tensor:
    """Gaussian weights of each place for each place of a line whose ends are mirrors, `(side, side)` float64."""
    radius = int(_REACH * sigma + 0.5)
    weights = bell(radius, sigma) if radius else torch.ones(1, dtype=torch.float64)
    place = (torch.arange(side)[:, None] + torch.arange(-radius, radius + 1)) % (2 * side)
    place = torch.minimum(place, 2 * side - 1 - place)
    return torch.zeros(side, side, dtype=torch.float64).scatter_add_(1, place, weights.expand(side, -1))


def _pixels(x: Tensor) -> tuple[Tensor, Tensor]:
    """Row and column of every pixel, ready to be combined."""
    rows, columns = (torch.arange(side, device=x.device, dtype=x.dtype) for side in x.shape[2:])
    return rows[:, None], columns[None, :]


def _sampled(x: Tensor, place: Tensor, *, outermost: bool) -> Tensor:
    """Images at places (right, down) in pixels, bilinear, mirrored at the outermost pixels or at their outer edges."""
    sides = torch.tensor([x.shape[3], x.shape[2]], device=x.device, dtype=place.dtype)
    share = place * (2 / (sides - 1).clamp_min(1)) - 1 if outermost else (place * 2 + 1) / sides - 1
    return grid_sample(x, share, mode="bilinear", padding_mode="reflection", align_corners=outermost)
