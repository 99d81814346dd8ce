"""Square against its paper's update: stripes, windows of one value per channel, their schedule, and what is kept."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from assay.attacks import Square
from assay.goals import Untargeted
from assay.losses import margin
from assay.threats import Linf

EPS, SIDE = 0.1, 16


class Recorded(nn.Module):
    """A linear model, constant for `scale` 0, that notes what it is asked. The right class is far ahead."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("weight", scale * torch.randn(2, 2 * SIDE * SIDE, generator=generator))
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        return (x.flatten(1) - 0.5) @ self.weight.T + torch.tensor([1000.0, 0.0])


def moves(samples: int, scale: float = 0.0, **settings: object) -> tuple[Recorded, list[Tensor]]:
    """The moves asked about one after the other: the start, then one for each further query."""
    model, x = Recorded(scale), torch.full((samples, 2, SIDE, SIDE), 0.5)
    result = Square(threat=Linf(EPS), **settings)(model, x, torch.zeros(samples, dtype=torch.int64))
    assert not result.success.any()
    return model, [asked - 0.5 for asked in model.seen[1:]]  # the first is the clean input


def sides(changed: Tensor) -> tuple[int, int]:
    """The largest height and width of the boxes around what has changed, over all samples and channels."""
    spans = []
    for axis in (3, 2):
        place = changed.any(dim=axis).any(dim=1).nonzero()
        spans.append(
            max(int(v.max() - v.min()) + 1 for v in (place[place[:, 0] == i, 1] for i in place[:, 0].unique()))
        )
    return spans[0], spans[1]


def test_the_start_is_vertical_stripes_of_random_signs():
    _, asked = moves(64, queries=1)
    (start,) = asked
    torch.testing.assert_close(start.abs(), torch.full_like(start, EPS))
    assert (start == start[:, :, :1]).all()
    assert 0.45 < (start[:, :, 0] > 0).float().mean() < 0.55
    assert (start[:, 0] != start[:, 1]).any()


@pytest.mark.parametrize(("p", "rescale"), [(0.8, False), (0.3, False), (0.8, True)])
def test_windows_follow_the_schedule_of_the_paper(p, rescale):
    """The share p is halved after 10, 50, 200, ... of 10,000 queries; the side is the rounded root of the area."""
    queries = 60
    _, asked = moves(200, queries=queries, p=p, rescale=rescale)
    assert len(asked) == queries
    for number in (1, 10, 11, 20, 50, 51, 59):
        at = number * 10_000 // queries if rescale else number
        halved = sum(at > limit for limit in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
        side = max(1, round(math.sqrt(p * 0.5**halved * SIDE**2)))
        found = sides(asked[number] != asked[0])  # of a constant model nothing is kept
        assert found == (side, side), number


def test_a_window_has_one_value_of_eps_per_channel_and_reaches_every_pixel():
    _, asked = moves(200, queries=12)
    start, reached = asked[0], torch.zeros(SIDE, SIDE, dtype=torch.bool)
    for move in asked[1:]:
        torch.testing.assert_close(move.abs(), torch.full_like(move, EPS))
        changed = move != start
        reached |= changed.any(dim=1).any(dim=0)
        up, down = ((changed & (move * sign > 0)).flatten(2).any(dim=2) for sign in (1, -1))
        assert not (up & down).any()
    assert reached.all()


def test_what_improves_the_margin_is_kept_and_nothing_else():
    """Every question differs from the best input before it in one window of the size that is due."""
    model, asked = moves(4, scale=1.0, queries=80)
    goal = Untargeted(torch.zeros(4, dtype=torch.int64))
    best, value = asked[0], margin(model(asked[0] + 0.5), goal)
    improved = torch.zeros(4)
    for number, move in enumerate(asked[1:], start=1):
        side = round(math.sqrt(0.8 * 0.5 ** ((number > 10) + (number > 50)) * SIDE**2))
        for i in range(4):
            changed = (move[i] != best[i])[None]
            assert not changed.any() or max(sides(changed)) <= side
        now = margin(model(move + 0.5), goal)
        better = now > value
        improved += better
        best, value = torch.where(better[:, None, None, None], move, best), torch.where(better, now, value)
    assert (improved > 3).all()
