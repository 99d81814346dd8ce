"""WGAN-GP and APE-GAN: losses and gradients against a few independent lines, and what a step may touch."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import assay
from assay import grammar
from assay.errors import InputError, ModelError, SettingError
from assay.models.networks import APEGenerator, ConvGenerator, DenseGenerator
from assay.models.networks.critics import ConvCritic, DenseCritic
from assay.rng import Keyed, derive
from assay.training.recipes import APEGAN, WGANGP, Batch


def batch(size=6, **settings):
    x = torch.rand(size, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(7))
    made = Batch(x=x, y=torch.arange(size) % 3, index=torch.arange(size) * 3 + 1, seed=11)
    return replace(made, **settings)


def of(network, **settings):
    torch.manual_seed(4)
    return network(**settings).double()


def normals(seed, index, count):
    return Keyed(seed, index).normal(count).double()


def grads(loss, net):
    return torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)


def same(one, other):
    for found, wanted in zip(one, other, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


class Line(nn.Module):
    """`D(x) = w x`, whose slope is w everywhere."""

    def __init__(self, length):
        super().__init__()
        self.w = nn.Parameter(torch.full((64,), length / 8, dtype=torch.float64))

    def forward(self, x):
        return x.flatten(1) @ self.w


@pytest.mark.parametrize("length", [0.0, 1.0, 3.5])
def test_the_penalty_of_a_linear_critic_is_known(length):
    generator, line = of(DenseGenerator, size=8, latent=3, hidden=5), Line(length)
    if not length:
        line.w.data[0] = 1e-9  # at 0 itself a length has no slope
    b = batch(4, critic=line)
    (with_it,) = WGANGP(penalty=10.0, critic_steps=1).critic_losses(generator, b, {})
    (without,) = WGANGP(penalty=0.0, critic_steps=1).critic_losses(generator, b, {})
    assert (with_it - without).item() == pytest.approx(10 * (length - 1) ** 2, abs=1e-6)


@pytest.mark.parametrize("kind", [ConvCritic, DenseCritic])
def test_the_critics_loss_is_that_of_a_few_lines(kind):
    """The slope of each image by itself, by the chain rule of torch.func; here two steps on three images each."""
    generator, critic = of(ConvGenerator, size=8, latent=3, width=2), of(kind, size=8, width=3)
    b = batch(6, critic=critic)
    losses = list(WGANGP(penalty=7.0, critic_steps=2).critic_losses(generator, b, {}))
    assert len(losses) == 2
    for step, loss in enumerate(losses):
        real, index = b.x[3 * step : 3 * step + 3], b.index[3 * step : 3 * step + 3]
        rng = Keyed(derive(11, "critic", step), index)
        with torch.no_grad():
            made = generator(rng.normal(3).double())
        t = rng.uniform(1).double()[:, :, None, None]
        total = 0
        for x, fake, share in zip(real, made, t, strict=True):
            slope = torch.func.jacrev(lambda at: critic(at[None])[0])(share * x + (1 - share) * fake)
            total = total + critic(fake[None])[0] - critic(x[None])[0] + 7 * (slope.norm() - 1) ** 2
        torch.testing.assert_close(loss, total / 3, rtol=1e-10, atol=1e-12)
        same(grads(loss, critic)[:-1], grads(total / 3, critic)[:-1])  # the last bias moves nothing
    assert all(p.grad is None for net in (generator, critic) for p in net.parameters())


def test_the_generators_loss_is_the_critics_opinion_of_it():
    generator, critic = of(DenseGenerator, size=8, latent=3, hidden=5), of(ConvCritic, size=8, width=3)
    b = batch(6, critic=critic)
    loss = WGANGP(critic_steps=2).loss(generator, b, {})
    wanted = -critic(generator(normals(derive(11, "z"), b.index[:3], 3))).mean()
    torch.testing.assert_close(loss, wanted)
    same(grads(loss, generator), grads(wanted, generator))


def test_a_better_generator_is_measured_as_better():
    b, recipe = batch(6), WGANGP()
    generator = of(DenseGenerator, size=8, latent=3, hidden=5)
    before = recipe.measure(generator, b)
    generator.head.bias.data = b.x.mean(dim=0).flatten()
    after = recipe.measure(generator, b)
    assert before.shape == after.shape == (6,)
    assert float(after.mean()) < float(before.mean())
    assert torch.allclose(recipe.measure(generator, batch(2)), after[:2])


def test_networks_and_data_that_do_not_fit_are_told():
    data = torch.rand(20, 1, 8, 8), torch.zeros(20, dtype=torch.int64)
    plain = {"epochs": 1, "batch": 10, "progress": False, "validation": 0}
    with pytest.raises(ModelError, match=r"makes images of shape \(1, 12, 12\)"):
        assay.train(DenseGenerator(size=12, latent=3), data, recipe="wgan-gp", **plain)
    with pytest.raises(ModelError, match="Generator"):
        assay.train("DigitsMLP()", data, recipe="wgan-gp", **plain)
    for shape, error, words in (((1, 8, 6), InputError, "square"), ((1, 10, 10), SettingError, "multiple of 4")):
        with pytest.raises(error, match=words):
            WGANGP().critic(nn.Identity(), torch.rand(2, *shape))
    with pytest.raises(SettingError, match="critic_steps"):
        WGANGP(critic_steps=0)
    with pytest.raises(SettingError, match="penalty"):
        WGANGP(penalty=-1.0)
    with pytest.raises(InputError, match="multiples of 4"):
        APEGenerator()(torch.rand(2, 1, 10, 10))


def ape(**settings):
    classifier = of(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 3)))
    recipe = APEGAN(attack=assay.attacks.FGSM(threat=assay.Linf(0.1)), width=2, **settings)
    return recipe.with_teacher(classifier), classifier


def test_adversarial_images_are_those_of_the_classifier():
    recipe, classifier = ape()
    b = batch()
    moved = recipe.prepare(of(APEGenerator, width=2), b)["moved"]
    x = b.x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(nn.functional.cross_entropy(classifier(x), b.y, reduction="sum"), x)
    torch.testing.assert_close(moved, (b.x + 0.1 * grad.sign()).clamp(0, 1))
    with pytest.raises(SettingError, match="with_teacher"):
        replace(recipe).prepare(nn.Identity(), b)


def test_losses_of_ape_gan_are_those_of_a_few_lines():
    recipe, _ = ape()
    generator, critic = of(APEGenerator, width=2), of(ConvCritic, size=8, width=2)
    b = batch(critic=critic)
    views = recipe.prepare(generator, b)
    twin = copy.deepcopy(generator)
    (loss,) = recipe.critic_losses(generator, b, views)
    real, fake = critic(b.x).sigmoid(), critic(twin(views["moved"]).detach()).sigmoid()
    wanted = -real.log().mean() - (1 - fake).log().mean()
    torch.testing.assert_close(loss, wanted)
    same(grads(loss, critic), grads(wanted, critic))
    assert not list(recipe.critic_losses(generator, replace(b, replay=1), views))  # the second step is G's alone
    assert recipe.replays == 2
    loss = recipe.loss(generator, b, views)
    out = twin(views["moved"])
    apart = ((2 * out - 1) - (2 * b.x - 1)).pow(2).mean()
    wanted = 0.9 * apart.sqrt() - 0.02 * critic(out).sigmoid().log().mean()
    torch.testing.assert_close(loss, wanted)
    same(grads(loss, generator), grads(wanted, twin))


def test_ape_gan_is_measured_on_adversarial_images():
    recipe, _ = ape()

    class Same(nn.Module):
        def forward(self, x):
            return x

    b = batch(x=batch().x * 0.5 + 0.25)
    assert torch.allclose(recipe.measure(Same(), b), torch.full((6,), 0.01, dtype=torch.float64))


TRAININGS = {
    "wgan-gp": ("DenseGenerator(size=8, latent=3, hidden=8)", "WGANGP(convolutional=False, width=8)", None),
    "ape-gan": ("APEGenerator(width=2)", "APEGAN(teacher='digits-mlp', width=2)", "linf:0.1"),
}


@pytest.mark.parametrize("name", TRAININGS)
def test_killed_and_resumed_it_ends_with_the_same_weights(name, tmp_path, monkeypatch):
    from assay.training.fit import Fit

    network, recipe, threat = TRAININGS[name]
    data = assay.load_data("digits", limit=120)
    settings = {"recipe": grammar.recipe(recipe, threat and grammar.threat(threat)), "epochs": 2, "batch": 20,
                "validation": 20, "optimizer": "Adam(lr=1e-3, betas=(0.0, 0.9))", "progress": False}  # fmt: skip
    whole = assay.train(network, data, out=tmp_path / "whole", **settings)
    step, count = Fit._step, []

    def dying(self, batch):
        count.append(1)
        if len(count) == 8:
            raise KeyboardInterrupt
        return step(self, batch)

    monkeypatch.setattr(Fit, "_step", dying)
    with pytest.raises(KeyboardInterrupt):
        assay.train(network, data, out=tmp_path / "cut", **settings)
    monkeypatch.setattr(Fit, "_step", step)
    again = assay.train(network, data, out=tmp_path / "cut", resume=True, **settings)
    assert again.quality == whole.quality
    fresh = grammar.named(network, nn.Module).state_dict()
    for key, value in whole.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[key], value)
        assert value.dtype == torch.int64 or not torch.equal(value, fresh[key])
    assert torch.equal(assay.load_model(str(tmp_path / "cut")).state_dict()[key], value)
