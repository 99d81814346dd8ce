"""The best pair of features by JSMA's saliency, without looking at every pair."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

_SMALL = 256  # features of a front whose pairs are all looked at
_AT_ONCE = 1 << 20  # pairs looked at together


def saliency(gain: Tensor, drop: Tensor) -> Tensor:
    """`gain * drop` where both are positive, else 0."""
    return gain.clamp(min=0) * drop.clamp(min=0)


def best_pair(gain: Tensor, drop: Tensor) -> tuple[Tensor, Tensor]:
    r"""The pair p != q with the largest `saliency(gain_p + gain_q, drop_p + drop_q)`, exactly.

    Neither sum falls when a feature of a pair is replaced by another that is at least as good in both values. Hence
    some best pair consists of features for which no such other exists besides their own partner: either both lie on
    the front (no other feature is at least as good in both values), or one lies behind exactly one feature, and that
    one is its partner. With the features sorted by falling gain, a feature's betters are those before it whose drop is
    not smaller, so that the running largest and second largest drop tell both kinds apart.

    The pairs of the second kind are as many as there are features. Those of the front are all looked at while it is
    short. On a long one gains fall and drops rise from place to place. The saliency's logarithm is a sum of concave
    functions of sums, so that for places i < k and j < l
    `log s(i, j) + log s(k, l) <= log s(i, l) + log s(k, j)`: the later a feature stands, the earlier stands its best
    partner. All best partners are so found by halving (a feature is its own best partner at most once).

    Time is `O(d log d)` and memory `O(d)`, whatever the values.

    Args:
        gain: what each feature adds to the first factor; -inf where it may not be chosen.
        drop: what it adds to the second; -inf there too.

    Returns:
        The pairs `(b, 2)` and their saliency `(b,)`; where it is 0 no pair counts, and the pair means nothing.

    Shapes:
        gain and drop `(b, d)`.

    Example:
        >>> gain, drop = torch.tensor([[3.0, 1.0, 0.0]]), torch.tensor([[0.0, 1.0, 2.0]])
        >>> best_pair(gain, drop)
        (tensor([[0, 2]]), tensor([6.]))
    """
    order = gain.argsort(dim=1, descending=True, stable=True)
    gain, drop = gain.gather(1, order), drop.gather(1, order)
    running, leader = drop.cummax(dim=1)
    largest = _shifted(running)
    second = _shifted(torch.minimum(drop, largest).cummax(dim=1).values)
    front = drop > largest
    partner = leader.roll(1, dims=1)
    behind = saliency(gain + gain.gather(1, partner), drop + drop.gather(1, partner))
    value, place = behind.masked_fill_(front | (drop <= second), 0).max(dim=1)
    pair = torch.stack([place, partner.gather(1, place[:, None]).squeeze(1)], dim=1)
    front_pair, front_value = _best_of_fronts(gain, drop, front)
    pair = torch.where((front_value >= value)[:, None], front_pair, pair)
    return order.gather(1, pair).sort(dim=1).values, torch.maximum(front_value, value)


def _shifted(values: Tensor) -> Tensor:
    """What held before each place."""
    return F.pad(values[:, :-1], (1, 0), value=-torch.inf)


def _best_of_fronts(gain: Tensor, drop: Tensor, front: Tensor) -> tuple[Tensor, Tensor]:
    """The best pair of marked features of each sample."""
    b, count = len(gain), front.sum(dim=1)
    pair, value = torch.zeros(b, 2, dtype=torch.int64, device=gain.device), gain.new_zeros(b)
    short = (count <= _SMALL).nonzero().squeeze(1)
    if len(short):
        length = max(int(count[short].max()), 2)
        for rows in torch.split(short, max(1, _AT_ONCE // length**2)):
            pair[rows], value[rows] = _best_of_short(gain[rows], drop[rows], front[rows], length)
    for one in (count > _SMALL).nonzero().squeeze(1).tolist():
        places = front[one].nonzero().squeeze(1)
        found, top = _best_of_long(gain[one, places], drop[one, places])
        pair[one], value[one] = places[found], top.to(value.dtype)
    return pair, value


def _best_of_short(gain: Tensor, drop: Tensor, front: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """All pairs of at most `length` marked features a sample."""
    row, place = front.nonzero(as_tuple=True)
    slot = (front.cumsum(dim=1) - 1)[row, place]
    places = torch.zeros(len(gain), length, dtype=torch.int64, device=gain.device)
    gains, drops = gain.new_full(places.shape, -torch.inf), drop.new_full(places.shape, -torch.inf)
    places[row, slot], gains[row, slot], drops[row, slot] = place, gain[row, place], drop[row, place]
    value = saliency(gains[:, :, None] + gains[:, None, :], drops[:, :, None] + drops[:, None, :])
    top, at = value.triu(diagonal=1).flatten(1).max(dim=1)
    return places.gather(1, torch.stack([at // length, at % length], dim=1)), top


def _best_of_long(gain: Tensor, drop: Tensor) -> tuple[Tensor, Tensor]:
    """The best pair of one front, `(n,)` by falling gain and rising drop.

    Every feature's best partner is found between those of two others, of which one stands before and one behind it:
    first for every 2^k-th feature, then for those halfway. In float64, so that rounding does not blur the order.
    """
    gain, drop, n = gain.double(), drop.double(), len(gain)
    partner = torch.zeros(n, dtype=torch.int64, device=gain.device)
    value = torch.zeros_like(gain)
    rows, low, high = (torch.tensor([at], device=gain.device) for at in (0, 0, n - 1))
    stride = 1 << (n - 1).bit_length()
    while True:
        partner[rows], value[rows] = _best_between(gain, drop, rows, low, high)
        stride //= 2
        if stride == 0:
            break
        rows = torch.arange(stride, n, 2 * stride, device=gain.device)
        low = torch.where(rows + stride < n, partner[(rows + stride).clamp(max=n - 1)], 0)
        high = partner[rows - stride]
    itself = partner == torch.arange(n, device=gain.device)
    for one in itself.nonzero().squeeze(1).tolist():  # partners fall from feature to feature, so there is at most one
        alone = saliency(gain[one] + gain, drop[one] + drop)
        alone[one] = 0
        value[one], partner[one] = alone.max(dim=0)
    top, one = value.max(dim=0)
    return torch.stack([one, partner[one]]), top


def _best_between(gain: Tensor, drop: Tensor, rows: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """The best partner of some features among places `low` to `high`, itself not excluded, and the saliency.

    Where no partner counts: the place before which no gain is too small, and so behind which every drop is.
    """
    count = high - low + 1
    which = torch.arange(len(rows), device=rows.device).repeat_interleave(count)
    place = torch.arange(len(which), device=rows.device) + (low + count - count.cumsum(0))[which]
    value = saliency(gain[rows[which]] + gain[place], drop[rows[which]] + drop[place])
    top = torch.segment_reduce(value, "max", lengths=count)
    best = (value == top[which]).nonzero().squeeze(1)
    partner = place[best[torch.searchsorted(best, count.cumsum(0) - count)]]
    none = torch.searchsorted(-gain, gain[rows].contiguous())
    return torch.where(top > 0, partner, torch.minimum(torch.maximum(none, low), high)), top
