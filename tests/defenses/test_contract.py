"""What every defense keeps to: its text builds it again, draws are keyed by sample, gradients are what it declares."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from assay import defenses, registry
from assay.models import Defended
from assay.models.defended import read_defense
from assay.models.networks import APEGenerator, ConvAutoencoder, ConvGenerator, DenseGenerator, PixelCNN
from assay.oracle import is_stochastic
from assay.rng import Keyed, drawing

OWN = f"{__name__}:"  # networks that defenses bring are MODELs, and these are functions of this file
TEXTS = (
    "RandomResizePad(lowest=7, final=9)",
    "BitDepth(bits=2)",
    "JPEGDefense(60)",
    "JPEGDefense(60, codec='pillow')",
    "TotalVariation(weight=0.1, steps=10)",
    "TotalVariation(keep=1.0, steps=10)",
    "MedianFilter(2)",
    "MedianFilter(3)",
    "Thermometer(4)",
    "InputNoise(0.1)",
    "NoiseLayers(first=0.3, inner=0.2)",
    "Averaged(InputNoise(0.1), passes=3)",
    "Averaged(RandomResizePad(final=9), passes=2, combine='logits')",
    "RSE(passes=2)",
    "Smoothed(3.0, draws=25)",
    "Transformed(Noise(0.1), Blur(1.0))",
    "Distilled(20)",
    f"DefenseGAN('{OWN}generator', restarts=2, steps=30)",
    f"DefenseGAN('{OWN}conv_generator', restarts=2, steps=5)",
    f"ReconstructionDetector(DefenseGAN('{OWN}generator', 2, 30), (0.08,))",
    f"APEGANDefense('{OWN}ape_generator')",
    f"MagNet('{OWN}pooled', '{OWN}plain', (10.0,), (0.05, 0.3, 0.01))",
    f"PixelDefend('{OWN}pixels', eps=9)",
    f"DensityDetector('{OWN}pixels', (7.0,))",
)


def pooled():
    torch.manual_seed(3)
    return ConvAutoencoder(width=2).double()


def plain():
    return ConvAutoencoder(width=2, pooled=False).double()


def pixels():
    torch.manual_seed(3)
    return PixelCNN(width=2, dilations=(1,), components=2).double()


def generator():
    torch.manual_seed(3)
    return DenseGenerator(size=8, latent=4, hidden=16).double()


def conv_generator():
    torch.manual_seed(3)
    return ConvGenerator(size=8, latent=4, width=2).double()


def ape_generator():
    torch.manual_seed(3)
    return APEGenerator(width=2).double()


class Net(nn.Module):
    def __init__(self, channels=1):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(channels, 4, 3), nn.Conv2d(4, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.conv2(self.conv1(x).relu()).relu().mean(dim=(2, 3)))


def network(text):
    torch.manual_seed(0)
    return Net(4 if text.startswith("Thermometer") else 1).double().eval()


def images(n=5):
    return torch.rand(n, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_every_defense_is_tried():
    assert {text.partition("(")[0] for text in TEXTS} == set(registry.names("defense"))
    others = {"Defense", "Detector", "InputDefense", "insert_noise", "p_values", "through", "with_rejection"}
    assert set(registry.names("defense")) == set(defenses.__all__) - others


@pytest.mark.parametrize("text", TEXTS)
def test_text_builds_it_again(text):
    first = read_defense(text)
    assert repr(read_defense(repr(first))) == repr(first)
    assert first.gradient in ("exact", "straight-through", "surrogate")


@pytest.mark.parametrize("text", TEXTS)
def test_answers_depend_on_seed_and_sample_alone(text):
    model, x = Defended(network(text), read_defense(text)), images()
    index = torch.tensor([4, 9, 2, 0, 7])
    whole = model(x, seed=3, index=index)
    alone = torch.cat([model(x[i : i + 1], seed=3, index=index[i : i + 1]) for i in range(5)])
    turned = model(x.flip(0), seed=3, index=index.flip(0)).flip(0)
    assert torch.allclose(alone, whole, atol=1e-9)
    assert torch.allclose(turned, whole, atol=1e-9)
    assert torch.equal(copy.deepcopy(model)(x, seed=3, index=index), whole)
    other = model(x, seed=4, index=index)
    assert torch.equal(other, whole) != is_stochastic(model)
    torch.manual_seed(5)
    plain = model(x)
    torch.manual_seed(5)
    assert torch.equal(model(x), plain)
    assert torch.equal(model(x), plain) != is_stochastic(model)


@pytest.mark.parametrize("text", TEXTS)
def test_the_model_is_left_as_it_was(text):
    net, x = network(text), images()
    before = copy.deepcopy(net.state_dict())
    shown = defenses.Thermometer(4).transform(x) if text.startswith("Thermometer") else x
    plain = net(shown)
    model = Defended(net, read_defense(text))
    model(x.requires_grad_()).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(net(shown), plain)
    assert not any(part.training for part in model.modules())


@pytest.mark.parametrize("text", TEXTS)
def test_declared_gradients_reach_the_input(text):
    model, x = Defended(network(text), read_defense(text)), images().requires_grad_()
    (grad,) = torch.autograd.grad(model(x, seed=0)[:, 0].sum(), x)
    assert bool((grad.flatten(1).norm(dim=1) > 0).all())


EXACT = [text for text in TEXTS if read_defense(text).gradient == "exact"]


@pytest.mark.parametrize("text", EXACT)
def test_exact_gradients_are_finite_differences(text):
    model, x = Defended(network(text), read_defense(text)), images(1)
    weights = torch.tensor([1.0, -2.0, 0.5, 0.3], dtype=torch.float64)  # the last for a rejection

    def value(at):
        found = model(at, seed=0)
        return (found * weights[: found.shape[1]]).sum()

    direction = torch.randn(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (grad,) = torch.autograd.grad(value(x.requires_grad_()), x)
    step = 1e-6
    slope = (value(x.detach() + step * direction) - value(x.detach() - step * direction)) / (2 * step)
    assert float((grad * direction).sum()) == pytest.approx(float(slope.detach()), rel=1e-4, abs=1e-7)


DETECTORS = [text for text in TEXTS if isinstance(read_defense(text), defenses.Detector)]  # have tests of their own


@pytest.mark.parametrize("text", [text for text in TEXTS if text not in EXACT and text not in DETECTORS])
def test_other_gradients_are_those_of_the_stand_in(text):
    defense, x = read_defense(text), images().requires_grad_()
    if isinstance(defense, defenses.Averaged):
        with drawing(Keyed(0, torch.arange(5), dtype=torch.float64)):
            value = defense(network(text), x)
        soft = defenses.Averaged(defense.defense, defense.passes)
        with drawing(Keyed(0, torch.arange(5), dtype=torch.float64)):
            stand_in = soft(network(text), x)
    else:
        with drawing(Keyed(0, torch.arange(5))):
            value, stand_in = defense.shown(x), defense.stand_in(x)
        with drawing(Keyed(0, torch.arange(5))):
            assert torch.equal(value, defense.transform(x.detach()))  # forwards nothing else is seen
    towards = torch.randn(value.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    found, wanted = (torch.autograd.grad((each * towards).sum(), x)[0] for each in (value, stand_in))
    assert torch.allclose(found, wanted)
    assert bool(wanted.abs().sum() > 0)
    if defense.gradient == "straight-through":
        assert torch.equal(found, towards)
