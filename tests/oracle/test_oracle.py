"""The oracle packs, counts, judges and keeps to budgets."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import assay
from assay.errors import AccessError, InputError, ModelError, SettingError
from assay.goals import Targeted, Untargeted
from assay.oracle import Access, Oracle


class Recording(nn.Module):
    """A linear classifier that notes the size of every batch it sees."""

    def __init__(self, d=4, classes=3):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(classes, d, generator=generator, dtype=torch.float64))
        self.batches, self.rows = [], []

    def forward(self, x):
        self.batches.append(len(x))
        self.rows.append(x.detach().clone())
        return x.flatten(1) @ self.weight.T


def setting(b=6, eps=0.2, **options):
    model = Recording()
    x = torch.rand(b, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = model(x).argmax(1)
    model.batches.clear()
    return model, x, y, Oracle(model, x, Untargeted(y), assay.Linf(eps), **options)


def test_only_active_rows_are_sent_packed_into_micro_batches():
    model, x, _, oracle = setting(b=10, micro_batch=4)
    oracle.record.active[::2] = False
    out = oracle.scores(torch.zeros_like(x))
    assert model.batches == [4, 1]
    assert bool(out[::2].isnan().all())
    assert torch.allclose(out[1::2], x[1::2] @ model.weight.T)
    assert oracle.record.forwards.tolist() == [0, 1] * 5
    oracle.scores(torch.zeros_like(x), rows=torch.arange(10) < 4)
    assert oracle.record.forwards.tolist() == [0, 2, 0, 2, 0, 1, 0, 1, 0, 1]


def test_gradients_are_those_of_autograd_and_zero_where_not_asked():
    model, x, y, oracle = setting()
    theta = torch.zeros_like(x).requires_grad_()
    value = nn.functional.cross_entropy(model(x + theta), y, reduction="none")
    (expected,) = torch.autograd.grad(value.sum(), theta)
    oracle.record.active[2] = False
    got, grad, output = oracle.gradient(torch.zeros_like(x))
    assert torch.allclose(grad[[0, 1, 3]], expected[[0, 1, 3]])
    assert torch.equal(grad[2], torch.zeros(4, dtype=torch.float64))
    assert math.isnan(got[2])
    assert torch.allclose(got[0], value[0])
    assert not output.requires_grad
    assert oracle.record.backwards.tolist() == [1, 1, 0, 1, 1, 1]
    assert model.weight.grad is None


def test_candidates_are_asked_in_one_call_and_the_smallest_success_is_kept():
    model, x, y, oracle = setting(b=3, eps=1.0)
    w = model.weight.detach()
    direction = torch.stack([(w[(c + 1) % 3] - w[c]).sign() for c in y.tolist()])
    sizes = torch.tensor([0.9, 0.0, 0.5, 0.7], dtype=torch.float64)
    theta = sizes[None, :, None] * direction[:, None]
    out = oracle.scores(theta)
    assert out.shape == (3, 4, 3)
    moved = (x[:, None] + theta).clamp(0, 1)
    assert torch.allclose(out, moved @ w.T)
    wins = (out.argmax(2) != y[:, None]).double()
    actual = (moved - x[:, None]).abs().amax(dim=2)
    best = torch.where(wins > 0, actual, torch.inf).amin(dim=1)
    assert bool(torch.isfinite(best).any())
    assert torch.allclose(oracle.record.distance, best)
    assert oracle.record.forwards.tolist() == [4, 4, 4]
    for i in range(3):
        if math.isfinite(best[i]):
            assert oracle.record.prediction[i] != y[i]
            assert torch.allclose((oracle.record.x_adv[i] - x[i]).abs().max(), best[i])


def test_moves_outside_the_threat_never_count():
    _, x, y, oracle = setting(eps=0.01)
    far = torch.where(x < 0.5, 1.0, -1.0) * torch.ones_like(x)
    out = oracle.scores(far)
    assert bool((out.argmax(1) != y).any())
    assert not bool(oracle.record.success.any())
    assert torch.equal(oracle.record.x_adv, x)
    assert bool(oracle.record.distance.isinf().all())


def test_a_success_ends_the_sample_and_without_budget_only_a_smaller_one_replaces_it():
    model, x, y, oracle = setting(b=1, eps=1.0)
    c = int(y[0])
    step = (model.weight.detach()[(c + 1) % 3] - model.weight.detach()[c]).sign()[None]
    oracle.scores(step)
    assert oracle.record.success.tolist() == [True]
    assert oracle.active.tolist() == [False]
    model.batches.clear()
    oracle.scores(step)
    assert model.batches == []
    free = Oracle(model, x, Untargeted(y), assay.Linf())
    for size in (0.9, 0.5, 0.7):
        free.scores(size * step)
    won = free.record.success
    assert won.tolist() == [True]
    actual = ((x + 0.5 * step).clamp(0, 1) - x).abs().max()
    assert torch.allclose(free.record.distance[0], actual)
    assert free.active.tolist() == [True]


def test_budgets_are_never_exceeded_with_and_without_candidates():
    _, x, _, oracle = setting(b=4, eps=1e-6, max_queries=5)
    assert oracle.scores(torch.zeros(4, 3, 4, dtype=torch.float64)).isnan().sum() == 0
    out = oracle.scores(torch.zeros(4, 3, 4, dtype=torch.float64))
    assert out[:, :2].isnan().sum() == 0
    assert bool(out[:, 2].isnan().all())
    assert oracle.record.forwards.tolist() == [5] * 4
    assert not bool(oracle.active.any())
    assert bool(oracle.scores(torch.zeros_like(x)).isnan().all())


def test_clean_inputs_are_judged_first():
    model, x, y, _ = setting()
    wrong = y.clone()
    wrong[1] = (wrong[1] + 1) % 3
    oracle = Oracle(model, x, Untargeted(wrong), assay.Linf(0.1))
    oracle.judge_clean()
    assert oracle.record.success.tolist() == [False, True, False, False, False, False]
    assert oracle.record.distance[1] == 0
    assert oracle.record.forwards.tolist() == [1] * 6
    assert torch.equal(oracle.record.prediction, y)
    known = Oracle(model, x, Untargeted(wrong), assay.Linf(0.1))
    known.judge_clean(model(x).detach())
    assert known.record.forwards.tolist() == [0] * 6
    assert torch.equal(known.record.success, oracle.record.success)
    assert torch.equal(known.clean(), oracle.clean())


def test_jacobian_is_that_of_autograd():
    model, x, _, oracle = setting()
    classes = torch.tensor([[0, 2]] * 6)
    grads, out = oracle.jacobian(torch.zeros_like(x), classes)
    assert torch.allclose(grads, model.weight.detach()[[0, 2]].expand(6, 2, 4))
    assert torch.allclose(out, x @ model.weight.T)
    assert oracle.record.forwards.tolist() == [1] * 6
    assert oracle.record.backwards.tolist() == [2] * 6


def test_gradients_of_several_losses_cost_one_forward_and_follow_the_guide():
    model, x, y, oracle = setting()
    targets = (y + 1) % 3
    oracle.record.active[2] = False
    wanted = lambda output, goal: output.gather(1, goal.classes[:, None]).squeeze(1)  # noqa: E731
    every = lambda output, goal: output.square().sum(1)  # noqa: E731
    grads, out = oracle.towards(Targeted(targets)).gradients(torch.zeros_like(x), [wanted, every])
    w = model.weight.detach()
    asked = torch.arange(6) != 2
    assert torch.allclose(grads[asked, 0], w[targets][asked])
    assert torch.allclose(grads[asked, 1], (2 * (x @ w.T) @ w)[asked])
    assert torch.equal(grads[2], torch.zeros(2, 4, dtype=torch.float64))
    assert torch.allclose(out[asked], (x @ w.T)[asked])
    assert oracle.record.forwards.tolist() == asked.int().tolist()
    assert oracle.record.backwards.tolist() == (2 * asked).tolist()
    oracle.record.active[:] = False
    assert oracle.gradients(torch.zeros_like(x), [wanted, every])[0].shape == (6, 2, 4)


def test_a_part_writes_into_the_record_of_the_whole():
    model, x, y, oracle = setting(eps=1.0)
    part = oracle.at(torch.tensor([4, 1])).at(torch.tensor([False, True]))
    assert torch.equal(part.x, x[[1]])
    c = int(y[1])
    part.scores((model.weight.detach()[(c + 1) % 3] - model.weight.detach()[c]).sign()[None])
    assert oracle.record.forwards.tolist() == [0, 1, 0, 0, 0, 0]
    assert oracle.record.success.tolist() == [False, True, False, False, False, False]
    assert part.active.tolist() == [False]


def test_another_guide_changes_the_loss_but_not_the_judge():
    _, x, y, oracle = setting()
    target = Targeted((y + 1) % 3)
    value, _, out = oracle.towards(target).gradient(torch.zeros_like(x))
    assert torch.allclose(value, -nn.functional.cross_entropy(out, target.classes, reduction="none"))
    assert not bool(oracle.record.success.any())
    assert oracle.record.forwards.tolist() == [1] * 6


def test_other_errors_of_the_model_pass_through():
    def broken(x):
        raise RuntimeError("shapes do not match")

    oracle = Oracle(broken, torch.rand(2, 3), Untargeted(torch.tensor([0, 1])), assay.Linf(0.1))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        oracle.scores(torch.zeros(2, 3))


def test_nothing_is_judged_counted_or_stopped_in_training():
    model, x, y, _ = setting()
    oracle = Oracle(model, x, Untargeted((y + 1) % 3), assay.Linf(0.1), referee=False)
    oracle.judge(torch.zeros_like(x))
    assert model.batches == []
    oracle.gradient(torch.zeros_like(x))
    assert model.batches == [6]
    assert bool(oracle.active.all())
    assert oracle.record.forwards.tolist() == [0] * 6


def test_width_fills_a_micro_batch():
    _, _, _, oracle = setting(b=6, micro_batch=32)
    assert oracle.width == 5
    oracle.record.active[1:] = False
    assert oracle.width == 32


def test_access_is_held():
    model, x, y, _ = setting()
    labels = Oracle(model, x, Untargeted(y), assay.Linf(0.1), access=Access.LABELS)
    assert torch.equal(labels.labels(torch.zeros_like(x)), y)
    with pytest.raises(AccessError, match="needs scores"):
        labels.scores(torch.zeros_like(x))
    scores = Oracle(model, x, Untargeted(y), assay.Linf(0.1), access=Access.SCORES)
    with pytest.raises(AccessError, match="needs gradients"):
        scores.gradient(torch.zeros_like(x))


def test_models_that_give_labels_only_can_be_judged():
    class Labels:
        access = Access.LABELS

        def __call__(self, x):
            return (x[:, 0] > 0.5).long()

    x = torch.tensor([[0.4], [0.6]])
    oracle = Oracle(Labels(), x, Untargeted(torch.tensor([0, 1])), assay.Linf(0.2), access=Access.LABELS)
    oracle.judge_clean()
    assert oracle.labels(torch.tensor([[0.15], [0.0]])).tolist() == [1, 1]
    assert oracle.record.success.tolist() == [True, False]


def test_bad_models_and_settings_are_named():
    x, goal = torch.rand(2, 3), Untargeted(torch.tensor([0, 1]))
    nan = Oracle(lambda v: v * torch.nan, x, goal, assay.Linf(0.1))
    with pytest.raises(ModelError, match="NaN for 2 of 2"):
        nan.scores(torch.zeros(2, 3))
    for cut in (lambda v: v.detach(), lambda v: torch.zeros(len(v), 3, requires_grad=True)):
        with pytest.raises(ModelError, match="no gradient reaches the input"):
            Oracle(cut, x, goal, assay.Linf(0.1)).gradient(torch.zeros(2, 3))
    with pytest.raises(InputError, match="labels run from 0 to 7"):
        Oracle(lambda v: v, x, Untargeted(torch.tensor([0, 7])), assay.Linf(0.1)).judge_clean()
    with pytest.raises(SettingError, match="max_queries"):
        Oracle(lambda v: v, x, goal, assay.Linf(0.1), max_queries=0)
    with pytest.raises(SettingError, match="micro_batch"):
        Oracle(lambda v: v, x, goal, assay.Linf(0.1), micro_batch=0)


def test_candidates_give_the_same_for_any_micro_batch():
    step = torch.tensor([0.9, 0.5, 0.7, 0.05], dtype=torch.float64)
    distances = []
    for micro_batch in (1, 2, 3, 64):
        model, _, y, oracle = setting(b=3, eps=1.0, micro_batch=micro_batch)
        w = model.weight.detach()
        direction = torch.stack([(w[(c + 1) % 3] - w[c]).sign() for c in y.tolist()])
        oracle.scores(step[None, :, None] * direction[:, None])
        distances.append(oracle.record.distance)
        assert oracle.record.forwards.tolist() == [4] * 3
    assert bool(torch.isfinite(distances[0]).any())
    assert all(torch.equal(distances[0], d) for d in distances)


def test_a_jacobian_nobody_was_asked_for_has_its_shape():
    _, x, _, oracle = setting()
    oracle.record.active[:] = False
    grads, _ = oracle.jacobian(torch.zeros_like(x), torch.zeros(6, 3, dtype=torch.int64))
    assert grads.shape == (6, 3, 4)


def test_what_is_said_of_the_clean_output_is_checked():
    model, x, y, _ = setting()
    oracle = Oracle(model, x, Untargeted(y + 7), assay.Linf(0.1))
    with pytest.raises(InputError, match="labels run"):
        oracle.judge_clean(model(x).detach())
    oracle = Oracle(model, x, Untargeted(y), assay.Linf(0.1))
    with pytest.raises(ModelError, match="one row for each input"):
        oracle.judge_clean(model(x).detach()[:2])
    with pytest.raises(ModelError, match="one row for each input"):
        Oracle(lambda v: v.sum(), x, Untargeted(y), assay.Linf(0.1)).judge_clean()


def test_labels_and_inputs_made_in_inference_mode_can_be_attacked():
    model, x, _, _ = setting()
    with torch.inference_mode():
        y, frozen = model(x).argmax(1), x + 0
        inside = assay.attacks.PGD(threat=assay.Linf(0.3), steps=3)(model, frozen, y)
        moved = assay.attacks.PGD(threat=assay.Linf(0.3), steps=3).perturb(model, frozen, y)
    outside = assay.attacks.PGD(threat=assay.Linf(0.3), steps=3)(model, frozen, y)
    assert torch.equal(inside.x_adv, outside.x_adv)
    assert not torch.equal(moved, x)


def test_bounds_that_float32_cannot_hold_are_still_bounds():
    bounds = (-2.117904, 2.64)
    x = torch.rand(4, 6).mul(9).sub(4).clamp(*bounds)
    result = assay.attacks.PGD(threat=assay.Linf(0.3, bounds=bounds), steps=3)(lambda v: v, x, x.argmax(1))
    assert float(result.x_adv.min()) >= float(x.min()) - 0.31
