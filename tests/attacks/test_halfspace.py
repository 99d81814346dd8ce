"""Least moves to half-spaces, beside the answers of the test problems, of a linear program, and of trying all."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from assay.attacks import halfspace
from assay.testing import halfspace as answers

NORMS = ("linf", "l2", "l1")


def rows(n, d, *, seed=0, dtype=torch.float64, scale=0.0):
    """Normals with zeros, and boxes that leave some coordinates no room; gaps up to 0.9 of what can be gained."""
    generator = torch.Generator().manual_seed(seed)
    w, low, high = (torch.rand(n, d, generator=generator, dtype=torch.float64) for _ in range(3))
    w = (2 * w - 1) * 10.0 ** (scale * (torch.rand(n, 1, generator=generator, dtype=torch.float64) - 0.8))
    w[:, 0] = 0
    low[:, 1], high[:, 2] = 0, 0
    gap = 0.9 * torch.rand(n, generator=generator, dtype=torch.float64) * gain(w, torch.where(w > 0, high, -low))
    return tuple(t.to(dtype) for t in (w, gap, -low, high))


def gain(w, move):
    return (w * move).sum(1)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_boxed_moves_are_the_smallest(norm, dtype, rtol):
    w, gap, low, high = rows(200, 40, dtype=dtype, scale=25.0)
    move, reaches = halfspace.boxed_move(w, gap, low, high, norm)
    assert reaches.all()
    assert ((move >= low) & (move <= high)).all()
    assert (gain(w.double(), move.double()) >= gap.double() * (1 - rtol)).all()
    room = torch.where(w > 0, high, -low)
    exact, _ = answers.smallest(w.abs(), room, gap, norm)
    torch.testing.assert_close(halfspace.size(move, norm).double(), exact, rtol=rtol, atol=0)


@pytest.mark.parametrize("norm", ["linf", "l1"])
def test_boxed_moves_agree_with_a_linear_program(norm):
    for seed in range(8):
        w, gap, low, high = rows(1, 5, seed=seed)
        d, one = 5, np.eye(5)
        # Variables: the move, and its absolute values (L1) or their largest (Linf).
        bound = one if norm == "l1" else np.ones((d, 1))
        k = bound.shape[1]
        above = np.block([[one, -bound], [-one, -bound], [-w.numpy(), np.zeros((1, k))]])
        found = linprog(
            np.r_[np.zeros(d), np.ones(k)],
            A_ub=above,
            b_ub=np.r_[np.zeros(2 * d), -gap.numpy()],
            bounds=[*zip(low[0].tolist(), high[0].tolist(), strict=True), *[(0, None)] * k],
        )
        move, _ = halfspace.boxed_move(w, gap, low, high, norm)
        assert float(halfspace.size(move, norm)) == pytest.approx(found.fun, rel=1e-7)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_free_moves_have_the_length_of_the_dual_norm(norm, dtype):
    w, gap, *_ = rows(50, 12, dtype=dtype, scale=25.0)
    move = halfspace.free_move(w, gap, norm)
    torch.testing.assert_close(gain(w, move), gap, rtol=1e-5, atol=0)
    torch.testing.assert_close(halfspace.size(move, norm) * halfspace.dual_size(w, norm), gap, rtol=1e-5, atol=0)
    far = 2 * halfspace.size(move, "linf")[:, None].expand_as(w)
    torch.testing.assert_close(halfspace.boxed_move(w, gap, -far, far, norm)[0], move, rtol=1e-5, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_what_cannot_be_reached_is_approached_as_far_as_possible(norm):
    w, _, low, high = rows(10, 9)
    best = torch.where(w > 0, high, torch.where(w < 0, low, 0))
    move, reaches = halfspace.boxed_move(w, 1.01 * gain(w, best), low, high, norm)
    assert not reaches.any()
    torch.testing.assert_close(move, best)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-30, 1e30])
def test_zeros_and_extreme_weights_stay_finite(norm, value):
    w = torch.full((2, 4), value)
    w[1] = 0
    gap, box = torch.tensor([0.5, 0.5]), torch.ones(2, 4)
    free, (boxed, reaches) = halfspace.free_move(w, gap, norm), halfspace.boxed_move(w, gap, -box, box, norm)
    assert free.isfinite().all()
    assert boxed.isfinite().all()
    assert not free[1].any()
    assert not boxed[1].any()
    assert reaches.tolist() == [value == 1e30, False]
    if 0 < value < 1:
        assert (boxed[0] == 1).all()


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_moves_where_nothing_is_missing(norm):
    w, _, low, high = rows(6, 5)
    for gap in (torch.zeros(6).double(), -torch.ones(6).double()):
        assert not halfspace.free_move(w, gap, norm).any()
        move, reaches = halfspace.boxed_move(w, gap, low, high, norm)
        assert not move.any()
        assert reaches.all()


@pytest.mark.parametrize("norm", NORMS)
def test_every_row_is_for_itself(norm):
    w, gap, low, high = rows(30, 20, dtype=torch.float32)
    whole, _ = halfspace.boxed_move(w, gap, low, high, norm)
    for i in range(0, 30, 7):
        alone, _ = halfspace.boxed_move(w[i : i + 1], gap[i : i + 1], low[i : i + 1], high[i : i + 1], norm)
        torch.testing.assert_close(alone[0], whole[i], rtol=1e-6, atol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_the_nearest_of_several_is_that_of_trying_all(norm):
    k, d = 6, 8
    w, gap, low, high = rows(40 * k, d)
    low, high = (side[::k].repeat_interleave(k, dim=0) for side in (low, high))
    moves, reaches = halfspace.boxed_move(w, gap, low, high, norm)
    lengths = torch.where(reaches, halfspace.size(moves, norm), torch.inf).reshape(40, k)
    many, gaps = w.reshape(40, k, d), gap.reshape(40, k)
    nearest, move = halfspace.nearest_boxed(many, gaps, low[::k], high[::k], norm)
    assert lengths.isfinite().any(1).all()
    torch.testing.assert_close(halfspace.size(move, norm), lengths.amin(1))
    assert torch.equal(nearest, lengths.argmin(1))
    assert (halfspace.nearest_free(many, gaps, norm) != nearest).any()  # the box does change which is the nearest
    free = halfspace.size(halfspace.free_move(w, gap, norm), norm).reshape(40, k)
    assert torch.equal(halfspace.nearest_free(many, gaps, norm), free.argmin(1))


@pytest.mark.parametrize("norm", NORMS)
def test_half_spaces_behind_a_bound_are_passed_over(norm):
    """Three of them, the nearest first; upwards there is all the room that is given, downwards none."""
    w = torch.tensor([[3.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 1.0]]).double().expand(4, 3, 3)
    gap, low = torch.ones(4, 3).double(), torch.zeros(4, 3).double()
    high = torch.tensor([[1.0, 1.0, 1.0], [0.01, 1.0, 1.0], [0.01, 0.01, 1.0], [0.01, 0.01, 0.01]]).double()
    assert halfspace.nearest_open(w, gap, low, high, norm).tolist() == [0, 1, 2, 0]
    assert halfspace.nearest_open(w, gap, low, 0.1 * high.ceil(), norm).tolist() == [0, 0, 0, 0]
    assert halfspace.nearest_open(-w, gap, low, high, norm).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("norm", NORMS)
def test_where_the_box_meets_no_half_space_the_move_still_helps(norm):
    w, gap, low, high = rows(4, 7)
    w[:, 0] = 0.5
    _, move = halfspace.nearest_boxed(w[:, None], 100 + gap[:, None], low, high, norm)
    assert (gain(w, move) > 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_large_images_need_no_square_matrix(norm):
    w, gap, low, high = rows(2, 3 * 224 * 224, dtype=torch.float32)
    move, reaches = halfspace.boxed_move(w, gap, low, high, norm)
    assert reaches.all()
    torch.testing.assert_close(gain(w.double(), move.double()), gap.double(), rtol=1e-4, atol=0)
