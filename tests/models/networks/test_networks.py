"""The networks compute what their papers say: counted by a formula, and computed again from their weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from assay import grammar, registry
from assay.errors import InputError, SettingError
from assay.models import load_model, saved
from assay.models.networks import DigitsMLP, FashionCNN, PreActResNet18, SmallCNN, WideResNet

SMALL = {  # networks that a test can afford, on 3x12x12 images
    "SmallCNN(size=12, width=4, hidden=8)": (3, 12, 12),
    "WideResNet(depth=10, width=2)": (3, 12, 12),
    "WideResNet(depth=16, width=1, activation='silu', channels=1, classes=4)": (1, 12, 12),
    "PreActResNet18(activation='softplus', channels=2, mean=(0.1, 0.2), std=0.5)": (2, 12, 12),
}


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def residual_count(widths, blocks, stem, *, channels=3, classes=10):
    """Parameters of a pre-activation residual network, layer by layer: batch norm has 2 a channel."""
    total, inside = 9 * channels * stem, stem
    for group, width in enumerate(widths):
        for place in range(blocks):
            total += 2 * inside + 9 * inside * width + 2 * width + 9 * width * width
            if inside != width or (group and not place):
                total += inside * width
            inside = width
    return total + 2 * inside + (inside + 1) * classes


@pytest.mark.parametrize(
    ("depth", "width", "millions"), [(28, 10, 36.5), (34, 10, 46.2), (40, 4, 8.9), (16, 8, 11.0), (22, 8, 17.2)]
)
def test_wide_resnets_have_the_published_number_of_parameters(depth, width, millions):
    with torch.device("meta"):
        model = WideResNet(depth, width)
    assert count(model) == residual_count([16 * width, 32 * width, 64 * width], (depth - 4) // 6, 16)
    assert count(model) / 1e6 == pytest.approx(millions, abs=0.05)


def test_preact_resnet_18_has_the_published_number_of_parameters():
    with torch.device("meta"):
        models = PreActResNet18(), PreActResNet18(classes=100, channels=1)
    assert count(models[0]) == residual_count([64, 128, 256, 512], 2, 64) == 11_172_170
    assert count(models[1]) == residual_count([64, 128, 256, 512], 2, 64, channels=1, classes=100)


@pytest.mark.parametrize(("size", "channels", "classes"), [(28, 1, 10), (32, 3, 10), (33, 3, 7)])
def test_small_cnn_counted(size, channels, classes):
    model = SmallCNN(channels, size, classes)
    convolutions = (9 * channels + 1) * 32 + (16 * 32 + 1) * 32 + (9 * 32 + 1) * 64 + (16 * 64 + 1) * 64
    assert count(model) == convolutions + (64 * (size // 4) ** 2 + 1) * 128 + 129 * classes
    assert model(torch.rand(2, channels, size, size)).shape == (2, classes)


def reference(model, x, act, *, widths, blocks, mean, std):
    """A residual network once more, from its weights in their order, in functions."""
    own = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    weights = iter(own)
    norms = iter([m for m in model.modules() if isinstance(m, nn.BatchNorm2d)])

    def norm(z):
        bn = next(norms)
        scale = (bn.running_var + bn.eps).rsqrt() * bn.weight
        return (z - bn.running_mean[:, None, None]) * scale[:, None, None] + bn.bias[:, None, None]

    z = F.conv2d((x - mean) / std, next(weights).weight, padding=1)
    for group, width in enumerate(widths):
        for place in range(blocks):
            stride = 2 if group and not place else 1
            active = act(norm(z))
            inside = F.conv2d(active, next(weights).weight, stride=stride, padding=1)
            inside = F.conv2d(act(norm(inside)), next(weights).weight, padding=1)
            kept = z
            if stride > 1 or z.shape[1] != width:
                kept = F.conv2d(active, next(weights).weight, stride=stride)
            z = inside + kept
    head = next(weights)
    return act(norm(z)).flatten(2).mean(2) @ head.weight.T + head.bias


@pytest.mark.parametrize(
    ("model", "act", "widths", "blocks"),
    [
        (lambda: WideResNet(16, 2), F.relu, [32, 64, 128], 2),
        (lambda: WideResNet(10, 1, activation="silu"), F.silu, [16, 32, 64], 1),
        (lambda: PreActResNet18(activation="softplus"), F.softplus, [64, 128, 256, 512], 2),
    ],
)
def test_outputs_are_those_of_a_functional_copy(model, act, widths, blocks):
    torch.manual_seed(0)
    net = model().double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
    x = torch.rand(2, 3, 9, 14, dtype=torch.float64)
    mean = torch.tensor([0.4914, 0.4822, 0.4465]).double()[:, None, None]
    std = torch.tensor([0.2470, 0.2435, 0.2616]).double()[:, None, None]
    torch.testing.assert_close(net(x), reference(net, x, act, widths=widths, blocks=blocks, mean=mean, std=std))


@pytest.mark.parametrize("spec", SMALL)
def test_saved_by_their_expression_they_come_back(spec, tmp_path):
    torch.manual_seed(0)
    model, x = grammar.named(spec, nn.Module), torch.rand(4, *SMALL[spec])
    model(x)  # moves the statistics of batch norm
    saved.save(tmp_path, spec, model.state_dict(), {})
    assert torch.equal(load_model(str(tmp_path))(x), model.eval()(x))


@pytest.mark.parametrize("spec", SMALL)
def test_inputs_are_not_changed_and_layouts_make_no_difference(spec):
    torch.manual_seed(0)
    model, x = grammar.named(spec, nn.Module).double().eval(), torch.rand(3, *SMALL[spec], dtype=torch.float64)
    before = x.clone()
    plain = model(x)
    other = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(other, plain)
    assert torch.equal(x, before)
    assert not any(getattr(module, "inplace", False) for module in model.modules())
    x.requires_grad_()
    (grad,) = torch.autograd.grad(model(x).sum(), x)
    assert (grad != 0).flatten(1).any(1).all()


@pytest.mark.parametrize("spec", SMALL)
def test_normalisation_is_of_the_network_and_not_trained(spec):
    model = grammar.named(spec, nn.Module)
    assert {"normalize.mean", "normalize.std"} <= set(model.state_dict())
    assert not {"normalize.mean", "normalize.std"} & {name for name, _ in model.named_parameters()}
    channels = SMALL[spec][0]
    mean, std = model.normalize.mean, model.normalize.std
    x = torch.rand(2, *SMALL[spec])
    torch.testing.assert_close(model.normalize(x * std + mean), x)
    if channels == 1:
        assert (mean.item(), std.item()) == (0.5, 0.5)


@pytest.mark.parametrize("model", [PreActResNet18(), WideResNet(10, 1)])
def test_images_of_any_size(model):
    model.eval()
    for shape in ((8, 8), (32, 32), (5, 11)):
        assert model(torch.rand(2, 3, *shape)).shape == (2, 10)


def test_activations_differ():
    x = torch.rand(2, 3, 8, 8)
    answers = []
    for activation in ("relu", "silu", "softplus"):
        torch.manual_seed(0)
        answers.append(WideResNet(10, 1, activation=activation).eval()(x))
    assert not torch.allclose(answers[0], answers[1])
    assert not torch.allclose(answers[1], answers[2])


def test_first_weights_keep_the_size_of_what_passes():
    torch.manual_seed(0)
    deep = WideResNet(40, 1)
    logits = deep(torch.rand(16, 3, 16, 16))
    assert 0.01 < float(logits.detach().std()) < 10
    assert not deep.head.bias.any()
    weight = deep.blocks[-1].conv2.weight.detach()
    assert float(weight.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: WideResNet(27, 10), "depth of WideResNet is 6 n"),
        (lambda: WideResNet(4, 10), "depth of WideResNet"),
        (lambda: WideResNet(28, 0), "width of WideResNet"),
        (lambda: PreActResNet18(activation="gelu"), "activation is one of relu, silu, softplus; got 'gelu'"),
        (lambda: PreActResNet18(mean=(0.5, 0.5)), "mean needs one number for each of 3 channels"),
        (lambda: PreActResNet18(std=0.0), "std must be positive"),
        (lambda: PreActResNet18(channels=0), "channels must be a whole number"),
        (lambda: SmallCNN(size=3), "size of SmallCNN"),
    ],
)
def test_settings_out_of_range(build, words):
    with pytest.raises(SettingError, match=words):
        build()


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (2, 3, 32), (2, 6, 32, 32), (2, 3072)])
def test_other_inputs_than_images_of_these_channels(shape):
    for model in (SmallCNN(), WideResNet(10, 1)):
        with pytest.raises(InputError, match="takes images"):
            model(torch.rand(*shape))


def test_another_size_than_that_of_the_small_cnn():
    with pytest.raises(InputError, match=r"takes images of 32x32 pixels; got shape \(2, 3, 33, 32\)"):
        SmallCNN()(torch.rand(2, 3, 33, 32))


def test_the_registry_names_every_network():
    from assay.models import networks

    assert set(registry.names("network")) == set(networks.__all__)
    assert count(grammar.named("fashioncnn", nn.Module)) == count(FashionCNN())
    assert count(grammar.named("DigitsMLP(hidden=5)", nn.Module)) == count(DigitsMLP(5)) == 65 * 5 + 60


def test_a_wide_resnet_learns():
    torch.manual_seed(0)
    model = WideResNet(10, 1, classes=2)
    x, y = torch.rand(32, 3, 8, 8), torch.arange(32) % 2
    x[y == 1, 0] *= 0.3
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for _ in range(15):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
