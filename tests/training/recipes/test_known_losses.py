"""CURE, LLR and GradAlign on losses with known gradients: linear ones are not penalised, quadratic ones by a number."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import assay
from assay.attacks import FGSM
from assay.training.recipes import CURE, LLR, Batch, GradAlign

EPS, D = 0.1, 12


class Known(nn.Module):
    """Two logits whose cross-entropy with class 0 is exactly `curve / 2 ||x - centre||^2 + tilt x + 1`."""

    def __init__(self, curve, tilt=0.0, centre=0.5):
        super().__init__()
        self.curve = nn.Parameter(torch.tensor(curve).double())
        self.tilt = nn.Parameter(tilt * torch.linspace(-1, 1, D).double())
        self.centre = centre

    def forward(self, x):
        wanted = self.curve / 2 * (x - self.centre).square().sum(1) + x @ self.tilt + 1
        return torch.stack([torch.zeros_like(wanted), torch.expm1(wanted).log()], dim=1)  # -log p_0 = log(1 + e^z)


def batch(size=5, *, x=None, **settings):
    draw = torch.Generator().manual_seed(3)
    x = 0.2 + 0.6 * torch.rand(size, D, generator=draw, dtype=torch.float64) if x is None else x
    return Batch(x=x, y=torch.zeros(len(x), dtype=torch.int64), index=torch.arange(len(x)), seed=4, **settings)


def penalty(recipe, model, b):
    """What the recipe adds to the cross-entropy, and its gradient with respect to the curve."""
    views = recipe.prepare(model, b)
    found = recipe.loss(model, b, views) - b.cross_entropy(
        model(views.get("x_adv", b.x) if isinstance(recipe, GradAlign) else b.x)
    )
    (slope,) = torch.autograd.grad(found, model.curve)
    return found.detach(), slope


def close(found, wanted):
    torch.testing.assert_close(found, torch.tensor(wanted).double(), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(
    ("threat", "length"),
    [(assay.Linf(EPS), EPS * D**0.5), (assay.L2(EPS), EPS), (assay.L1(EPS), EPS / D**0.5)],
)
def test_cure_of_a_quadratic_is_the_square_of_curve_times_step(threat, length):
    recipe = CURE(threat=threat, weight=3.0, h=2.0)
    for size in (1, 5):  # whatever the size of the batch
        found, slope = penalty(recipe, Known(1.5), batch(size))
        close(found, 3 * (1.5 * 2 * length) ** 2)
        close(slope, 3 * 2 * 1.5 * (2 * length) ** 2)


def test_cure_without_the_square_is_the_norm():
    found, slope = penalty(CURE(threat=assay.L2(EPS), weight=1.0, squared=False), Known(1.5), batch())
    close(found, 1.5 * EPS)
    close(slope, EPS)


@pytest.mark.parametrize("epoch", [0.0, 0.9, 1.0, 2.5, 7.0])
def test_cure_s_step_grows_from_epoch_to_epoch(epoch):
    recipe = CURE(threat=assay.L2(EPS), weight=1.0, h=(0.5, 1.0, 3.0))
    found, _ = penalty(recipe, Known(2.0), batch(epoch=epoch))
    close(found, (2 * EPS * (0.5, 1.0, 3.0)[min(int(epoch), 2)]) ** 2)


def test_cure_s_step_warms_up_with_eps():
    found, _ = penalty(CURE(threat=assay.L2(EPS), weight=1.0), Known(2.0), batch(eps_share=0.25))
    close(found, (2 * EPS / 4) ** 2)


@pytest.mark.parametrize("squared", [True, False])
def test_cure_of_a_linear_loss_is_nothing(squared):
    found, slope = penalty(CURE(threat=assay.Linf(EPS), squared=squared), Known(0.0, tilt=0.7), batch())
    close(found, 0.0)
    assert slope.isfinite()


def test_cure_where_the_gradient_vanishes_is_nothing():
    found, slope = penalty(
        CURE(threat=assay.Linf(EPS), squared=False), Known(2.0), batch(x=torch.full((2, D), 0.5).double())
    )
    close(found, 0.0)
    close(slope, 0.0)


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_llr_of_a_quadratic_is_its_worst_corner(share):
    recipe = LLR(threat=assay.Linf(EPS), weight=2.0, slope_weight=0.0)
    found, slope = penalty(recipe, Known(1.5, tilt=0.3), batch(eps_share=share))
    close(found, 2 * 1.5 / 2 * D * (share * EPS) ** 2)  # two half steps from anywhere end in a corner
    close(slope, 2 / 2 * D * (share * EPS) ** 2)


def test_llr_counts_what_the_linear_part_does():
    recipe = LLR(threat=assay.Linf(EPS), weight=0.0, slope_weight=3.0)
    b, model = batch(), Known(1.5, tilt=0.3)
    move = recipe.prepare(model, b)["x_adv"] - b.x
    wanted = 3 * (move * (1.5 * (b.x - 0.5) + model.tilt.detach())).sum(1).abs().mean()
    found, slope = penalty(recipe, model, b)
    close(found, wanted.item())
    assert wanted > 0.01
    close(
        slope,
        (3 * (move * (b.x - 0.5)).sum(1) * (move * (1.5 * (b.x - 0.5) + model.tilt.detach())).sum(1).sign())
        .mean()
        .item(),
    )


def test_llr_of_a_linear_loss_is_its_slope_alone():
    found, slope = penalty(LLR(threat=assay.Linf(EPS), weight=5.0, slope_weight=0.0), Known(0.0, tilt=0.7), batch())
    close(found, 0.0)
    assert slope.isfinite()


def aligned(**settings):
    return GradAlign(attack=FGSM(threat=assay.Linf(EPS)), weight=1.0, **settings)


@pytest.mark.parametrize("stop", [True, False])
def test_grad_align_of_a_linear_loss_is_nothing(stop):
    found, slope = penalty(aligned(stop=stop), Known(0.0, tilt=0.7), batch())
    close(found, 0.0)
    assert slope.isfinite()


def test_grad_align_of_two_affine_logits_is_nothing():
    torch.manual_seed(0)
    model, b = nn.Linear(D, 2).double(), batch()
    views = aligned().prepare(model, b)
    close(aligned().loss(model, b, views) - b.cross_entropy(model(views["x_adv"])), 0.0)


def test_grad_align_is_one_minus_the_cosine_of_the_gradients():
    recipe, b, model = aligned(), batch(), Known(3.0, tilt=0.1)
    near = recipe.prepare(model, b)["x_near"]
    here, there = (3 * (x - 0.5) + model.tilt.detach() for x in (b.x, near))
    wanted = 1 - (here * there).sum(1) / here.norm(dim=1) / there.norm(dim=1)
    close(penalty(recipe, model, b)[0], wanted.mean().item())
    assert 0 < (near - b.x).abs().max() <= EPS
    assert wanted.min() > 1e-3


def test_grad_align_of_opposite_gradients_is_two():
    b, model = batch(x=torch.full((2, D), 0.45).double()), Known(1.0)
    views = {"x_adv": b.x, "x_near": torch.full_like(b.x, 0.55)}
    close(aligned().loss(model, b, views) - b.cross_entropy(model(b.x)), 2.0)


def test_grad_align_leaves_out_samples_without_a_gradient():
    x = torch.full((4, D), 0.45).double()
    x[1:] = 0.5  # the minimum
    b, model = batch(x=x), Known(1.0)
    for near, wanted in ((torch.full_like(x, 0.55), 2.0), (torch.full_like(x, 0.5), 0.0)):
        loss = aligned().loss(model, b, {"x_adv": x, "x_near": near})
        close(loss - b.cross_entropy(model(x)), wanted)
        assert torch.autograd.grad(loss, model.curve)[0].isfinite()


def test_the_random_move_warms_up_with_eps_and_is_a_sample_s_own():
    b, model = batch(eps_share=0.5), Known(3.0)
    near = aligned().prepare(model, b)["x_near"]
    assert EPS / 4 < (near - b.x).abs().max() <= EPS / 2
    rows = torch.tensor([3, 1])
    part = Batch(x=b.x[rows], y=b.y[rows], index=b.index[rows], seed=b.seed, eps_share=0.5)
    assert torch.equal(aligned().prepare(model, part)["x_near"], near[rows])
