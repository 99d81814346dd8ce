"""Ranks of the values of a row, and pairs of places that two rows order alike or not."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """How many of the pairs of places two rows of values order how; `(b,)` float64 each.

    Attributes:
        every: all pairs.
        equal_first: pairs that are equal in the first row.
        equal_second: pairs that are equal in the second.
        equal: pairs that are equal in both.
        opposite: pairs that one row orders one way and the other the other way.
    """

    every: Tensor
    equal_first: Tensor
    equal_second: Tensor
    equal: Tensor
    opposite: Tensor


def mean_ranks(values: Tensor) -> Tensor:
    """Ranks from 1 of `(b, d)`, equal values sharing the mean of theirs.

    Example:
        >>> mean_ranks(torch.tensor([[3.0, 1.0, 1.0]]))
        tensor([[3.0000, 1.5000, 1.5000]], dtype=torch.float64)
    """
    order = values.sort(dim=1).values
    below = torch.searchsorted(order, values.contiguous())
    upto = torch.searchsorted(order, values.contiguous(), right=True)
    return (below + upto + 1).double() / 2


def counted_pairs(first: Tensor, second: Tensor) -> Pairs:
    """Count the pairs of places of rows `(b, d)`.

    Example:
        >>> found = counted_pairs(torch.tensor([[1.0, 2.0, 2.0]]), torch.tensor([[2.0, 1.0, 1.0]]))
        >>> [int(each) for each in found]
        [3, 1, 1, 1, 2]
    """
    b, d = first.shape
    one, other = _dense(first), _dense(second)
    order = (one * d + other).argsort(dim=1)  # by the first row, equal values by the second
    every = torch.full((b,), d * (d - 1) / 2, dtype=torch.float64, device=first.device)
    return Pairs(every, _ties(one), _ties(other), _ties(one * d + other), _inversions(other.gather(1, order)))


def _dense(values: Tensor) -> Tensor:
    """How many values of the row are smaller, `(b, d)` int64."""
    return torch.searchsorted(values.sort(dim=1).values, values.contiguous())


def _ties(numbers: Tensor) -> Tensor:
    """Pairs of equal numbers: each place counts those after it in order that are the same."""
    order = numbers.sort(dim=1).values
    after = torch.searchsorted(order, order, right=True) - 1
    return (after - torch.arange(order.shape[1], device=order.device)).sum(dim=1).double()


def _inversions(numbers: Tensor) -> Tensor:
    """Pairs of places whose later number is the smaller one, by merging sorted halves of ever larger blocks."""
    b, d = numbers.shape
    size = 1 << max(0, (d - 1).bit_length())
    largest = numbers.new_full((b, size - d), d)  # behind all others, and larger: no pair with them is one
    blocks = torch.cat([numbers, largest], dim=1).reshape(b, size, 1)
    found = numbers.new_zeros(b)
    while blocks.shape[1] > 1:
        left, right = blocks[:, 0::2].contiguous(), blocks[:, 1::2].contiguous()
        larger = left.shape[2] - torch.searchsorted(left, right, right=True)
        found = found + larger.sum(dim=(1, 2))
        blocks = torch.cat([left, right], dim=2).sort(dim=2).values
    return found.double()
