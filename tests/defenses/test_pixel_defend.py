"""PixelDefend finds the greedy images, with a cache exactly those of without, and its detector ranks by likelihood."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import assay
from assay.defenses import DensityDetector, PixelDefend, p_values
from assay.defenses.generative import Density, as_levels
from assay.defenses.logistic_mixture import LogisticMixture
from assay.defenses.pixel_defend import decoded
from assay.errors import InputError, SettingError
from assay.models import Defended
from assay.models.networks import PixelCNN


class Sliding(Density):
    """Each pixel is likely near the one before it: a density whose greedy images are known."""

    channels = 1

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(-4.0))

    def numbers(self, levels):
        flat = levels.flatten(1).to(self.scale) / 127.5 - 1
        before = torch.cat([torch.zeros_like(flat[:, :1]), flat[:, :-1]], dim=1).view_as(levels)
        return torch.cat([torch.zeros_like(before), before, self.scale.expand_as(before)], dim=1)


def network(channels=1, width=3):
    torch.manual_seed(channels)
    net = PixelCNN(channels, width=width, dilations=(1, 2), components=2).double().eval()
    for p in net.parameters():
        nn.init.normal_(p, std=0.5)
    return net


def levels(b, *shape):
    return torch.randint(0, 256, (b, *shape), generator=torch.Generator().manual_seed(3)).double()


def test_greedy_images_of_a_known_density():
    """Every level goes as far towards the one before it as it may; the first goes towards the middle."""
    x = levels(4, 1, 3, 5)
    found, before = x.clone().flatten(1), torch.full((4,), 127.4)
    for place in range(15):
        own = x.flatten(1)[:, place]
        before = torch.maximum(torch.minimum(before.round(), own + 20), own - 20)
        found[:, place] = before
    with torch.no_grad():
        assert torch.equal(decoded(Sliding().double(), x, 20).flatten(1)[:, 1:], found[:, 1:])


@pytest.mark.parametrize(("channels", "h", "w", "eps"), [(1, 7, 6, 30), (3, 4, 5, 12), (1, 5, 5, 255)])
def test_the_cached_decoding_is_the_uncached_one(channels, h, w, eps, monkeypatch):
    net, x = network(channels), levels(3, channels, h, w)
    with torch.no_grad():
        quick = decoded(net, x, eps)
        monkeypatch.setattr(PixelCNN, "scan", Density.scan)
        assert torch.equal(decoded(net, x, eps), quick)
    assert float((quick - x).abs().max()) <= eps
    assert bool((quick != x).any())
    assert float(quick.min()) >= 0
    assert float(quick.max()) <= 255
    before, after = (net.log_likelihood(each / 255) for each in (x, quick))
    assert bool((after > before).all())


def test_no_value_near_it_is_likelier_given_those_before():
    """The choice at a few pixels, by trying every level that is allowed."""
    net, x = network(), levels(1, 1, 4, 4)
    with torch.no_grad():
        found = decoded(net, x, 25)
        for row, column in ((0, 0), (1, 2), (3, 3)):
            tried = torch.arange(max(0, int(x[0, 0, row, column]) - 25), min(255, int(x[0, 0, row, column]) + 25) + 1)
            many = found.repeat(len(tried), 1, 1, 1)
            many[:, 0, row, column] = tried.double()
            mass = net.numbers(many)[:1, :, row, column]
            each = torch.stack([LogisticMixture(mass, 1).log_prob(value.reshape(1, 1)) for value in tried.double()])
            assert int(tried[each.argmax()]) == int(found[0, 0, row, column])


def test_only_unlikely_images_are_changed_where_it_says_so():
    net, x = network(), levels(6, 1, 5, 5) / 255
    bits = net.bits(x).detach()
    middle = float(bits.sort().values[2:4].mean())
    found = PixelDefend(net, eps=20, above=middle).transform(x)
    changed = (found != x).flatten(1).any(dim=1)
    assert torch.equal(changed, bits > middle)
    assert torch.equal(found[changed], PixelDefend(net, eps=20).transform(x)[changed])


def test_images_do_not_depend_on_type_or_batch():
    defense = PixelDefend(network().float(), eps=20)
    x = levels(5, 1, 6, 6) / 255
    whole = defense.transform(x.float())
    assert whole.dtype == torch.float32
    assert torch.equal(whole, torch.cat([defense.transform(x[i : i + 1].float()) for i in range(5)]))
    assert torch.equal((defense.transform(x) * 255).round(), (whole * 255).round())


def test_gradients_are_those_of_the_identity():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double()
    defense, x = PixelDefend(network(), eps=40), (levels(2, 1, 4, 4) / 255).requires_grad_()
    model = Defended(head, defense)
    (grad,) = torch.autograd.grad(model(x)[:, 0].sum(), x)
    assert torch.equal(grad, head[1].weight[0].view(1, 1, 4, 4).expand(2, 1, 4, 4))
    assert torch.equal(model(x), head(defense.transform(x.detach())))


def test_the_detector_ranks_by_bits_and_its_gradient_ignores_the_rounding():
    net, x = network(), levels(40, 1, 4, 4) / 255
    reference = net.bits(x).detach()
    found = assay.calibrate(nn.Flatten(), (x, torch.zeros(40, dtype=torch.int64)), DensityDetector(net), drop=0.1)
    others = levels(40, 1, 8, 8)[:, :, 2:6, 2:6] / 255
    rejected = Defended(nn.Flatten(), found)(others).argmax(dim=1) == 16
    assert torch.equal(rejected, p_values(net.bits(others), reference) <= 5 / 41 + 1e-6)
    assert float(p_values(reference.max()[None] + 1, reference)) == pytest.approx(1 / 41)

    image = (others[:1] + 0.2 / 255).clamp(0, 1).requires_grad_()
    (grad,) = torch.autograd.grad(found.judged(nn.Flatten(), image)[0].sum(), image)
    direction = torch.randn(1, 1, 4, 4, generator=torch.Generator().manual_seed(1)).double()

    def smooth(at):  # the same likelihood at numbers between the levels
        return -LogisticMixture(net.numbers(at), 1).log_prob(at).sum() / 16 / torch.tensor(2.0).log()

    start = as_levels(image.detach())
    step = 1e-5
    slope = (smooth(start + step * direction) - smooth(start - step * direction)) / (2 * step) * 255
    inside = (start > 0) & (start < 255)
    assert bool(inside.all())
    assert float((grad * direction).sum()) == pytest.approx(float(slope.detach()), rel=1e-4)


def test_what_cannot_be_used_is_refused():
    for settings in ({"eps": -1}, {"eps": 300}, {"eps": 2.5}, {"above": -1.0}):
        with pytest.raises(SettingError):
            PixelDefend(network(), **settings)
    with pytest.raises(SettingError, match="has to be a Density"):
        PixelDefend("fashion-cnn")
    with pytest.raises(InputError):
        PixelDefend(network()).transform(torch.zeros(2, 3, 4, 4))
    with pytest.raises(SettingError, match="bits per value"):
        DensityDetector(network(), thresholds=(1.0, 2.0))
