"""What holds for every recipe of classifiers: what it may touch, where its inputs lie, and what its draws depend on."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import assay
from assay import grammar, registry
from assay.training.recipes import GenerativeRecipe


def isgenerative(made):
    """Whether a recipe trains no classifier: those are in `test_generative.py`."""
    return isinstance(made, type) and issubclass(made, GenerativeRecipe)


THREAT = assay.Linf(0.1)
RECIPES = [entry.name for entry in registry.entries("recipe") if not isgenerative(entry.load())]
TEXTS = {  # what a name alone does not say
    "MultiThreat": "MultiThreat(attacks=[PGD(steps=3), FGSM()])",
    "Distillation": "Distillation(temperature=1)",  # its gradients are too small to see at 100
}
WITHOUT_THREAT = {"Standard", "Distillation"}
UNMOVED = WITHOUT_THREAT | {"CURE"}  # train on no adversarial inputs
IN_TRAIN_MODE = {"FastAT", "AVMixup", "GradAlign"}  # search in train mode, where samples depend on their batch
PAIRED = {"InterpolatedAT"}  # the loss takes two samples together, by their place
MOVING = [name for name in RECIPES if name not in UNMOVED]
ALONE = [name for name in MOVING if name not in IN_TRAIN_MODE]


@pytest.fixture
def built(net):
    """Makes a recipe of its name, with a teacher where it needs one."""

    def make(name):
        recipe = grammar.recipe(TEXTS.get(name, name), THREAT)
        if recipe.first() is not None or recipe.teacher is not None:
            recipe = recipe.with_teacher(net(dropout=0.0, seed=9).eval())
        return recipe

    return make


def searched(recipe, model, batch):
    """What `prepare` makes of a batch in the last of its replays; no step of an optimizer lies between them."""
    for replay in range(recipe.replays):
        views = recipe.prepare(model, replace(batch, seed=batch.seed + replay))
        if replay + 1 < recipe.replays:
            recipe.loss(model, batch, views).backward()
            recipe.after(model, batch, views)
    return views


def moved(views):
    """The adversarial inputs among the views."""
    return {key: view.detach() for key, view in views.items() if key.startswith("x_adv")}


@pytest.mark.parametrize("name", RECIPES)
def test_the_tables_of_this_file_are_true(net, batch, built, name):
    """So that no test below is passed by a recipe that it does not look at."""
    model, recipe = net(), built(name)
    statistics = model.norm.running_mean.clone()
    views = recipe.prepare(model, batch())
    assert bool(moved(views)) is (name not in UNMOVED)
    assert torch.equal(model.norm.running_mean, statistics) is (name not in IN_TRAIN_MODE)
    assert recipe.against == (None if name in WITHOUT_THREAT else THREAT)


@pytest.mark.parametrize("name", RECIPES)
def test_the_search_moves_no_parameter_no_gradient_and_no_flag(net, batch, built, name):
    model = net()
    model.norm.eval()  # frozen by its user
    for number, p in enumerate(model.parameters()):
        p.grad = torch.full_like(p, float(number))
    before, flags = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    built(name).prepare(model, batch())
    assert [module.training for module in model.modules()] == flags
    for number, p in enumerate(model.parameters()):
        assert p.requires_grad
        assert torch.equal(p.grad, torch.full_like(p, float(number)))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]) or (name in IN_TRAIN_MODE and "norm" in key)


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_has_a_scalar_loss_whose_gradient_reaches_every_parameter(net, batch, built, name):
    model, b, recipe = net(), batch(), built(name)
    flags = [module.training for module in model.modules()]
    views = recipe.prepare(model, b)
    with recipe.around(model, b, views):
        loss = recipe.loss(model, b, views)
        assert loss.shape == ()
        assert loss.dtype == torch.float64
        assert loss.isfinite()
        loss.backward()
        recipe.after(model, b, views)
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.head.parameters())
    assert all(p.grad is not None for p in model.parameters())
    assert [module.training for module in model.modules()] == flags


@pytest.mark.parametrize("name", RECIPES)
def test_the_loss_falls_when_its_gradient_is_followed(net, batch, built, name):
    model, b, recipe = net(dropout=0.0), batch(24), built(name)
    losses = []
    for step in range(15):
        b = replace(b, seed=step)
        views = recipe.prepare(model, b)
        with recipe.around(model, b, views):
            model.zero_grad()
            loss = recipe.loss(model, b, views)
            loss.backward()
            recipe.after(model, b, views)
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.05 * p.grad
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])


@pytest.mark.parametrize("name", MOVING)
def test_moved_inputs_lie_inside_the_threat(net, batch, built, name):
    model, b = net(), batch(x=batch().x.mul(1.6).sub(0.3).clamp(0, 1))  # some of them at the bounds
    for x_adv in moved(searched(built(name), model, b)).values():
        assert x_adv.dtype == torch.float64
        assert (THREAT.size(b.x, x_adv - b.x) <= THREAT.limit(b.x)).all()
        assert x_adv.min() >= 0
        assert x_adv.max() <= 1
        assert (x_adv != b.x).flatten(1).any(1).all()


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_seed_gives_the_same_step(net, batch, built, name):
    outcomes = []
    for _ in range(2):
        model, recipe = net(), built(name)
        torch.manual_seed(3)  # of dropout
        views = searched(recipe, model, b := batch())
        loss = recipe.loss(model, b, views)
        outcomes.append([loss.detach(), *moved(views).values(), *model.buffers()])
    assert all(torch.equal(one, other) for one, other in zip(*outcomes, strict=True))


@pytest.mark.parametrize("name", RECIPES)
def test_the_order_of_the_batch_does_not_matter(net, batch, built, name):
    """Draws belong to samples, not to their place."""
    b, order = batch(), torch.tensor([4, 2, 0, 5, 1, 3])
    shuffled = batch(x=b.x[order], y=b.y[order], index=b.index[order])
    outcomes = []
    for each in (b, shuffled):
        model, recipe = net(dropout=0.0), built(name)
        views = searched(recipe, model, each)
        outcomes.append((moved(views), recipe.loss(model, each, views).detach()))
    (first, loss), (second, other) = outcomes
    assert torch.allclose(other, loss, rtol=1e-9, atol=1e-12) is (name not in PAIRED)
    for key, x_adv in first.items():
        torch.testing.assert_close(second[key], x_adv[order], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ALONE)
def test_a_sample_is_moved_alike_in_any_batch(net, batch, built, name):
    b, model = batch(), net(dropout=0.0).eval()
    rows = torch.tensor([5, 1])
    part = batch(x=b.x[rows], y=b.y[rows], index=b.index[rows])
    whole, own = (moved(searched(built(name), model, each)) for each in (b, part))
    for key, x_adv in own.items():
        torch.testing.assert_close(x_adv, whole[key][rows], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", MOVING)
def test_half_of_the_budget_is_half_of_the_move(net, batch, built, name):
    for share in (1.0, 0.5):
        b = batch(eps_share=share)
        for x_adv in moved(searched(built(name), net(), b)).values():
            assert float((x_adv - b.x).abs().max()) == pytest.approx(share * THREAT.eps, rel=1e-9)


@pytest.mark.parametrize("name", RECIPES)
def test_losses_of_logits_in_half_precision_are_taken_in_single(net, batch, built, name):
    """The network answers in bfloat16, as under autocast; the loss is that of these very logits in float32."""

    class Rounded(torch.nn.Module):
        def __init__(self, dtype):
            super().__init__()
            self.inner, self.dtype = net(dropout=0.0).float(), dtype

        def forward(self, x):
            return self.inner(x).to(torch.bfloat16).to(self.dtype)

    recipe, b = built(name), batch(x=batch().x.float())
    if recipe.first() is not None or name == "Distillation":
        recipe = recipe.with_teacher(Rounded(torch.bfloat16))
    half, single = (Rounded(dtype) for dtype in (torch.bfloat16, torch.float32))
    views = recipe.prepare(half, replace(b, same_weights=False))
    single.load_state_dict(half.state_dict())  # the search may have moved statistics
    views = {key: view.detach() for key, view in views.items()}
    losses = [recipe.loss(model, b, views) for model in (half, single)]
    assert losses[0].dtype == torch.float32
    tolerance = 1e-2 if recipe.second_order else 1e-6  # on their way through bfloat16 slopes are rounded, too
    torch.testing.assert_close(*losses, rtol=tolerance, atol=0)


@pytest.mark.parametrize("name", RECIPES)
def test_losses_that_hold_gradients_say_so(net, batch, built, name):
    class Once(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx, grad):
            return grad

    model, b, recipe = net(), batch(), built(name)
    model.conv.register_forward_hook(lambda _, __, out: Once.apply(out))  # where all gradients are of weights, too
    loss = recipe.loss(model, b, recipe.prepare(model, b))
    if recipe.second_order:
        with pytest.raises(RuntimeError, match="once_differentiable"):
            loss.backward()
    else:
        loss.backward()


@pytest.mark.parametrize("name", RECIPES)
def test_it_reads_back_from_its_repr(name):
    recipe = grammar.recipe(TEXTS.get(name, name), THREAT)
    assert grammar.parse(repr(recipe)) == recipe
