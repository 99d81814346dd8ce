"""Defense-GAN: the search against closed forms and a plain loop, the best of its restarts, rejection, gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import assay
from assay import grammar
from assay.defenses import RSE, APEGANDefense, DefenseGAN, RandomResizePad, ReconstructionDetector
from assay.defenses.generative import Generator
from assay.defenses.latent import draw, search
from assay.errors import InputError, ModelError, SettingError
from assay.models import Defended, saved
from assay.models.networks import APEGenerator, ConvGenerator, DenseGenerator, SmallCNN
from assay.rng import Keyed


class Affine(Generator):
    """`G(z) = A z + b`, a plane of images, without and with the shortcut of a last linear layer."""

    def __init__(self, shortcut=False):
        super().__init__()
        torch.manual_seed(0)
        self.latent = 3
        self.layer = nn.Linear(3, 16).double()
        if shortcut:
            self.head, self.features = self.layer, nn.Identity()

    def forward(self, z):
        return self.layer(z).reshape(-1, 1, 4, 4)


def images(n=6, side=4):
    return torch.rand(n, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def starts(index, restarts, latent, seed=5):
    return draw(Keyed(seed, torch.as_tensor(index), dtype=torch.float64), restarts, latent)


def made(network, **settings):
    torch.manual_seed(2)
    return network(**settings).double().eval()


@pytest.mark.parametrize("shortcut", [False, True])
def test_on_a_plane_the_search_ends_at_the_least_squares_answer(shortcut):
    generator, x = Affine(shortcut), images()
    a, b = generator.layer.weight.detach(), generator.layer.bias.detach()
    wanted = torch.linalg.lstsq(a, (x.flatten(1) - b).T).solution.T
    z, left = search(generator, x, starts(range(6), 2, 3), steps=600, lr=4.0)
    assert torch.allclose(z, wanted, atol=1e-8)
    assert torch.allclose(left, (wanted @ a.T + b - x.flatten(1)).square().mean(dim=1))
    none, before = search(generator, x, starts(range(6), 1, 3), steps=1, lr=0.0)
    assert torch.equal(none, starts(range(6), 1, 3)[:, 0])
    assert bool((before > left).all())


@pytest.mark.parametrize(
    "generator",
    [
        pytest.param(lambda: made(DenseGenerator, size=4, latent=3, hidden=8), id="dense"),
        pytest.param(lambda: made(ConvGenerator, size=4, latent=3, width=2), id="conv"),
    ],
)
def test_each_descent_is_that_of_a_plain_loop(generator):
    """One input and one start at a time, by torch's own optimizer."""
    generator, x, first = generator(), images(3), starts(range(3), 2, 3)
    z, left = search(generator, x, first, steps=40, lr=10.0, momentum=0.7)
    for i in range(3):
        ends = []
        for r in range(2):
            own = first[i, r].clone().requires_grad_()
            sgd = torch.optim.SGD([own], lr=10.0, momentum=0.7)
            for step in range(40):
                sgd.param_groups[0]["lr"] = 10.0 if step < 32 else 1.0
                sgd.zero_grad()
                (generator(own[None])[0] - x[i]).square().mean().backward()
                sgd.step()
            ends.append(((generator(own[None])[0] - x[i]).square().mean().item(), own.detach()))
        error, nearest = min(ends, key=lambda end: end[0])
        assert torch.allclose(z[i], nearest, atol=1e-9)
        assert float(left[i]) == pytest.approx(error)


def test_more_restarts_are_never_worse_and_begin_with_the_same():
    generator, x = made(DenseGenerator, size=4, latent=3, hidden=8), images(20)
    assert torch.equal(starts(range(20), 5, 3)[:, :2], starts(range(20), 2, 3))
    lefts = [search(generator, x, starts(range(20), r, 3), steps=20)[1] for r in (1, 2, 5)]
    assert bool((lefts[1] <= lefts[0]).all())
    assert bool((lefts[2] <= lefts[1]).all())
    assert bool((lefts[2] < lefts[0]).any())


def test_what_is_found_does_not_depend_on_the_batch(monkeypatch):
    generator, x = made(DenseGenerator, size=4, latent=3, hidden=8), images(9)
    whole = search(generator, x, starts(range(9), 3, 3), steps=50)
    monkeypatch.setattr("assay.defenses.latent._ROWS", {"cpu": 6, "cuda": 6})  # two inputs at once
    parts = search(generator, x, starts(range(9), 3, 3), steps=50)
    alone = [search(generator, x[[i]], starts([i], 3, 3), steps=50) for i in range(9)]
    for place in (0, 1):
        assert torch.allclose(parts[place], whole[place], atol=1e-10)
        assert torch.allclose(torch.cat([found[place] for found in alone]), whole[place], atol=1e-10)


def test_a_descent_that_diverges_does_not_win():
    class Steep(Generator):
        latent = 1

        def forward(self, z):
            return (z**3).reshape(-1, 1, 1, 1)

    x = torch.full((1, 1, 1, 1), 8.0, dtype=torch.float64)
    first = torch.tensor([[[30.0], [1.9]]], dtype=torch.float64)
    z, left = search(Steep(), x, first, steps=300, lr=0.003)
    assert float(z) == pytest.approx(2.0, abs=1e-3)
    assert bool(left.isfinite().all())


def test_starts_are_those_of_the_paper():
    found = starts(range(2000), 1, 32)
    assert found.shape == (2000, 1, 32)
    assert float(found.std()) == pytest.approx(32**-0.5, rel=0.02)


def test_the_model_sees_the_reconstruction_and_not_the_input():
    generator = made(DenseGenerator, size=4, latent=3, hidden=8)
    defense, x = DefenseGAN(generator, restarts=2, steps=30), images(4)
    shown = Defended(nn.Identity(), defense)(x, seed=1)
    z, _ = search(generator, x, draw(Keyed(1, torch.arange(4)), 2, 3).double(), steps=30)
    assert torch.equal(shown, generator(z).clamp(0, 1))
    assert not torch.allclose(shown, x, atol=1e-2)
    with torch.inference_mode():
        assert torch.equal(Defended(nn.Identity(), defense)(x.clone(), seed=1), shown)
    assert not any(p.requires_grad or p.grad is not None for p in generator.parameters())


def test_far_inputs_are_rejected_and_near_ones_are_not():
    generator = Affine(shortcut=True)
    near = generator(torch.randn(5, 3, dtype=torch.float64) * 0.2).detach().clamp(0, 1)
    x = torch.cat([near, 1 - images(5).round()])
    head = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).double()
    defense = DefenseGAN(generator, restarts=1, steps=400, lr=4.0)
    shown = defense.transform(x)
    left = (x - shown).square().flatten(1).mean(dim=1)
    threshold = float((left[:5].max() + left[5:].min()) / 2)
    model = Defended(head, ReconstructionDetector(defense, thresholds=(threshold,)))
    assert model.rejects
    answers = model(x.requires_grad_())
    assert (answers.argmax(dim=1) == 3).tolist() == [False] * 5 + [True] * 5
    assert torch.allclose(answers[:, :3], head(shown), atol=1e-6)
    (grad,) = torch.autograd.grad(threshold * (answers[:, 3] - answers[:, :3].amax(dim=1)).sum(), x)
    assert torch.allclose(grad, 2 / 16 * (x - shown), atol=1e-6)  # z* does not move the distance in first order


def test_a_threshold_is_found_from_clean_inputs_by_the_share_that_it_rejects():
    generator, x = Affine(shortcut=True), images(40)
    detector = ReconstructionDetector(DefenseGAN(generator, restarts=1, steps=400, lr=4.0))
    found = assay.calibrate(nn.Flatten(), (x, torch.zeros(40, dtype=torch.int64)), detector, drop=0.1)
    rejected = Defended(nn.Flatten(), found)(x, seed=0).argmax(dim=1) == 16
    assert int(rejected.sum()) == 4


def test_the_change_of_an_exact_purifier_is_followed_exactly():
    purifier = APEGANDefense(made(APEGenerator, width=2))
    x = images(2).requires_grad_()
    score = ReconstructionDetector(purifier, (1.0,)).judged(nn.Flatten(), x)[0]
    wanted = (x - purifier.transform(x)).square().flatten(1).mean(dim=1)
    assert torch.equal(score[:, 0], wanted)
    found, exact = (torch.autograd.grad(each.sum(), x, retain_graph=True)[0] for each in (score, wanted))
    assert torch.allclose(found, exact)


def test_the_gradient_of_the_distance_is_that_of_finite_differences():
    generator, x = Affine(shortcut=True), images(1)

    def left(at):
        return search(generator, at, starts([0], 1, 3), steps=600, lr=4.0)[1]

    z, _ = search(generator, x, starts([0], 1, 3), steps=600, lr=4.0)
    direction = images(1).sub(0.5)
    slope = (left(x + 1e-5 * direction) - left(x - 1e-5 * direction)) / 2e-5
    assert float(slope) == pytest.approx(float((2 / 16 * (x - generator(z)) * direction).sum().detach()), rel=1e-6)


@pytest.mark.parametrize("kind", ["DefenseGAN", "ReconstructionDetector", "APEGANDefense"])
def test_saved_and_loaded_it_gives_the_same_predictions(tmp_path, kind):
    network = "APEGenerator(width=2)" if kind == "APEGANDefense" else "DenseGenerator(size=8, latent=3, hidden=8)"
    torch.manual_seed(2)
    saved.save(tmp_path / "own", network, grammar.named(network, nn.Module).state_dict(), {})
    call = {
        "APEGANDefense": "APEGANDefense({!r})",
        "DefenseGAN": "DefenseGAN({!r}, restarts=2, steps=20)",
        "ReconstructionDetector": "ReconstructionDetector(DefenseGAN({!r}, restarts=2, steps=20), thresholds=(0.08,))",
    }[kind].format(str(tmp_path / "own"))
    model = assay.defend(SmallCNN(channels=1, size=8).eval(), call)
    saved.save(tmp_path / "net", f"Defended('SmallCNN(channels=1, size=8)', {call})", model.state_dict(), {})
    again, x = assay.load_model(str(tmp_path / "net")), images(6, side=8).float()
    index = torch.tensor([4, 2, 9, 0, 1, 7])
    answer = model(x, seed=7, index=index)
    assert torch.equal(again(x, seed=7, index=index), answer)
    assert torch.equal(model(x, seed=8, index=index), answer) is (kind == "APEGANDefense")


def test_training_around_it_leaves_the_generator_alone():
    generator = made(DenseGenerator, size=4, latent=3, hidden=8)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    model = Defended(nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), DefenseGAN(generator.float(), 1, 5)).float()
    done = assay.train(model, (images(16).float(), torch.arange(16) % 3), recipe="standard", epochs=1, batch=8,
                       progress=False, validation=0)  # fmt: skip
    assert not done.model.defenses[0]._generator.training
    assert all(torch.equal(value.double(), before[name]) for name, value in generator.state_dict().items())


def test_settings_that_make_no_sense_are_refused():
    generator = made(DenseGenerator, size=4, latent=3, hidden=8)
    for settings in ({"restarts": 0}, {"steps": 0}, {"momentum": 1.5}, {"lr": -1.0}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            DefenseGAN(generator, **settings)
    with pytest.raises(SettingError, match="Generator"):
        DefenseGAN("fashion-cnn")
    with pytest.raises(ModelError, match="no model named"):
        DefenseGAN("fashion-gun")
    for defense in (RSE(), generator):
        with pytest.raises(SettingError, match="in front of the model"):
            ReconstructionDetector(defense)
    with pytest.raises(SettingError, match="shape"):
        Defended(nn.Identity(), ReconstructionDetector(RandomResizePad(), (0.1,)))(torch.rand(2, 1, 28, 28))
    with pytest.raises(InputError, match="1x4x4"):
        Defended(nn.Identity(), DefenseGAN(generator, 1, 1))(torch.rand(2, 1, 5, 5))
