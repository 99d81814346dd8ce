"""Attributions against finite differences, closed forms, and captum where it is installed."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import assay
from assay import grammar, registry
from assay.attribution import GradCAM, Gradient, GradientTimesInput, IntegratedGradients, SmoothGrad, heat
from assay.attribution.base import draws
from assay.errors import GrammarError, InputError, ModelError, SettingError

EVERY = [Gradient(), GradientTimesInput(), IntegratedGradients(steps=6), SmoothGrad(draws=4, std=0.1), GradCAM()]
NAMES = [type(each).__name__ for each in EVERY]
CLASSES = torch.tensor([0, 3, 2, 1, 1])


def test_gradients_are_those_of_finite_differences(net, images):
    model, x = net(nn.Tanh), images(1)
    found = Gradient()(model, x, torch.tensor([2]))
    for place in ((0, 0, 0, 0), (0, 1, 3, 4), (0, 0, 7, 7)):
        up, down = x.clone(), x.clone()
        up[place] += 1e-6
        down[place] -= 1e-6
        slope = (model(up) - model(down)).detach()[0, 2] / 2e-6
        assert float(found[place]) == pytest.approx(float(slope), abs=1e-7)
    torch.testing.assert_close(GradientTimesInput()(model, x, torch.tensor([2])), found * x)


def test_without_classes_the_decision_is_explained(net, images):
    model, x = net(), images()
    assert torch.equal(Gradient()(model, x), Gradient()(model, x, model(x).argmax(1)))
    assert not torch.equal(Gradient()(model, x), Gradient()(model, x, (model(x).argmax(1) + 1) % 4))


@pytest.mark.parametrize("rule", ["gauss-legendre", "trapezoid", "middle", "left", "right"])
def test_integrated_gradients_are_the_integral(rule):
    """Of the logit x^3 y from (0.1, 0.1) to (a, b): both parts can be integrated by hand."""
    model = lambda x: torch.stack([x[:, 0] ** 3 * x[:, 1], x.sum(1)], dim=1)  # noqa: E731
    x = torch.tensor([[0.9, 0.5]], dtype=torch.float64)
    t = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    a, b = 0.1 + 0.8 * t, 0.1 + 0.4 * t
    wanted = torch.tensor([[0.8 * torch.trapezoid(3 * a**2 * b, t), 0.4 * torch.trapezoid(a**3, t)]])
    steps, within = (4, 1e-9) if rule == "gauss-legendre" else (2000, 1e-3)
    found = IntegratedGradients(steps=steps, baseline=0.1, rule=rule)(model, x, torch.tensor([0]))
    torch.testing.assert_close(found, wanted.to(found), rtol=within, atol=0)


@pytest.mark.parametrize("activation", [nn.Softplus, nn.Tanh, nn.SiLU])
def test_integrated_gradients_of_smooth_networks_are_complete(net, images, activation):
    model, x = net(activation), images()
    total = IntegratedGradients()(model, x, CLASSES).flatten(1).sum(1)
    gained = (model(x) - model(torch.zeros_like(x))).gather(1, CLASSES[:, None]).squeeze(1)
    torch.testing.assert_close(total, gained, rtol=0, atol=1e-8)


def test_integrated_gradients_of_the_shipped_network_are_complete():
    """To a thousandth of what the logit gains; few points are not enough for a network with bends."""
    model = assay.load_model("fashion-cnn").requires_grad_(False)
    x, y, _ = assay.load_data("fashion-mnist", limit=1).batch(0, 1)
    gained = (model(x) - model(torch.zeros_like(x))).gather(1, y[:, None]).squeeze(1)
    gaps = [
        float(((IntegratedGradients(steps=n)(model, x, y).double().flatten(1).sum(1) - gained) / gained).abs().max())
        for n in (20, 3000)
    ]
    assert gaps[1] < 1e-3 < gaps[0]


def test_smooth_grad_is_the_mean_over_its_draws(net, images):
    model, x = net(), images()
    found = SmoothGrad(draws=3, std=0.2)(model, x, CLASSES, seed=4, index=torch.arange(5) + 7)
    noise = draws(4, torch.arange(5) + 7, x).normal(3, 2, 8, 8)
    total = torch.zeros_like(x)
    for k in range(3):
        total += Gradient()(model, x + 0.2 * noise[:, k], CLASSES)
    torch.testing.assert_close(found, total / 3)
    assert not torch.allclose(found, SmoothGrad(draws=3, std=0.2)(model, x, CLASSES, seed=5, index=torch.arange(5) + 7))


def test_smooth_grad_of_a_square_is_its_gradient_in_the_mean():
    model = lambda x: torch.stack([(x**2).sum(1), x.sum(1)], dim=1)  # noqa: E731
    x = torch.full((1, 4), 0.5, dtype=torch.float64)
    found = SmoothGrad(draws=4000, std=0.3)(model, x, torch.tensor([0]))
    assert float((found - 1).abs().max()) < 5 * 2 * 0.3 / 4000**0.5


def test_grad_cam_is_its_formula(net, images):
    model, x = net(), images(2)
    found = GradCAM(layer="2")(model, x, CLASSES[:2])
    active = model[2](torch.relu(model[0](x))).detach().requires_grad_()
    logits = model[5](torch.relu(active).flatten(1))
    (slope,) = torch.autograd.grad(logits[0, 0] + logits[1, 3], active)
    wanted = torch.zeros(2, 1, 3, 3, dtype=torch.float64)
    for i in range(2):
        for channel in range(5):
            wanted[i, 0] += slope[i, channel].mean() * active[i, channel].detach()
    wanted = F.interpolate(wanted.clamp_min(0), size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(GradCAM()(model, x, CLASSES[:2]), found)  # it is the last convolution


def test_grad_cam_takes_the_convolution_that_is_called_last_and_not_what_works_on_it_in_place(images):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.late, self.early, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(2, 3, 3), nn.Linear(64, 3)

        def forward(self, x):
            return self.head(torch.relu_(self.late(self.early(x))).flatten(1))

    torch.manual_seed(0)
    model, x = Model().double(), images(2)
    assert torch.equal(GradCAM()(model, x), GradCAM(layer="late")(model, x))
    pure = Model().double()
    pure.load_state_dict(model.state_dict())
    pure.forward = lambda x: pure.head(torch.relu(pure.late(pure.early(x))).flatten(1))
    assert torch.equal(GradCAM(layer="late")(model, x), GradCAM(layer="late")(pure, x))
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("attribution", EVERY, ids=NAMES)
def test_a_sample_is_explained_alike_in_any_batch_and_order(net, images, attribution):
    model, x, index = net(), images(), torch.tensor([3, 9, 4, 100, 7])
    whole = attribution(model, x, CLASSES, index=index)
    order = torch.tensor([4, 0, 2, 1, 3])
    other = attribution(model, x[order], CLASSES[order], index=index[order], micro_batch=2)
    torch.testing.assert_close(other, whole[order], rtol=1e-9, atol=1e-12)
    assert not whole.requires_grad


@pytest.mark.parametrize("attribution", EVERY, ids=NAMES)
def test_passes_are_those_that_happen_and_the_model_is_left_alone(net, images, attribution):
    calls = {"forwards": 0, "backwards": 0}

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            calls["forwards"] += len(x)
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            calls["backwards"] += len(grad)
            return grad

    model, x = net().train(), images(3)
    model[1].eval()
    model.register_forward_pre_hook(lambda _, inputs: (Counted.apply(inputs[0]),))
    flags = [module.training for module in model.modules()]
    attribution(model, x, CLASSES[:3])
    if not isinstance(attribution, GradCAM):  # which goes back to the convolution alone
        assert calls["backwards"] == 3 * attribution.passes.backwards
    assert calls["forwards"] == 3 * attribution.passes.forwards
    assert [module.training for module in model.modules()] == flags
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("attribution", EVERY, ids=NAMES)
def test_the_way_back_is_there_when_asked_for(net, images, attribution):
    model, x = net(nn.Softplus), images(2)
    rng = draws(0, torch.arange(2), x)
    assert not attribution.explain(model, x, CLASSES[:2], rng).map.requires_grad
    weigh = torch.rand(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

    def value(x):
        return (attribution.explain(model, x, CLASSES[:2], draws(0, torch.arange(2), x), graph=True).map * weigh).sum()

    moving = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(value(moving), moving)
    step = torch.zeros_like(x)
    step[0, 1, 3, 4] = 1e-5
    up, down = value((x + step).requires_grad_()).detach(), value((x - step).requires_grad_()).detach()
    assert float(slope[0, 1, 3, 4]) == pytest.approx(float((up - down) / 2e-5), rel=1e-4, abs=1e-7)


def test_maps_are_shares_of_absolute_values():
    a = torch.tensor([[[[1.0, -1.0]], [[-2.0, 0.0]]], [[[0.0, 0.0]], [[0.0, 0.0]]]])
    assert torch.equal(heat(a), torch.tensor([[[0.75, 0.25]], [[0.0, 0.0]]]))
    assert heat(torch.rand(2, 7)).shape == (2, 7)


def test_what_cannot_be_used_is_refused(net, images):
    model, x = net(), images(2)
    for wrong in (
        lambda: IntegratedGradients(steps=0),
        lambda: IntegratedGradients(steps=1, rule="trapezoid"),
        lambda: IntegratedGradients(rule="simpson"),
        lambda: IntegratedGradients(baseline=float("nan")),
        lambda: SmoothGrad(draws=0),
        lambda: SmoothGrad(std=0.0),
        lambda: GradCAM(layer=""),
    ):
        with pytest.raises(SettingError):
            wrong()
    with pytest.raises(InputError, match="from 0 to 9"):
        Gradient()(model, x, torch.tensor([0, 9]))
    for classes in (torch.tensor([0]), torch.tensor([0.0, 1.0]), torch.tensor([[0], [1]]), 1, [0, 1]):
        with pytest.raises(InputError, match="classes must be a tensor of one whole number for each of 2"):
            Gradient()(model, x, classes)
    with pytest.raises(InputError, match="index must"):
        Gradient()(model, x, index=torch.arange(3))
    with pytest.raises(InputError, match="images"):
        GradCAM()(model, x[:, 0, 0], torch.tensor([0, 1]))
    with pytest.raises(ModelError, match="no layer 'convo'"):
        GradCAM(layer="convo")(model, x)
    with pytest.raises(ModelError, match=r"no torch\.nn\.Conv2d"):
        GradCAM()(nn.Sequential(nn.Flatten(), nn.Linear(128, 3).double()), x)
    with pytest.raises(ModelError, match="gave shape"):
        GradCAM(layer="5")(model, x)
    with pytest.raises(ModelError, match="no gradient reaches"):
        Gradient()(lambda x: model(x).detach(), x)
    with pytest.raises(ModelError, match=r"\(batch, classes\)"):
        Gradient()(lambda x: x.sum(dim=(1, 2, 3)), x)


@pytest.mark.parametrize("name", registry.names("attribution"))
def test_they_read_back_from_their_repr(name):
    built = registry.get("attribution", name).load()()
    assert grammar.parse(repr(built)) == built


def test_mistakes_are_shown_at_their_place():
    with pytest.raises(GrammarError, match="Did you mean steps"):
        grammar.parse("IntegratedGradients(step=5)")


def test_they_are_captum_s(net, images):
    captum = pytest.importorskip("captum.attr")
    model, x = net(), images()
    zero, x = torch.zeros_like(x), x.requires_grad_()
    cam = captum.LayerGradCam(model, model[2]).attribute(x, target=CLASSES, relu_attributions=True)
    theirs = {
        Gradient(): captum.Saliency(model).attribute(x, target=CLASSES, abs=False),
        GradientTimesInput(): captum.InputXGradient(model).attribute(x, target=CLASSES),
        IntegratedGradients(): captum.IntegratedGradients(model).attribute(x, zero, target=CLASSES, n_steps=50),
        GradCAM(): captum.LayerAttribution.interpolate(cam, (8, 8), "bilinear"),
    }
    for attribution, wanted in theirs.items():
        torch.testing.assert_close(attribution(model, x.detach(), CLASSES), wanted.detach(), rtol=0, atol=1e-5)
