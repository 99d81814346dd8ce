"""MagNet against its formulas, and thresholds that drop the share that they were asked to drop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import assay
from assay.defenses import BitDepth, Detector, MagNet, with_rejection
from assay.defenses.generative import Autoencoder
from assay.errors import GrammarError, ModelError, SettingError
from assay.models import Defended
from assay.models.networks import ConvAutoencoder

LABELS = torch.zeros(6, dtype=torch.int64)


class Scaled(Autoencoder):
    """`A(x) = factor x`."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def activations(self, x):
        return [self.factor * x]


class Mean(Detector):
    """Rejects inputs whose mean or first value is large."""

    statistics = ("mean", "first")

    def judged(self, model, x):
        return torch.stack([x.flatten(1).mean(dim=1), x.flatten(1)[:, 0]], dim=1), model(x)


def affine():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double().requires_grad_(False)


def images(n=6, seed=2):
    return torch.rand(n, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def magnet(**settings):
    given = {"reformer": Scaled(0.5), "detector": Scaled(0.25), "thresholds": (0.05, 0.4, 0.01)}
    return MagNet(**given | {"temperatures": (4.0,)} | settings).double()


def test_statistics_are_their_formulas():
    net, x = affine(), images()
    scores, logits = magnet().judged(net, x)
    for row, image in enumerate(x):
        values = image.flatten().tolist()
        assert float(scores[row, 0]) == pytest.approx(sum((v / 2) ** 2 for v in values) / 16)
        assert float(scores[row, 1]) == pytest.approx(sum(0.75 * v for v in values) / 16)
        p, q = ((net(each) / 4).softmax(1)[0].tolist() for each in (image[None], image[None] / 2))
        middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        halves = [sum(a * math.log(a / m) for a, m in zip(one, middle, strict=True)) for one in (p, q)]
        assert float(scores[row, 2]) == pytest.approx(sum(halves) / 2)
    assert torch.equal(logits, net(x / 2))


def test_the_answer_is_to_the_reformed_input_and_the_largest_excess_rejects():
    net, x = affine(), images()
    scores, _ = magnet().judged(net, x)
    defense = magnet(thresholds=tuple(scores.sort(dim=0).values[4].tolist()))  # each rejects one of six
    limits = torch.tensor(defense.thresholds, dtype=torch.float64)
    wanted = with_rejection(net(x / 2), ((scores - limits) / limits).amax(dim=1))
    found = Defended(net, defense)(x)
    assert torch.equal(found, wanted)
    dropped = (scores > limits).any(dim=1)
    assert bool(dropped.any())
    assert not bool(dropped.all())
    assert torch.equal(found.argmax(dim=1) == 3, dropped)


def test_without_temperatures_the_model_is_asked_once():
    asked = []

    def model(x):
        asked.append(len(x))
        return x.flatten(1)[:, :3]

    magnet(temperatures=(), thresholds=(9.0, 9.0))(model, images())
    assert asked == [6]


def test_the_networks_stay_as_they_are():
    defense = MagNet(ConvAutoencoder(), ConvAutoencoder(pooled=False), thresholds=(1.0,) * 4)
    model = Defended(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), defense)
    x = images().float()
    model(x).sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in defense.parameters())
    assert model(x.double().float()).dtype == torch.float32
    assert {name.split(".")[0] for name in defense.state_dict()} == {"first", "second"}


@pytest.mark.parametrize(("count", "drop", "dropped"), [(1000, 0.01, 10), (999, 0.1, 99), (40, 0.0, 0), (50, 0.5, 25)])
def test_thresholds_drop_the_stated_share_of_each_statistic(count, drop, dropped):
    x = images(count, seed=4)
    y = torch.zeros(count, dtype=torch.int64)
    found = assay.calibrate(affine(), (x, y), Mean(), drop=drop)
    scores, _ = found.judged(affine(), x)
    over = scores > torch.tensor(found.thresholds, dtype=torch.float64)
    assert over.sum(dim=0).tolist() == [dropped, dropped]
    assert Mean().thresholds == ()
    other, _ = found.judged(affine(), images(2000, seed=5))
    share = (other > torch.tensor(found.thresholds, dtype=torch.float64)).double().mean(dim=0)
    assert bool(((share - drop).abs() < 5 * math.sqrt(0.25 / count) + 0.02).all())


def test_samples_are_left_out_as_asked():
    x, y = images(30), torch.zeros(30, dtype=torch.int64)
    whole = assay.calibrate(affine(), (x[10:25], y[10:25]), Mean(), drop=0.2)
    assert assay.calibrate(affine(), (x, y), Mean(), drop=0.2, skip=10, limit=15).thresholds == whole.thresholds


def test_the_text_holds_the_thresholds(tmp_path):
    x, y = torch.rand(60, 1, 4, 4), torch.arange(60) % 2
    for name, pooled in (("a", True), ("b", False)):
        assay.train(
            f"ConvAutoencoder(pooled={pooled})", (x, y), recipe="reconstruction", epochs=1, batch=20, progress=False,
            out=tmp_path / name,
        )  # fmt: skip
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    defense = f"MagNet('{tmp_path / 'a'}', '{tmp_path / 'b'}', (2.0,))"
    found = assay.calibrate(net, (x, y), defense, drop=0.05)
    again = assay.defend(net, repr(found))
    assert again.defenses[0].thresholds == found.thresholds
    assert torch.equal(again(x), Defended(net, found)(x))
    share = float((again(x).argmax(dim=1) == 3).float().mean())
    assert 0.03 <= share <= 0.15  # 3 of 60 by each of three statistics


@pytest.mark.parametrize(
    ("build", "error", "says"),
    [
        (lambda: magnet(thresholds=(0.1,)), SettingError, "squared error, absolute error, divergence at 4"),
        (lambda: magnet(thresholds=(0.1, 0.1, 0.0)), SettingError, "above 0"),
        (lambda: magnet(temperatures=(0.0,)), SettingError, "temperatures"),
        (lambda: magnet(reformer=nn.Flatten()), SettingError, "has to be an Autoencoder"),
        (lambda: magnet(reformer="fashion-cnn"), SettingError, "is a FashionCNN"),
        (lambda: magnet(reformer="runs/nothing"), ModelError, "reformer of MagNet"),
        (lambda: magnet(thresholds=())(affine(), images()), SettingError, "assay calibrate"),
        (lambda: assay.calibrate(affine(), (images(), LABELS), BitDepth()), SettingError, "rejects nothing"),
        (lambda: assay.calibrate(affine(), (images(), LABELS), Mean()), SettingError, "at least 1000"),
        (lambda: assay.calibrate(affine(), (images(), LABELS), Mean(), skip=6), SettingError, "leaves nothing"),
        (lambda: assay.calibrate(affine(), (images(), LABELS), Mean(), drop=1.0), SettingError, "drop"),
        (lambda: assay.calibrate(affine(), (images(), LABELS), "MagNet(3)"), GrammarError, "MagNet"),
    ],
)
def test_what_cannot_be_used_is_refused(build, error, says):
    with pytest.raises(error, match=says):
        build()
