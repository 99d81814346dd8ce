"""What a step does, against computations of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import assay
from assay.errors import DivergedError, ModelError, SettingError, TrainingError
from assay.training.augmentation import Flip, Mixup
from assay.training.optimizers import SGD
from assay.training.recipes import FGSMAT, Recipe
from assay.training.schedules import Constant, Cosine, Cyclic, Piecewise

PLAIN = SGD(lr=0.5, momentum=0.0, weight_decay=0.0)
ALL = {"validation": 0, "schedule": Constant()}


@dataclass(frozen=True, kw_only=True)
class Seen(Recipe):
    """Another recipe, whose batches and weights are noted."""

    inner: Recipe | None = None
    notes: list[Any] = field(default_factory=list, repr=False)

    def prepare(self, model, batch):
        return {} if self.inner is None else self.inner.prepare(model, batch)

    def loss(self, model, batch, views):
        self.notes.append((batch, views, [p.detach().clone() for p in model.parameters()]))
        return batch.cross_entropy(model(batch.x)) if self.inner is None else self.inner.loss(model, batch, views)


class Sum(Recipe):
    """The sum of all weights, whose gradient is 1."""

    def loss(self, model, batch, views):
        return sum(p.sum() for p in model.parameters())


def one_step(model, x, y, lr, smoothing=0.0, clip=math.inf):
    """The weights of a linear classifier after a step, written out: the gradient is (p - t) x over the batch."""
    weight, bias = (p.detach().double() for p in model.parameters())
    x = x.flatten(1).double()
    targets = F.one_hot(y, 3).double() if y.ndim == 1 else y.double()
    targets = (1 - smoothing) * targets + smoothing / 3
    wrong = ((x @ weight.T + bias).softmax(1) - targets) / len(x)
    grads = wrong.T @ x, wrong.sum(0)
    length = math.sqrt(sum(float((grad**2).sum()) for grad in grads))
    return [p - lr * min(1.0, clip / length) * grad for p, grad in zip((weight, bias), grads, strict=True)]


@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.3}, {"clip": 0.05}, {"clip": 100.0}])
def test_a_step(settings, samples, linear, quick):
    x, y = samples(16)
    expected = one_step(linear(), x, y, 0.5, settings.get("label_smoothing", 0.0), settings.get("clip", math.inf))
    done = quick(linear(), (x, y), epochs=1, optimizer=PLAIN, **ALL, **settings)
    for found, wanted in zip(done.model.parameters(), expected, strict=True):
        torch.testing.assert_close(found.detach().double(), wanted, rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in done.model.parameters())


def test_a_step_on_mixed_inputs(samples, linear, quick):
    x, y = samples(16)
    recipe = Seen()
    done = quick(linear(), (x, y), recipe=recipe, epochs=1, optimizer=PLAIN, augment=(Mixup(),), **ALL)
    ((batch, _, _),) = recipe.notes
    pairs = torch.cat([x, F.one_hot(y, 3).view(16, 1, 1, 3).expand(16, 1, 4, 3)], dim=3)[batch.index].flatten(1)
    mixed = torch.cat([batch.x, batch.targets.view(16, 1, 1, 3).expand(16, 1, 4, 3)], dim=3).flatten(1)
    shares = torch.linalg.lstsq(pairs.double().T, mixed.double().T).solution  # of which samples it consists
    torch.testing.assert_close(pairs.double().T @ shares, mixed.double().T, rtol=0, atol=1e-5)
    assert float((batch.x - x[batch.index]).abs().amax()) > 0.01
    torch.testing.assert_close(batch.targets.sum(1), torch.ones(16))
    expected = one_step(linear(), batch.x, batch.targets, 0.5)
    for found, wanted in zip(done.model.parameters(), expected, strict=True):
        torch.testing.assert_close(found.detach().double(), wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("schedule", [Cyclic(peak=0.3), Piecewise(milestones=(0.5,)), Cosine(), Constant()])
def test_the_learning_rate_follows_the_schedule(schedule, samples, linear, quick):
    recipe = Seen(inner=Sum())
    optimizer = SGD(lr=0.25, momentum=0.0, weight_decay=0.0)
    done = quick(linear(), samples(64), recipe=recipe, optimizer=optimizer, schedule=schedule, validation=0)
    weights = [float(notes[2][1][0]) for notes in recipe.notes] + [float(done.model[1].bias[0].detach())]
    moved = [before - after for before, after in pairwise(weights)]
    wanted = [0.25 * schedule.at((step + 0.5) / 8) for step in range(8)]
    assert moved == pytest.approx(wanted, abs=1e-6)
    assert [row["lr"] for row in done.history] == pytest.approx([wanted[3], wanted[7]])


def test_eps_warms_up(samples, linear, quick):
    recipe = Seen(inner=FGSMAT(threat=assay.Linf(0.1)))
    model = linear()
    torch.nn.init.normal_(model[1].weight)
    quick(model, samples(64), recipe=recipe, warmup=1.5, **ALL)
    eps = [float((views["x_adv"] - batch.x).abs().amax()) for batch, views, _ in recipe.notes]
    assert eps == pytest.approx([0.1 * min(1, step / 6) for step in range(1, 9)], abs=1e-6)


def test_samples_keep_their_numbers_and_steps_their_own_draws(samples, linear, quick):
    recipe, (x, y) = Seen(), samples(64)
    quick(linear(), (x, y), recipe=recipe, augment=(Flip(),), **ALL)
    batches = [batch for batch, _, _ in recipe.notes]
    assert len({batch.seed for batch in batches}) == 8
    flipped = []
    for batch in batches:
        assert torch.equal(batch.y, y[batch.index])
        same, mirrored = ((batch.x == other[batch.index]).flatten(1).all(1) for other in (x, x.flip(3)))
        assert (same | mirrored).all()
        flipped.append(dict(zip(batch.index.tolist(), mirrored.tolist(), strict=True)))
    first, second = ({k: v for part in half for k, v in part.items()} for half in (flipped[:4], flipped[4:]))
    assert 16 < sum(first.values()) < 48
    assert first != second


def test_replays_are_steps_of_the_same_batch(samples, linear, quick):
    @dataclass(frozen=True)
    class Twice(Seen):
        replays: int = 2

    recipe = Twice()
    quick(linear(), samples(32), recipe=recipe, **ALL)
    batches = [batch for batch, _, _ in recipe.notes]
    assert len(batches) == 8
    for one, other in zip(batches[::2], batches[1::2], strict=True):
        assert torch.equal(one.x, other.x)
        assert one.seed != other.seed
    starts = [weights[0] for _, _, weights in recipe.notes]
    assert not any(torch.equal(a, b) for a, b in pairwise(starts))


class Failing(Recipe):
    """Standard training with an accident at one step."""

    def __init__(self, at, kind):
        self.at, self.kind, self.count = at, kind, 0

    def __repr__(self):
        return "Failing"

    def loss(self, model, batch, views):
        self.count += 1
        value = batch.cross_entropy(model(batch.x))
        if self.count != self.at:
            return value
        if self.kind == "memory":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
        if self.kind == "loss":
            return value * math.nan
        return value + (model.head.weight - model.head.weight.detach()).sum().sqrt()  # finite, with an infinite slope


ACCIDENTS = [
    ("memory", TrainingError, "too little memory for a batch of 16: take a smaller --batch.*2.00 GiB"),
    ("loss", DivergedError, "the loss became nan at step 6 .epoch 2.*lower learning rate.*No step was made"),
    ("gradient", DivergedError, "the gradient became inf at step 6 .epoch 2"),
]


@pytest.mark.parametrize(("kind", "error", "says"), ACCIDENTS)
def test_an_accident_leaves_a_checkpoint_and_a_model(
    kind, error, says, samples, quick, tmp_path, checkpoint, identical
):
    def digits():
        x, y = samples(72)
        return F.interpolate(x, size=8), y

    out = tmp_path / "run"
    with pytest.raises(error, match=says):
        quick("DigitsMLP()", digits(), out=out, recipe=Failing(6, kind))
    first = checkpoint(out)
    assert first["progress"]["step"] == 4
    assert assay.load_model(str(out))(torch.rand(2, 1, 8, 8)).isfinite().all()
    assert '"state": "failed"' in (out / "train.json").read_text()
    quick("DigitsMLP()", digits(), out=out, recipe=Failing(0, kind), resume=True)
    quick("DigitsMLP()", digits(), out=tmp_path / "unbroken", recipe=Failing(0, kind))
    identical(checkpoint(out), checkpoint(tmp_path / "unbroken"))


def test_too_little_memory_to_measure(samples, network, quick, tmp_path, checkpoint, identical):
    def scarce(module, _):
        if not module.training and not torch.is_grad_enabled() and scarce.left:
            scarce.left -= 1
            if not scarce.left:
                raise torch.OutOfMemoryError("CUDA out of memory.")

    scarce.left = 2  # the first is to try the data
    model, out = network(), tmp_path / "run"
    model.register_forward_pre_hook(scarce)
    with pytest.raises(TrainingError, match="too little memory for measuring"):
        quick(model, samples(), out=out)
    assert checkpoint(out)["progress"]["step"] == 4
    quick(network(), samples(), out=out, resume=True)
    quick(network(), samples(), out=tmp_path / "unbroken")
    identical(checkpoint(out), checkpoint(tmp_path / "unbroken"))


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true", "32-true"])
def test_precisions(precision, samples, network, quick):
    recipe = Seen(inner=FGSMAT(threat=assay.Linf(0.1)))
    kinds = set()
    model = network()
    model.head.register_forward_hook(lambda _, __, out: kinds.add(out.dtype))
    done = quick(model, samples(), recipe=recipe, precision=precision, threat=assay.Linf(0.1), epochs=6)
    wanted = {"bf16-mixed": torch.bfloat16, "64-true": torch.float64, "32-true": torch.float32}[precision]
    assert wanted in kinds
    own = torch.float64 if precision == "64-true" else torch.float32
    assert {p.dtype for p in model.parameters()} == {own} == {recipe.notes[0][0].x.dtype}
    assert done.history[-1]["loss"] < done.history[0]["loss"]


def test_channels_last(samples, network, quick):
    def run(**settings):
        orders = set()
        model = network(dropout=0.0)
        model.conv.register_forward_hook(lambda _, __, out: orders.add(out.stride()[1] == 1))
        quick(model, samples(), optimizer=PLAIN, precision="64-true", **settings)
        return model, True in orders

    (plain, never), (last, seen) = run(), run(channels_last=True)
    assert (never, seen) == (False, True)
    for p, q in zip(plain.parameters(), last.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)


def test_compile_runs_the_compiled_network(samples, network, quick, monkeypatch):
    calls = []

    class Compiled(torch.nn.Module):
        def __init__(self, model):
            super().__init__()
            self.inner = model

        def forward(self, x):
            calls.append(len(x))
            return self.inner(x)

    monkeypatch.setattr(torch, "compile", Compiled)
    one, other = quick(network(), samples(), compile=True), quick(network(), samples())
    assert calls == [16] * 8
    assert list(one.model.state_dict()) == list(other.model.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(one.model.parameters(), other.model.parameters(), strict=True))


@pytest.mark.parametrize("text", ["cure", "llr", "gradalign", "AWP(recipe=CURE())"])
def test_second_derivatives_are_not_compiled(text, samples, network, quick):
    with pytest.raises(SettingError, match="no second derivatives"):
        quick(network(), samples(), recipe=text, threat="linf:0.1", compile=True)


def test_weights_are_cast_anew_for_the_loss(samples, linear, quick, monkeypatch):
    """Versions of torch that keep weights cast without a gradient would else train nothing under autocast."""
    inside, marks = [0], []

    class Block:
        def __enter__(self):
            inside[0] += 1

        def __exit__(self, *_):
            pass

    class Looking(Recipe):
        def prepare(self, model, batch):
            marks.append(inside[0])
            return {}

        def loss(self, model, batch, views):
            marks.append(inside[0])
            return batch.cross_entropy(model(batch.x))

    monkeypatch.setattr("assay.training.workers.Workers.autocast", lambda _: Block())
    quick(linear(), samples(16), recipe=Looking(), epochs=1, **ALL)
    assert marks == [1, 2]


def test_a_caller_who_wants_no_gradients_gets_a_trained_network(samples, network, quick):
    one, other = network(), network()
    quick(one, samples())
    with torch.no_grad():
        quick(other, samples())
        assert not torch.is_grad_enabled()
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


def test_the_callers_random_numbers_are_left_alone(samples, network, quick):
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    quick(network(), samples())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("data", "error", "says"),
    [
        (lambda x, y: (x, y + 1), assay.errors.InputError, "3"),
        (lambda x, y: (x[:, :, :3], y), ModelError, r"cannot take the data 'data', inputs of shape \(1, 3, 4\)"),
        (lambda x, y: (x + 1, y), assay.errors.InputError, "bounds|\\[0"),
        (lambda x, y: (x[:10], y[:10]), SettingError, "batch must lie between 1 and the 9 samples"),
    ],
)
def test_what_does_not_fit_is_told_before_training(data, error, says, samples, network, quick, tmp_path):
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(error, match=says):
        quick(model, data(*samples()), out=tmp_path / "run")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not (tmp_path / "run").exists()


def test_a_network_without_logits_or_parameters(samples, quick):
    with pytest.raises(ModelError, match="logits"):
        quick(torch.nn.Conv2d(1, 3, 1), samples())
    with pytest.raises(ModelError, match="Flatten has no parameters"):
        quick(torch.nn.Flatten(), samples())
