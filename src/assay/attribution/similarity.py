"""How alike two maps of one input are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from assay.attribution.ranks import counted_pairs, mean_ranks
from assay.errors import InputError, SettingError

_WINDOW, _SIGMA = 11, 1.5
_DARK, _FLAT = 0.01**2, 0.03**2  # what keeps SSIM's quotients finite, as shares of the squared range


def top_k(a: Tensor, b: Tensor, k: int | None = None) -> Tensor:
    """Top-k intersection: the share of the k largest places of one map that are among the k largest of the other.

    Of places of equal value that do not all belong, those with the lowest numbers do.

    Args:
        a: maps, `(b, *shape)`.
        b: other maps of the same inputs.
        k: how many places; one in eight, rounded up, when None.

    Returns:
        `(b,)`, from 0 to 1.

    Raises:
        InputError: the maps differ in shape.
        SettingError: there are not so many places.

    Example:
        >>> top_k(torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[3.0, 1.0, 2.0]]), 2)
        tensor([0.5000], dtype=torch.float64)
    """
    first, second = _flat(a, b)
    k = places(first.shape[1], k)
    return (largest(first, k) & largest(second, k)).sum(dim=1).double() / k


def places(count: int, k: int | None) -> int:
    """How many of so many places are the largest ones.

    Raises:
        SettingError: there are not so many.
    """
    found = -(-count // 8) if k is None else k
    if not 1 <= found <= count:
        raise SettingError(f"k must be from 1 to {count}, the number of places of a map; got {k}.")
    return found


def largest(maps: Tensor, k: int) -> Tensor:
    """Which places of flat maps `(b, d)` are the k largest of their map, `(b, d)` bool."""
    order = maps.argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(maps, dtype=torch.bool).scatter_(1, order, True)


def kendall_tau(a: Tensor, b: Tensor) -> Tensor:
    r"""Kendall's rank correlation $\tau_b$: pairs of places in one order minus those in opposite orders, over all.

    Ties count as in $\tau_b = (c - d) / \sqrt{(n - n_a)(n - n_b)}$, with n pairs and $n_a$, $n_b$ ties. Pairs are
    counted by sorting: `d log^2 d` operations for d places.

    Args:
        a: maps, `(b, *shape)`.
        b: other maps of the same inputs.

    Returns:
        `(b,)`, from -1 to 1; NaN where all places of a map are equal.

    Raises:
        InputError: the maps differ in shape.

    References:
        Knight, "A computer method for calculating Kendall's tau with ungrouped data", Journal of the American
        Statistical Association 61, 1966, https://doi.org/10.1080/01621459.1966.10480879

    Example:
        >>> kendall_tau(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0, 2.0]]))
        tensor([0.3333], dtype=torch.float64)
    """
    pairs = counted_pairs(*_flat(a, b))
    every = pairs.every
    scale = ((every - pairs.equal_first) * (every - pairs.equal_second)).sqrt()
    both = every - pairs.equal_first - pairs.equal_second + pairs.equal
    return (both - 2 * pairs.opposite) / scale


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation: the correlation of the ranks, equal values sharing the mean of theirs.

    Args:
        a: maps, `(b, *shape)`.
        b: other maps of the same inputs.

    Returns:
        `(b,)`, from -1 to 1; NaN where all places of a map are equal.

    Raises:
        InputError: the maps differ in shape.

    Example:
        >>> spearman(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 3.0, 2.0]]))
        tensor([0.5000], dtype=torch.float64)
    """
    first, second = (mean_ranks(each) for each in _flat(a, b))
    first, second = (each - each.mean(dim=1, keepdim=True) for each in (first, second))
    return (first * second).sum(dim=1) / (first.square().sum(dim=1) * second.square().sum(dim=1)).sqrt()


def centre(maps: Tensor) -> Tensor:
    """Centres of mass of maps `(b, h, w)` in pixels, `(b, 2)`: row and column. Of maps `(b, d)` places, `(b, 1)`.

    Raises:
        InputError: the maps have other shapes.
    """
    if maps.ndim not in (2, 3):
        raise InputError(f"centres are of maps (b, h, w) or (b, d); got shape {tuple(maps.shape)}.")
    total = maps.flatten(1).sum(dim=1, keepdim=True)
    found = []
    for axis in range(1, maps.ndim):
        others = [each for each in range(1, maps.ndim) if each != axis]
        mass = maps.sum(dim=others) if others else maps
        found.append(mass @ torch.arange(maps.shape[axis], dtype=maps.dtype, device=maps.device))
    return torch.stack(found, dim=1) / torch.where(total > 0, total, torch.ones_like(total))


def centre_shift(a: Tensor, b: Tensor) -> Tensor:
    """How far the centre of mass moves, in pixels.

    Args:
        a: maps, `(b, h, w)` or `(b, d)`.
        b: other maps of the same inputs.

    Returns:
        `(b,)`.

    Raises:
        InputError: the maps differ in shape, or have no centre.

    Deviations:
        Ghorbani et al. round centres to whole pixels; here they are where they are.

    Example:
        >>> centre_shift(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]]))
        tensor([1.], dtype=torch.float64)
    """
    _flat(a, b)
    way: Tensor = torch.linalg.vector_norm(centre(a.double()) - centre(b.double()), dim=1)
    return way


def ssim(a: Tensor, b: Tensor) -> Tensor:
    r"""Structural similarity of maps.

    The mean over all places of $(2 m_a m_b + c_1)(2 s_{ab} + c_2) / ((m_a^2 + m_b^2 + c_1)(s_a + s_b + c_2))$. Means,
    variances and covariance are those under a Gaussian window of 11 x 11 pixels and standard deviation 1.5, where it
    lies inside the image; $c_1 = (0.01 L)^2$ and $c_2 = (0.03 L)^2$ with L the largest value of both maps. Of smaller
    maps the window is as large as an odd number of pixels allows.

    Args:
        a: maps, `(b, h, w)`.
        b: other maps of the same inputs.

    Returns:
        `(b,)`; 1 for equal maps.

    Raises:
        InputError: the maps differ in shape, or are no images.

    References:
        Wang, Bovik, Sheikh, Simoncelli, "Image quality assessment: from error visibility to structural similarity",
        IEEE Transactions on Image Processing 13(4), 2004, https://doi.org/10.1109/TIP.2003.819861

    Example:
        >>> maps = torch.rand(2, 16, 16)
        >>> bool(torch.allclose(ssim(maps, maps), torch.ones(2).double()))
        True
    """
    _flat(a, b)
    if a.ndim != 3:
        raise InputError(f"SSIM is of maps (b, h, w); got shape {tuple(a.shape)}.")
    first, second = a.double(), b.double()
    span = torch.maximum(first.flatten(1).amax(dim=1), second.flatten(1).amax(dim=1))
    span = torch.where(span > 0, span, torch.ones_like(span)).reshape(-1, 1, 1)
    first, second = first / span, second / span
    mean_a, mean_b = _blurred(first), _blurred(second)
    var_a, var_b = _blurred(first.square()) - mean_a.square(), _blurred(second.square()) - mean_b.square()
    both = _blurred(first * second) - mean_a * mean_b
    light = (2 * mean_a * mean_b + _DARK) / (mean_a.square() + mean_b.square() + _DARK)
    return (light * (2 * both + _FLAT) / (var_a + var_b + _FLAT)).flatten(1).mean(dim=1)


def inside(maps: Tensor, mask: Tensor) -> Tensor:
    """Localisation: the share of a map that lies inside a mask, `(b,)`.

    Args:
        maps: `(b, h, w)` or `(b, d)`.
        mask: true where it should lie, of the same shape.

    Raises:
        InputError: the shapes differ.

    Example:
        >>> inside(torch.tensor([[3.0, 1.0]]), torch.tensor([[True, False]]))
        tensor([0.7500], dtype=torch.float64)
    """
    values, allowed = _flat(maps, mask)
    total = values.sum(dim=1)
    return (values * allowed).sum(dim=1) / torch.where(total > 0, total, torch.ones_like(total))


def _blurred(maps: Tensor) -> Tensor:
    """Maps under the window, where it lies inside."""
    found = maps[:, None]
    for axis in (2, 3):
        size = min(_WINDOW, found.shape[axis] - (found.shape[axis] + 1) % 2)
        place = torch.arange(size, dtype=maps.dtype, device=maps.device) - size // 2
        window = (-place.square() / (2 * _SIGMA**2)).softmax(dim=0)
        shape = (1, 1, size, 1) if axis == 2 else (1, 1, 1, size)
        found = F.conv2d(found, window.reshape(shape))
    return found[:, 0]


def _flat(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both as `(b, d)` in double precision.

    Raises:
        InputError: they differ in shape.
    """
    if a.shape != b.shape or a.ndim < 2:
        raise InputError(f"maps are compared one by one, (b, ...) each; got {tuple(a.shape)} and {tuple(b.shape)}.")
    return a.flatten(1).double(), b.flatten(1).double()
