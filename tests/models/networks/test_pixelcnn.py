"""The PixelCNN is a density, looks at nothing that comes later, and its scan computes what whole evaluations do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from assay.defenses.generative import Density
from assay.defenses.logistic_mixture import LogisticMixture
from assay.errors import InputError, SettingError
from assay.models.networks import ConvAutoencoder, PixelCNN

SHAPES = ((1, (1, 2, 3), 7, 6), (3, (2, 1), 5, 7), (2, (1,), 4, 4))


def network(channels=1, dilations=(1, 2), width=4):
    torch.manual_seed(channels)
    net = PixelCNN(channels, width=width, dilations=dilations, components=3).double().eval()
    for p in net.parameters():
        nn.init.normal_(p, std=0.4)  # so that far pixels matter
    return net


def levels(b, *shape):
    return torch.randint(0, 256, (b, *shape), generator=torch.Generator().manual_seed(3)).double()


def test_the_256_levels_of_a_pixel_have_probability_one():
    numbers = 3 * torch.randn(4, LogisticMixture.size(1, 5), generator=torch.Generator().manual_seed(0)).double()
    every = torch.arange(256).double().expand(4, 256)
    image = numbers[:, :, None, None].expand(-1, -1, 16, 16)  # the same distribution at 256 places
    one_by_one = LogisticMixture(image, 1).log_prob(every.reshape(4, 1, 16, 16)).flatten(1)
    torch.testing.assert_close(one_by_one.exp().sum(dim=1), torch.ones(4).double())
    torch.testing.assert_close(LogisticMixture(numbers, 1).conditional([], every), one_by_one)


def test_the_levels_of_a_colour_given_the_others_have_probability_one():
    numbers = torch.randn(2, LogisticMixture.size(3, 4), generator=torch.Generator().manual_seed(1)).double()
    mixture, known = LogisticMixture(numbers, 3), []
    every, total = torch.arange(256).double().expand(2, 256), torch.zeros(2).double()
    for value in (17.0, 255.0, 0.0):
        found = mixture.conditional(known, every)
        torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(2).double())
        total += found[:, int(value)]
        known.append(torch.full((2,), value).double())
    torch.testing.assert_close(total, mixture.log_prob(torch.stack(known, dim=1)))


def test_a_mixture_is_its_formula():
    weights, means, log_scales = ([0.3, -1.0], [-0.5, 0.25], [-2.0, -4.0])
    numbers = torch.tensor([*weights, *means, *log_scales], dtype=torch.float64)[None]

    def logistic(v):
        return 0.0 if v == -math.inf else 1.0 if v == math.inf else 1 / (1 + math.exp(-v))

    share = [math.exp(w) / sum(map(math.exp, weights)) for w in weights]
    for level in (0, 1, 60, 160, 254, 255):
        at = level / 127.5 - 1
        wanted = 0.0
        for part, mean, log_scale in zip(share, means, log_scales, strict=True):
            high = math.inf if level == 255 else (at + 1 / 255 - mean) / math.exp(log_scale)
            low = -math.inf if level == 0 else (at - 1 / 255 - mean) / math.exp(log_scale)
            wanted += part * (logistic(high) - logistic(low))
        found = LogisticMixture(numbers, 1).log_prob(torch.tensor([[level]]).double())
        assert float(found.exp()) == pytest.approx(wanted, rel=1e-9)


def test_far_tails_have_finite_logarithms_and_slopes():
    numbers = torch.tensor([[0.0, 0.9, -9.0]]).requires_grad_()  # mean 0.9, and the least scale that there is
    found = LogisticMixture(numbers, 1).log_prob(torch.tensor([[3.0]]))
    found.sum().backward()
    assert float(found.detach()) < -1000
    assert bool(numbers.grad.isfinite().all())


@pytest.mark.parametrize(("channels", "dilations", "h", "w"), SHAPES)
def test_a_pixel_depends_on_all_before_it_and_on_nothing_else(channels, dilations, h, w):
    net, x = network(channels, dilations), levels(1, channels, h, w)
    place = (h // 2) * w + w // 2
    before = net.numbers(x).flatten(2)
    moved = x.clone().flatten(2)
    moved[:, 0, place] = 255 - moved[:, 0, place]
    after = net.numbers(moved.view_as(x)).flatten(2)
    changed = (after != before).any(dim=1)[0]
    assert not bool(changed[: place + 1].any())
    assert bool(changed[place + 1])
    assert bool(changed.view(h, w)[h // 2 + 1, w // 2 - 1 : w // 2 + 2].all())  # below, and to both sides


@pytest.mark.parametrize(("channels", "dilations", "h", "w"), SHAPES)
def test_the_scan_gives_what_whole_evaluations_give(channels, dilations, h, w):
    net, x = network(channels, dilations), levels(3, channels, h, w)
    with torch.no_grad():
        wanted = net.numbers(x)
        quick, whole = net.scan(levels(3, channels, h, w)), Density.scan(net, torch.zeros_like(x))
        for row in range(h):
            for column in range(w):
                there = LogisticMixture(wanted[:, :, row, column], channels)
                for found in (quick.at(row, column), whole.at(row, column)):
                    for part in ("weights", "means", "log_scales", "factors"):
                        torch.testing.assert_close(getattr(found, part), getattr(there, part), rtol=0, atol=1e-12)
                quick.put(row, column, x[:, :, row, column])
                whole.put(row, column, x[:, :, row, column])


def test_likelihood_is_the_product_over_pixels():
    net, x = network(3), levels(2, 3, 3, 3)
    numbers, total = net.numbers(x), torch.zeros(2).double()
    for row in range(3):
        for column in range(3):
            mixture = LogisticMixture(numbers[:, :, row, column], 3)
            known = []
            for value in x[:, :, row, column].unbind(dim=1):
                total += mixture.conditional(known, value[:, None] + torch.arange(1))[:, 0]
                known.append(value)
    torch.testing.assert_close(net.log_likelihood(x / 255), total)
    torch.testing.assert_close(net.bits(x / 255), -total / (27 * math.log(2)))
    off = x / 255 + 0.4 / 255
    torch.testing.assert_close(net.log_likelihood(off.clamp(0, 1)), total)


def test_bad_settings_and_inputs_are_refused():
    for settings in ({"dilations": ()}, {"dilations": (0,)}, {"width": 0}, {"channels": 0}, {"dropout": 1.0}):
        with pytest.raises(SettingError):
            PixelCNN(**settings)
    with pytest.raises(InputError, match="takes images"):
        PixelCNN(width=2)(torch.zeros(1, 3, 4, 4))
    for settings in ({"width": 0}, {"channels": 0}):
        with pytest.raises(SettingError):
            ConvAutoencoder(**settings)
    for shape in ((1, 3, 4, 4), (1, 1, 5, 4), (1, 4)):
        with pytest.raises(InputError, match="takes"):
            ConvAutoencoder()(torch.zeros(shape))
