"""Recipes that train no classifier: their losses by hand, what is measured and kept, and runs that were killed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import assay
from assay import grammar, registry
from assay.defenses.generative import Generator
from assay.errors import DivergedError, GrammarError, InputError, ModelError, SettingError
from assay.models.networks import ConvAutoencoder, PixelCNN
from assay.rng import Keyed, derive
from assay.training.optimizers import SGD, Adam, Optimizer
from assay.training.recipes import Batch, GenerativeRecipe, Likelihood, Reconstruction
from assay.training.schedules import Constant

SMALL = "PixelCNN(width=3, dilations=(1,), components=2)"
RUNS = (("reconstruction", "ConvAutoencoder()"), ("likelihood", SMALL))


def images(count=40, side=6):
    draw = torch.Generator().manual_seed(5)
    ramp = torch.linspace(0, 1, side).expand(count, 1, side, side)
    return (0.8 * ramp + 0.2 * torch.rand(count, 1, side, side, generator=draw)), torch.arange(count) % 2


def batch(**settings):
    x, y = images(6)
    return replace(Batch(x=x.double(), y=y, index=torch.arange(6) * 3 + 1, seed=11), **settings)


def test_reconstruction_is_its_formula():
    torch.manual_seed(0)
    net, b = ConvAutoencoder().double(), batch()
    recipe = Reconstruction(noise=0.3, activity=1e-3)
    noise = Keyed(derive(11, "noise"), b.index).normal(1, 6, 6).double()
    noisy = (b.x + 0.3 * noise).clamp(0, 1)
    convs, h, size = list(net.convs), noisy, 0.0
    for place, conv in enumerate(convs):
        h = 1 / (1 + torch.exp(-F.conv2d(h, conv.weight, conv.bias, padding=1)))
        size = size + (h**2).sum()
        if place == 0:
            h = (h[..., ::2, ::2] + h[..., 1::2, ::2] + h[..., ::2, 1::2] + h[..., 1::2, 1::2]) / 4
        if place == 2:
            h = h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    wanted = ((h - b.x) ** 2).mean() + 1e-3 * size / 6
    found = recipe.loss(net, b, recipe.prepare(net, b))
    torch.testing.assert_close(found, wanted)
    for one, other in zip(*(torch.autograd.grad(v, net.parameters()) for v in (found, wanted)), strict=True):
        torch.testing.assert_close(one, other)
    clean = replace(recipe, noise=0.0, activity=0.0)
    per_image = recipe.measure(net, b)
    assert per_image.shape == (6,)
    torch.testing.assert_close(clean.loss(net, b, clean.prepare(net, b)), per_image.mean())


def test_likelihood_is_bits_of_a_code():
    """A network whose answer is the same everywhere: the code length of each level is known from its histogram."""
    net, b = PixelCNN(width=2, dilations=(1,), components=1).double(), batch()
    for p in net.parameters():
        nn.init.zeros_(p)
    levels = (b.x * 255).round()
    at = (levels / 127.5 - 1).double()  # mean 0, scale 1
    upper = torch.where(levels == 255, 1.0, torch.sigmoid(at + 1 / 255))
    lower = torch.where(levels == 0, 0.0, torch.sigmoid(at - 1 / 255))
    wanted = -(upper - lower).log2().mean()
    torch.testing.assert_close(Likelihood().loss(net, b, {}), wanted)
    torch.testing.assert_close(Likelihood().measure(net, b).mean(), wanted)


@pytest.mark.parametrize(("recipe", "network"), RUNS)
def test_it_learns_and_the_lowest_is_kept(recipe, network, tmp_path):
    found = assay.train(
        network, images(), recipe=recipe, epochs=4, batch=8, optimizer="Adam(lr=0.03)", validation=8, progress=False,
        out=tmp_path / "r",
    )  # fmt: skip
    told = [row["quality"] for row in found.history]
    assert told[-1] < told[0]
    assert found.quality == min(told)
    assert found.best["clean"] is found.best["robust"] is found.clean_accuracy is None
    card = json.loads((tmp_path / "r" / "model.json").read_text())
    assert list(card["held_out"].values()) == [found.quality]
    page = (tmp_path / "r" / "report.html").read_text()
    assert f"{next(iter(card['held_out']))} {found.quality:.5g} on 8 held-out samples" in page
    net, held = assay.load_model(str(tmp_path / "r")), found.model
    x = images()[0][:3]
    assert torch.equal(net(x), held(x))
    lines = (tmp_path / "r" / "metrics.csv").read_text().splitlines()
    assert float(lines[-1].split(",")[lines[0].split(",").index("quality")]) == told[-1]


@pytest.mark.parametrize(("recipe", "network"), RUNS)
def test_a_killed_run_ends_with_the_same_weights(recipe, network, tmp_path, checkpoint, identical, monkeypatch):
    settings = {"recipe": recipe, "epochs": 2, "batch": 8, "average": "ema", "progress": False}
    assay.train(network, images(), out=tmp_path / "whole", **settings)
    kind = type(grammar.recipe(recipe))
    real, steps = kind.loss, []

    def dies(self, model, batch, views):
        if len(steps) == 6:
            raise KeyboardInterrupt
        steps.append(1)
        return real(self, model, batch, views)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "loss", dies)
        with pytest.raises(KeyboardInterrupt):
            assay.train(network, images(), out=tmp_path / "killed", **settings)
    assay.train(network, images(), out=tmp_path / "killed", resume=True, **settings)
    identical(checkpoint(tmp_path / "killed"), checkpoint(tmp_path / "whole"))


class Line(Generator):
    """`G(z) = w z`."""

    latent = 1

    def __init__(self, start=0.25):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([start]))

    def forward(self, z):
        return self.w * z


@dataclass(frozen=True, kw_only=True)
class Game(GenerativeRecipe):
    """A critic `c` that follows `c (mean(x) - w)`, twice a step, and a network that follows `-c w`."""

    quality = "distance"
    trains = Generator
    critic_optimizer: Optimizer = field(default_factory=lambda: SGD(lr=0.1, momentum=0.5, weight_decay=0.0))
    notes: list[float] = field(default_factory=list, repr=False, compare=False)

    def check(self, model, x):
        model(x.new_ones(1, 1))

    def critic(self, model, x):
        net = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(net.weight)
        return net, self.critic_optimizer

    def critic_losses(self, model, batch, views) -> Iterator[torch.Tensor]:
        for part in batch.x.flatten(1).mean(dim=1).chunk(2):
            self.notes.append(batch.critic.weight.item())
            yield -batch.critic((part.mean() - model.w).reshape(1, 1)).sum()

    def loss(self, model, batch, views):
        assert not batch.critic.weight.requires_grad
        return -batch.critic(model.w.reshape(1, 1)).sum()

    def measure(self, model, batch):
        return (batch.x.flatten(1).mean(dim=1) - model.w).abs()


def played(x, steps, w=0.25, lr=0.05):
    """The same game, written out."""
    c = speed = 0.0
    noted = []
    for rows in steps:
        for half in rows.chunk(2):
            noted.append(c)
            speed = 0.5 * speed - (float(x[half].mean()) - w)
            c -= 0.1 * speed
        w += lr * c
    return w, c, noted


GAME = {"epochs": 3, "batch": 8, "optimizer": SGD(lr=0.05, momentum=0.0, weight_decay=0.0), "schedule": Constant(),
        "progress": False}  # fmt: skip


def test_a_critic_makes_its_own_steps_before_the_network_s(monkeypatch):
    x, y = images(32)
    recipe, model, seen = Game(), Line(), []
    whole = Game.critic_losses

    def noted(self, model, batch, views):
        seen.append(batch.index)
        yield from whole(self, model, batch, views)

    monkeypatch.setattr(Game, "critic_losses", noted)
    found = assay.train(model, (x, y), recipe=recipe, validation=4, keep="last", **GAME)
    w, _, notes = played(x.double(), seen)
    assert len(seen) == 9
    assert float(model.w.detach()) == pytest.approx(w, abs=1e-6)
    assert recipe.notes == pytest.approx(notes, abs=1e-6)
    assert found.history[-1]["quality"] < found.history[0]["quality"]


def test_a_killed_run_goes_on_with_its_critic(tmp_path, checkpoint, identical, monkeypatch):
    settings = GAME | {"model": Line(), "data": images(32)}
    assay.train(**settings | {"recipe": Game(critic_optimizer=Adam(lr=0.1)), "out": tmp_path / "whole"})
    real, steps = Game.loss, []

    def dies(self, model, batch, views):
        if len(steps) == 5:
            raise KeyboardInterrupt
        steps.append(1)
        return real(self, model, batch, views)

    killed = {"recipe": Game(critic_optimizer=Adam(lr=0.1)), "out": tmp_path / "killed"}
    with monkeypatch.context() as patch:
        patch.setattr(Game, "loss", dies)
        with pytest.raises(KeyboardInterrupt):
            assay.train(**settings | killed | {"model": Line()})
    assay.train(**settings | killed | {"model": Line(9.0), "resume": True})
    whole = checkpoint(tmp_path / "whole")
    identical(checkpoint(tmp_path / "killed"), whole)
    assert float(whole["critic"]["net"]["weight"].abs()) > 0
    assert whole["critic"]["optimizer"]["state"][0]["step"] == 18


def test_a_critic_whose_loss_is_lost_ends_the_run(monkeypatch):
    def lost(self, model, batch, views):
        yield batch.critic.weight.sum() * math.nan

    monkeypatch.setattr(Game, "critic_losses", lost)
    model = Line()
    with pytest.raises(DivergedError, match="the critic's step before step 1"):
        assay.train(model, images(32), recipe=Game(), **GAME)
    assert float(model.w.detach()) == 0.25


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"model": "SmallCNN(channels=1, size=6)"}, ModelError, "kind Autoencoder"),
        ({"model": "ConvAutoencoder(channels=3)"}, InputError, "takes"),
        ({"label_smoothing": 0.1}, SettingError, "no labels"),
        ({"augment": ["Mixup()"]}, SettingError, "no labels"),
        ({"test": images(8), "threat": "linf:0.1"}, SettingError, "no classifier"),
        ({"recipe": "Reconstruction(noise=-1)"}, GrammarError, "noise"),
        ({"recipe": "AWP(recipe=Reconstruction())"}, GrammarError, "classifier"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, error, says):
    usual = {"model": "ConvAutoencoder()", "data": images(), "recipe": "reconstruction", "batch": 8, "progress": False}
    with pytest.raises(error, match=says):
        assay.train(**usual | settings)


@pytest.mark.parametrize("entry", registry.entries("recipe"), ids=lambda entry: entry.name)
def test_what_is_measured_has_a_short_name(entry):
    made = entry.load()
    if isinstance(made, type) and issubclass(made, GenerativeRecipe):
        assert 0 < len(made.quality) <= 16
        recipe = grammar.recipe(entry.name, assay.Linf(0.1))
        assert recipe.against is None
        assert grammar.parse(repr(recipe)) == recipe
