"""ART against its formula."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import assay
from assay.errors import SettingError, ThreatError
from assay.training.recipes import ART, IGNorm

EPS = 0.1


def distances(model, x, y, images=None):
    """One minus the cosine of each image (x itself when None) and both gradients at x, one sample after the other."""
    right, wrong = [], []
    for one, image, label in zip(x, x if images is None else images, y.tolist(), strict=True):
        one = one[None].detach().requires_grad_()
        logits = model(one)[0]
        rival = max((i for i in range(len(logits)) if i != label), key=lambda i: logits[i].item())
        for number, found in ((label, right), (rival, wrong)):
            (grad,) = torch.autograd.grad(logits[number], one, create_graph=True)
            found.append(1 - (grad * image).sum() / (grad.norm() * image.norm()))
    return torch.stack(right), torch.stack(wrong)


def test_loss_and_gradient_are_the_formula_s(net, batch, agree):
    """Both images are compared with the gradients at both, of which those count that fit worst."""
    b = batch()
    moved = (b.x + EPS * torch.randn(b.x.shape, generator=torch.Generator().manual_seed(2)).sign()).double()

    def formula(model):
        adversarial = F.cross_entropy(model(moved), b.y)
        model.eval()
        terms = []
        for image in (b.x, moved):
            here, there = (distances(model, x, b.y, image) for x in (b.x, moved))
            right = torch.stack([here[0], there[0]]).amax(0)
            wrong = torch.stack([here[1], there[1]]).amin(0)
            terms.append(torch.log1p(torch.exp(right - wrong)))
        return adversarial + 0.8 * torch.stack(terms).mean()

    agree(ART(threat=assay.Linf(EPS), weight=0.8), net(), b, {"x_adv": moved}, formula)


def test_relu_is_smooth_where_gradients_are_compared(batch):
    """The search sees second derivatives of the surrogate; the adversarial loss is that of the network itself."""
    torch.manual_seed(0)
    b = batch()
    sharp = nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.ReLU(), nn.Linear(20, 5)).double()
    smooth = nn.Sequential(sharp[0], sharp[1], nn.Softplus(beta=9.0), sharp[3])
    recipe = ART(threat=assay.Linf(EPS), beta=9.0, k=36)
    views = recipe.prepare(sharp, b)
    torch.testing.assert_close(views["x_adv"], recipe.prepare(smooth, b)["x_adv"])
    found = recipe.loss(sharp, b, views)
    wanted = recipe.loss(smooth, b, views)
    plain = [F.cross_entropy(model(views["x_adv"]), b.y).detach() for model in (sharp, smooth)]
    torch.testing.assert_close(found - plain[0], wanted - plain[1])
    assert abs(float(plain[0] - plain[1])) > 1e-3


def test_the_search_makes_gradients_less_like_the_image(net, batch):
    model, b = net(dropout=0.0).eval(), batch(24)
    x_adv = ART(threat=assay.Linf(EPS), steps=10, rel_step=0.25, k=36).prepare(model, b)["x_adv"]
    noise = b.x + EPS * torch.randn(b.x.shape, generator=torch.Generator().manual_seed(4)).sign()
    clean, random, found = (
        F.softplus(right - wrong).mean().item()
        for right, wrong in (distances(model, x, b.y) for x in (b.x, noise.double(), x_adv))
    )
    assert found - clean > 3 * abs(random - clean)


def test_features_that_do_not_count_in_the_search_leave_its_loss_alone(net, batch):
    """With a single feature the cosine is 1 or -1 everywhere: nothing to climb, and the random start is all."""
    model, b = net(dropout=0.0).eval(), batch()
    one, all_of_them = (ART(threat=assay.Linf(EPS), k=k).prepare(model, b)["x_adv"] for k in (1, 36))
    start = assay.attacks.PGD(threat=assay.Linf(EPS), steps=1, rel_step=1e-12).perturb(
        model, b.x, b.y, seed=b.seed, index=b.index
    )
    assert float((one - start).abs().mean()) < 0.3 * float((all_of_them - start).abs().mean())


def test_what_cannot_be_used_is_refused():
    for settings in ({"k": 0}, {"beta": 0.0}, {"steps": 0}, {"rel_step": 0.0}, {"weight": -1.0}):
        with pytest.raises(SettingError, match=next(iter(settings))):
            ART(threat=assay.Linf(EPS), **settings)
    with pytest.raises(ThreatError, match="budget"):
        ART(threat=assay.Linf())


@pytest.mark.parametrize("recipe", [ART(threat=assay.Linf(EPS)), IGNorm(threat=assay.Linf(EPS), segments=2)], ids=repr)
def test_networks_with_attention_are_trained(batch, recipe):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 2, 8, dropout=0.0, batch_first=True)
    model = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (3, 12)), layer, nn.Flatten(), nn.Linear(36, 5))
    b = batch()
    b = replace(b, x=b.x.float())
    recipe.loss(model, b, recipe.prepare(model, b)).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())
