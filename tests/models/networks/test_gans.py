"""Generators and critics: computed again from their weights, for grey and coloured images; what they refuse."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from assay.errors import InputError, SettingError
from assay.models.networks import APEGenerator, ConvGenerator, DenseGenerator
from assay.models.networks.critics import ConvCritic, DenseCritic, critic_of


def built(network, **settings):
    torch.manual_seed(0)
    return network(**settings).double()


def normal(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_dense_generator_is_its_formula():
    net, z = built(DenseGenerator, channels=3, size=5, latent=4, hidden=6), normal(7, 4)
    h = (z @ net.first.weight.T + net.first.bias).clamp_min(0)
    h = (h @ net.second.weight.T + net.second.bias).clamp_min(0)
    torch.testing.assert_close(net.features(z), h)
    wanted = (h @ net.head.weight.T + net.head.bias).reshape(7, 3, 5, 5)
    torch.testing.assert_close(net(z), wanted)


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (2, 12)])
def test_conv_generator_makes_images_of_any_quarter(channels, size):
    net, z = built(ConvGenerator, channels=channels, size=size, latent=4, width=3), normal(2, 4)
    h = (z @ net.first.weight.T + net.first.bias).clamp_min(0).reshape(2, 6, size // 4, size // 4)
    for layer, act in ((net.second, torch.relu), (net.head, torch.sigmoid)):
        spread = torch.zeros(*h.shape[:2], 2 * h.shape[2] - 1, 2 * h.shape[3] - 1, dtype=h.dtype)
        spread[:, :, ::2, ::2] = h  # a transposed convolution is one of the image with zeros between its pixels
        h = act(F.conv2d(spread, layer.weight.flip(2, 3).transpose(0, 1), layer.bias, padding=2))
    torch.testing.assert_close(net(z), h)
    assert h.shape == (2, channels, size, size)


@pytest.mark.parametrize("kind", [ConvCritic, DenseCritic])
def test_a_critic_judges_each_image_by_itself(kind):
    net, x = built(kind, channels=3, size=8, width=5), normal(6, 3, 8, 8)
    whole = net(x)
    assert whole.shape == (6,)
    torch.testing.assert_close(torch.cat([net(x[i : i + 1]) for i in range(6)]), whole)
    assert len(whole.unique()) == 6
    assert not any("norm" in name for name, _ in net.named_modules())


def test_a_critic_is_made_for_the_images():
    x = torch.zeros(2, 3, 8, 8)
    assert isinstance(critic_of(x, convolutional=True, width=2), ConvCritic)
    assert critic_of(x, convolutional=False, width=2)(x).shape == (2,)
    with pytest.raises(InputError, match="square"):
        critic_of(torch.zeros(2, 3, 8, 4), convolutional=False, width=2)


def test_ape_generator_is_its_formula():
    net, x = built(APEGenerator, channels=2, width=3).eval(), normal(4, 2, 8, 12).sigmoid()
    for norm in (net.norm1, net.norm2, net.norm3):
        norm.running_mean.normal_(0, 0.3)
        norm.running_var.uniform_(0.5, 2)
        norm.weight.data.uniform_(0.5, 2)

    def normed(h, norm):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        h = (h - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
        return torch.where(h > 0, h, 0.2 * h)

    h = normed(F.conv2d(2 * x - 1, net.down1.weight, net.down1.bias, stride=2, padding=1), net.norm1)
    h = normed(F.conv2d(h, net.down2.weight, net.down2.bias, stride=2, padding=1), net.norm2)
    h = normed(F.conv_transpose2d(h, net.up1.weight, net.up1.bias, stride=2, padding=1), net.norm3)
    h = F.conv_transpose2d(h, net.up2.weight, net.up2.bias, stride=2, padding=1)
    torch.testing.assert_close(net(x), (torch.tanh(h) + 1) / 2)
    assert len(net.activations(x)) == 4


def test_what_does_not_fit_is_refused():
    for network in (ConvGenerator, ConvCritic):
        with pytest.raises(SettingError, match="multiple of 4"):
            network(size=30)
    for network in (DenseGenerator, ConvGenerator, DenseCritic, ConvCritic, APEGenerator):
        with pytest.raises(SettingError, match="channels"):
            network(channels=0)
    for network in (DenseGenerator(latent=4), ConvGenerator(latent=4)):
        with pytest.raises(InputError, match="4 normal numbers"):
            network(torch.zeros(2, 5))
    with pytest.raises(InputError, match="multiples of 4"):
        APEGenerator(channels=1)(torch.zeros(2, 3, 8, 8))
