"""Averages of weights: sums by hand, checkpoints, and the statistics of batch norm."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from assay import grammar, registry
from assay.errors import SettingError
from assay.training.averaging import EMA, SWA, Average

STEPS = 12


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Dropout(0.5)).double()


def walk(model, steps=STEPS):
    """Weights, statistics and counters move at random; after each step how far training is."""
    generator = torch.Generator().manual_seed(1)
    for step in range(1, steps + 1):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        model(torch.randn(4, 2, 5, 5, generator=generator, dtype=torch.float64))
        yield step / steps


def states(average):
    """The average after each step, and the weights of each."""
    model = network()
    holder = average.start(model)
    found = [(copy.deepcopy(holder.module.state_dict()), copy.deepcopy(model.state_dict()))]
    for progress in walk(model):
        holder.update(model, progress)
        found.append((copy.deepcopy(holder.module.state_dict()), copy.deepcopy(model.state_dict())))
    return found


def test_before_the_first_step_the_average_is_the_network():
    for average in (EMA(), SWA()):
        ((mine, theirs), *_) = states(average)
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9])
def test_ema_by_hand(decay):
    (before, first), *rest = states(EMA(decay=decay))
    expected = {name: tensor.clone() for name, tensor in first.items()}
    for step, (mine, theirs) in enumerate(rest):
        own = min(decay, (1 + step) / (10 + step))
        for name, tensor in theirs.items():
            floating = tensor.is_floating_point()
            expected[name] = own * expected[name] + (1 - own) * tensor if floating else tensor
            torch.testing.assert_close(mine[name], expected[name])
    assert int(rest[-1][0]["1.num_batches_tracked"]) == STEPS
    assert torch.equal(rest[-1][0]["0.weight"], rest[-1][1]["0.weight"]) == (decay == 0)
    assert not torch.equal(rest[-1][0]["1.running_mean"], before["1.running_mean"])


def test_ema_forgets_the_first_weights_of_a_short_training():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1e6)
    holder = EMA(decay=0.998).start(model)
    nn.init.zeros_(model.weight)
    for step in range(100):
        holder.update(model, step / 100)
    assert float(holder.module.weight) < 1


def test_swa_is_the_mean_of_the_last_part():
    found = states(SWA(start_at=0.5))
    taken = [theirs for _, theirs in found[STEPS // 2 :]]  # progress 6/12 and on
    assert len(taken) == 7
    for name in ("0.weight", "0.bias", "1.weight"):
        torch.testing.assert_close(found[-1][0][name], torch.stack([each[name] for each in taken]).mean(0))
    for mine, theirs in found[: STEPS // 2]:  # until then it follows the network
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("average", [EMA(decay=0.9), SWA(start_at=0.3)])
def test_a_checkpoint_goes_on_as_if_nothing_had_been(average, tmp_path):
    whole = states(average)[-1][0]
    model = network()
    holder = average.start(model)
    for step, progress in enumerate(walk(model)):
        if step == 5:
            torch.save(holder.state_dict(), tmp_path / "c.pt")
            holder = average.start(network())
            holder.load_state_dict(torch.load(tmp_path / "c.pt", weights_only=True))
        holder.update(model, progress)
    assert all(torch.equal(holder.module.state_dict()[name], whole[name]) for name in whole)


@pytest.mark.parametrize("average", [EMA(), SWA(start_at=0.0)])
def test_the_network_in_training_is_left_alone(average):
    model, twin = network(), network()
    model(torch.ones(2, 2, 5, 5, dtype=torch.float64)).sum().backward()
    twin(torch.ones(2, 2, 5, 5, dtype=torch.float64))
    holder = average.start(model)
    holder.update(model, 0.5)
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())
    assert not any(module.training for module in holder.module.modules())
    assert not any(p.requires_grad or p.grad is not None for p in holder.module.parameters())


def test_settled_statistics_are_those_of_the_batches():
    model = network()
    holder = SWA(start_at=0.0).start(model)
    for progress in walk(model):
        holder.update(model, progress)
    weights = [p.clone() for p in holder.module.parameters()]
    x = torch.randn(20, 2, 5, 5, dtype=torch.float64)
    holder.settle(x.split(5))
    out = holder.module[0](x).detach()
    bn = holder.module[1]
    torch.testing.assert_close(bn.running_mean, out.mean((0, 2, 3)))
    variances = torch.stack([part.transpose(0, 1).flatten(1).var(1) for part in out.split(5)])
    torch.testing.assert_close(bn.running_var, variances.mean(0))
    assert bn.momentum == 0.1
    assert not any(module.training for module in holder.module.modules())
    assert all(torch.equal(a, b) for a, b in zip(weights, holder.module.parameters(), strict=True))


def test_without_batch_norm_no_batch_is_asked_for():
    holder = SWA().start(nn.Linear(2, 2))
    holder.settle(pytest.fail("asked") for _ in range(1))


def test_before_its_start_swa_settles_nothing():
    model = network()
    holder = SWA(start_at=0.9).start(model)
    for progress in walk(model):
        if progress < 0.9:
            holder.update(model, progress)
            holder.settle(pytest.fail("asked") for _ in range(1))
            assert all(torch.equal(a, b) for a, b in zip(holder.module.buffers(), model.buffers(), strict=True))
    holder.update(model, 0.9)
    holder.settle([torch.ones(4, 2, 5, 5, dtype=torch.float64)])
    assert not torch.equal(holder.module[1].running_mean, model[1].running_mean)


def test_ema_settles_nothing():
    holder = EMA().start(network())
    before = copy.deepcopy(holder.module.state_dict())
    holder.settle([torch.ones(2, 2, 5, 5, dtype=torch.float64)])
    assert all(torch.equal(before[name], tensor) for name, tensor in holder.module.state_dict().items())


@pytest.mark.parametrize("name", registry.names("average"))
def test_the_repr_builds_it_again(name):
    average = grammar.named(name, Average)
    assert grammar.named(repr(average), Average) == average


def test_every_average_is_registered():
    assert {each.__name__ for each in Average.__subclasses__()} == set(registry.names("average"))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: EMA(decay=1.0), r"decay of EMA must be a number in \[0, 1\); got 1.0"),
        (lambda: EMA(decay=-0.1), "decay of EMA"),
        (lambda: SWA(start_at=1.0), "start_at of SWA"),
    ],
)
def test_settings_out_of_range(build, words):
    with pytest.raises(SettingError, match=words):
        build()
