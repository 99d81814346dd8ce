"""Expectation over transformations: means, verdicts, keys and counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import assay
from assay.errors import ModelError, SettingError
from assay.goals import Targeted, Untargeted
from assay.oracle import Access, Oracle
from assay.oracle.verdicts import of_draws
from assay.rng import Keyed
from assay.transformations import EOT, Blur, Brightness, Contrast, Noise, Rotate


class Linear(nn.Module):
    """A linear classifier that notes how many rows it sees."""

    def __init__(self, d=12, classes=3):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(classes, d, generator=generator, dtype=torch.float64))
        self.batches = []

    def forward(self, x):
        self.batches.append(len(x))
        return x.flatten(1) @ self.weight.T


def setting(b=5, **options):
    model = Linear()
    x = torch.rand(b, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.2 + 0.4
    y = model(x).argmax(1)
    model.batches.clear()
    return model, x, y, Oracle(model, x, Untargeted(y), assay.Linf(0.05), **options)


def squares(output, goal):
    return output.square().sum(dim=1)


ATTACKS = [
    assay.attacks.PGD(threat=assay.Linf(0.03), steps=5),
    assay.attacks.APGD(threat=assay.L2(0.1), steps=8),
    assay.attacks.Square(threat=assay.Linf(0.03), queries=20),
    assay.attacks.DeepFool(threat=assay.L2()),
    assay.attacks.DDN(threat=assay.L2(), steps=4),
    assay.attacks.MultiTargeted(attack=assay.attacks.APGD(threat=assay.Linf(0.02), steps=5)),
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
def test_one_draw_of_nothing_is_the_plain_attack(attack):
    model, x, y, _ = setting(b=8)
    y = torch.where(torch.arange(8) == 3, (y + 1) % 3, y)
    plain, nothing = attack(model, x, y, seed=3), attack(model, x, y, seed=3, eot=EOT(draws=1))
    for name in ("x_adv", "success", "distance", "prediction", "forwards", "backwards"):
        assert torch.equal(getattr(plain, name), getattr(nothing, name)), name
    assert int(plain.success.sum()) > 0


def test_gradients_are_those_of_the_expectation():
    strength, draws = 1.0, 4000
    model, x, y, _ = setting(b=2)
    x = (x - 0.5) * 2.5 + 0.5
    eot = EOT(Contrast(strength), draws=draws)
    oracle = Oracle(model, x, Untargeted(y), assay.Linf(0.05), eot=eot, micro_batch=512)
    w = model.weight.detach()
    centred = torch.eye(12, dtype=torch.float64) - 1 / 12
    product = w.T @ w
    expected = 2 * x @ (product + strength**2 / 3 * centred @ product @ centred)
    _, grad, output = oracle.gradient(torch.zeros_like(x), squares)
    # a draw's gradient is 2 x (P + u (CP + PC) + u^2 CPC) with u uniform up to the strength
    linear = 2 * (x @ (centred @ product + product @ centred)).norm(dim=1) * (strength**2 / 3) ** 0.5
    square = 2 * (x @ centred @ product @ centred).norm(dim=1) * strength**2 * (4 / 45) ** 0.5
    spread = 4 * (linear.square() + square.square()).sqrt() / draws**0.5
    assert bool(((grad - expected).norm(dim=1) < spread).all())
    assert bool(((grad - 2 * x @ product).norm(dim=1) > spread).all())  # which is what ignoring the draws gives
    assert torch.allclose(output, x @ w.T, atol=4 * strength / draws**0.5 * float((x @ centred @ w.T).abs().max()))


def test_values_hold_the_variance_of_the_noise():
    std, draws = 0.05, 4000
    model, x, _, oracle = setting(b=2, eot=EOT(Noise(std), draws=draws), micro_batch=512)
    w = model.weight.detach()
    value = oracle.value(torch.zeros_like(x), squares)
    clean = (x @ w.T).square().sum(dim=1)
    spread = 2 * std * (x @ w.T @ w).norm(dim=1) / draws**0.5
    assert bool(((value - clean - std**2 * w.square().sum()).abs() < 4 * spread).all())
    assert (max(model.batches), sum(model.batches)) == (512, 2 * draws)


def test_several_gradients_are_means_of_each():
    model, x, y, oracle = setting(eot=EOT(Brightness(0.1), draws=6))
    assert torch.allclose(
        oracle.jacobian(torch.zeros_like(x), torch.tensor([[0, 2]] * 5))[0],
        model.weight.detach()[[0, 2]].expand(5, 2, 12),
    )
    again = Oracle(model, x, Untargeted(y), assay.Linf(0.05), eot=EOT(Brightness(0.1), draws=6))
    one = again.gradient(torch.zeros_like(x), squares)[1]
    both = Oracle(model, x, Untargeted(y), assay.Linf(0.05), eot=EOT(Brightness(0.1), draws=6))
    grads, output = both.gradients(torch.zeros_like(x), [squares, lambda output, goal: output[:, 0]])
    assert torch.allclose(grads[:, 0], one)
    assert torch.allclose(grads[:, 1], model.weight.detach()[0].expand(5, 12))
    assert output.shape == (5, 3)
    assert both.record.forwards.tolist() == [6] * 5
    assert both.record.backwards.tolist() == [12] * 5


def test_the_model_sees_the_keyed_views():
    seen = []

    def model(x):
        seen.append(x.detach().clone())
        return torch.stack([x.sum(dim=1), -x.sum(dim=1)], dim=1)

    x = torch.full((2, 3), 0.5, dtype=torch.float64)
    goal = Untargeted(torch.tensor([0, 0]))
    options = {"eot": EOT(Brightness(0.2), draws=3), "index": torch.tensor([7, 9]), "seed": 5}
    oracle = Oracle(model, x, goal, assay.Linf(0.1), **options)
    oracle.scores(torch.zeros(2, 2, 3, dtype=torch.float64))
    oracle.scores(torch.zeros_like(x))
    first = seen[0].reshape(2, 2, 3, 3)
    assert torch.equal(first[:, 0], first[:, 1])  # candidates of one question share their draws
    assert len(seen[0].unique(dim=0)) == 6  # two samples with three draws each
    assert len(torch.cat([seen[0], seen[1]]).unique(dim=0)) == 12
    alone = Oracle(model, x[1:], goal.at(torch.tensor([1])), assay.Linf(0.1), **{**options, "index": torch.tensor([9])})
    alone.scores(torch.zeros(1, 3, dtype=torch.float64))
    assert torch.equal(seen[2], first[1, 0])
    other = Oracle(model, x, goal, assay.Linf(0.1), **{**options, "seed": 6})
    other.scores(torch.zeros_like(x))
    assert not bool((seen[3].reshape(2, 3, 3) == first[:, 0]).any())


def test_no_two_samples_questions_or_draws_share_views():
    seen = []

    def model(x):
        seen.append(x.detach().clone())
        return torch.stack([x.sum(dim=1), -x.sum(dim=1)], dim=1)

    index = torch.tensor([7, 7 + (1 << 32), 7 + (1 << 52), 8])
    x = torch.full((4, 3), 0.5, dtype=torch.float64)
    goal = Untargeted(torch.zeros(4, dtype=torch.int64))
    oracle = Oracle(model, x, goal, assay.Linf(0.1), eot=EOT(Noise(0.01), draws=5), index=index)
    for question in (0, 1, 1 << 20, 1 << 32):
        oracle._asking._numbers.fill_(question)
        oracle.scores(torch.zeros_like(x))
    views = torch.cat(seen)
    assert len(views.flatten().unique()) == views.numel() == 4 * 4 * 5 * 3


@pytest.mark.parametrize("eot", [EOT(Noise(0.1), Brightness(0.1), draws=7), EOT(Contrast(0.5), draws=4, share=0.8)])
@pytest.mark.parametrize("attack", [ATTACKS[0], ATTACKS[2], ATTACKS[4]], ids=lambda attack: type(attack).__name__)
def test_results_do_not_depend_on_batches_or_packing(attack, eot):
    model, x, y, _ = setting()
    whole = attack(model, x, y, eot=eot)
    for micro_batch in (3, 64):
        packed = attack(model, x, y, eot=eot, micro_batch=micro_batch)
        assert torch.allclose(packed.x_adv, whole.x_adv, atol=1e-9)
        for name in ("success", "prediction", "forwards", "backwards"):
            assert torch.equal(getattr(packed, name), getattr(whole, name)), name
    alone = attack(model, x[4:], y[4:], eot=eot, index=torch.tensor([4]))
    assert torch.allclose(alone.x_adv[0], whole.x_adv[4], atol=1e-9)
    assert int(alone.forwards) == int(whole.forwards[4])


@pytest.mark.parametrize("micro_batch", [1, 4, 10, 25])
def test_every_pass_is_counted_and_no_call_is_larger_than_a_micro_batch(micro_batch):
    model, x, y, _ = setting(b=6)
    attack = assay.attacks.PGD(threat=assay.Linf(0.06), steps=4)
    result = attack(model, x, y, eot=EOT(Noise(0.05), draws=10), micro_batch=micro_batch)
    assert max(model.batches) <= micro_batch
    assert sum(model.batches) == int(result.forwards.sum())
    assert bool((result.backwards % 10 == 0).all())
    assert 0 < int(result.success.sum()) < 6


def test_lucky_draws_do_not_make_a_success_where_none_exists():
    model, x, y, _ = setting(b=6)
    attack = assay.attacks.PGD(threat=assay.Linf(0.04), steps=20, random_start=False)
    assert not bool(attack(model, x, y).success.any())  # and noise alone cannot move a linear model's mean
    first = attack(model, x, y, eot=EOT(Noise(0.05), draws=10, confirm=0))
    assert int(first.success.sum()) > 0
    assert int(attack(model, x, y, eot=EOT(Noise(0.05), draws=10)).success.sum()) == 0


@pytest.mark.parametrize("budget", [12, 13, 20, 31, 47])
@pytest.mark.parametrize("attack", [ATTACKS[0], ATTACKS[2]], ids=lambda attack: type(attack).__name__)
def test_budgets_are_kept(attack, budget):
    model, x, y, _ = setting(b=6)
    eot = EOT(Noise(0.05), draws=6)
    result = attack(model, x, y, eot=eot, max_queries=budget)
    assert int(result.forwards.max()) <= budget
    assert int(result.forwards.max()) > budget - 12
    assert sum(model.batches) == int(result.forwards.sum())
    with pytest.raises(SettingError, match="at least 12"):
        attack(model, x, y, eot=eot, max_queries=11)


def test_a_share_of_the_draws_decides():
    wins = torch.tensor([[1, 1, 1, 0, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]]).bool()
    decided = torch.tensor([[5, 4, 5, 0, 0, 0, 0, 0, 0, 0], [3, 3, 0, 0, 0, 0, 0, 0, 0, 0]])
    assert [part.tolist() for part in of_draws(wins, decided, 0.3)] == [[True, False], [5, 0]]
    assert of_draws(wins, decided, 0.2).reached.tolist() == [True, True]
    assert of_draws(wins, decided, 1.0).reached.tolist() == [False, False]
    tie = of_draws(torch.ones(1, 4).bool(), torch.tensor([[2, 1, 1, 2]]), 0.5)
    assert tie.decision.tolist() == [1]


class Scripted:
    """Decides wrongly in the views that a script says, call by call."""

    def __init__(self, *script):
        self.script = list(script)

    def __call__(self, x):
        wrong = torch.tensor(self.script.pop(0), dtype=torch.float64)
        assert len(wrong) == len(x)
        return torch.stack([0.5 - wrong, wrong - 0.5], dim=1) + 0 * x.sum(dim=1, keepdim=True)


def test_clean_inputs_are_judged_by_their_share_too_and_twice():
    x, y = torch.full((3, 2), 0.5, dtype=torch.float64), torch.zeros(3, dtype=torch.int64)
    draws = [*[1, 1, 0, 0], *[1, 1, 1, 0], *[1, 0, 0, 0]]
    second = [*[1, 0, 0, 0], *[1, 1, 0, 0]]  # only the first two have to be confirmed
    oracle = Oracle(Scripted(draws, second), x, Untargeted(y), assay.Linf(0.1), eot=EOT(draws=4))
    oracle.judge_clean()
    assert oracle.record.success.tolist() == [False, True, False]
    assert oracle.record.prediction.tolist() == [0, 1, 0]
    assert oracle.record.forwards.tolist() == [8, 8, 4]
    assert oracle.active.tolist() == [True, False, True]


def test_moves_that_were_only_lucky_are_no_successes():
    x, y = torch.full((1, 2), 0.5, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    script = ([0, 0, 0], [1, 1, 0], [0, 0, 1, 0, 0], [1, 1, 1], [1, 1, 1, 0, 0])
    oracle = Oracle(Scripted(*script), x, Untargeted(y), assay.Linf(0.1), eot=EOT(draws=3, confirm=5))
    oracle.judge_clean()
    move = torch.full_like(x, 0.05)
    oracle.scores(move)
    assert (oracle.record.success.tolist(), oracle.record.prediction.tolist()) == ([False], [0])
    assert torch.equal(oracle.record.x_adv, x)
    oracle.scores(move)
    assert (oracle.record.success.tolist(), oracle.record.prediction.tolist()) == ([True], [1])
    assert torch.allclose(oracle.record.x_adv, x + move)
    assert oracle.record.forwards.tolist() == [3 + 8 + 8]


def test_of_several_lucky_candidates_the_smallest_that_stands_counts():
    x, y = torch.full((2, 2), 0.5, dtype=torch.float64), torch.zeros(2, dtype=torch.int64)
    moves = torch.tensor([0.06, 0.02, 0.04, 0.01], dtype=torch.float64)[None, :, None].expand(2, 4, 2)
    asked = [
        1,
        1,
        1,
        1,
        1,
        1,
        0,
        0,
        *[1, 1, 1, 1, 0, 0, 0, 0],
    ]  # three candidates win of the first sample, two of the other
    turns = ([0, 0, 1, 1], [1, 1])  # the smallest of both; then the first sample's next
    oracle = Oracle(Scripted(asked, *turns), x, Untargeted(y), assay.Linf(0.1), eot=EOT(draws=2))
    oracle.scores(moves)
    assert oracle.record.success.tolist() == [True, True]
    assert oracle.record.distance.tolist() == pytest.approx([0.04, 0.02])
    assert torch.allclose(oracle.record.x_adv[:, 0], torch.tensor([0.54, 0.52], dtype=torch.float64))
    assert oracle.record.forwards.tolist() == [8 + 4, 8 + 2]

    script = Scripted([1] * 16, [0, 0, 0, 0], [0, 0, 0, 0])
    oracle = Oracle(script, x, Untargeted(y), assay.Linf(0.1), eot=EOT(draws=2), max_queries=12)
    oracle.scores(moves)
    assert not script.script  # two tries are what the budget holds
    assert oracle.record.forwards.tolist() == [12, 12]
    assert not bool(oracle.record.success.any())


def test_the_second_judgement_uses_the_same_views_for_every_move():
    seen = []

    def model(x):
        seen.append(x.detach().clone())
        return torch.stack([torch.zeros(len(x), dtype=x.dtype), x.sum(dim=1)], dim=1)  # always wrong

    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    oracle = Oracle(model, x, Untargeted(torch.tensor([0])), assay.Linf(), eot=EOT(Noise(0.01), draws=3))
    for size in (0.3, 0.2):
        oracle.scores(torch.full_like(x, size))
    first, confirmed, later, again = seen
    assert torch.allclose(confirmed - 0.3, again - 0.2)
    assert not bool(torch.isclose(first, confirmed).any())  # nor are they those of any question
    assert not torch.allclose(first - 0.3, later - 0.2)
    assert oracle.record.forwards.tolist() == [12]


def test_a_model_with_its_own_randomness_is_asked_often():
    class Coin:
        """A defence that answers at random, rightly in three of four cases."""

        def __init__(self):
            self.generator = torch.Generator().manual_seed(0)
            self.rows = 0

        def __call__(self, x):
            self.rows += len(x)
            right = torch.rand(len(x), generator=self.generator) < 0.75
            return torch.stack([right, ~right], dim=1).to(x.dtype) + 0 * x.sum(dim=1, keepdim=True)

    x, y = torch.rand(20, 3), torch.zeros(20, dtype=torch.int64)
    attack = assay.attacks.PGD(threat=assay.Linf(0.1), steps=5)
    once = attack(Coin(), x, y)
    assert int(once.success.sum()) > 12  # who is asked once wins by waiting
    model = Coin()
    often = attack(model, x, y, eot=EOT(draws=30))
    assert not bool(often.success.any())
    assert int(often.forwards.sum()) == model.rows


def test_decisions_are_all_that_some_models_tell():
    class Labels:
        access = Access.LABELS

        def __call__(self, x):
            return (x[:, 0] > 0.5).long()

    x = torch.tensor([[0.3], [0.49], [0.58]])
    goal = Untargeted(torch.tensor([0, 0, 0]))
    eot = EOT(Brightness(0.1), draws=200, share=0.8)
    oracle = Oracle(Labels(), x, goal, assay.Linf(0.2), access=Access.LABELS, eot=eot)
    oracle.judge_clean()
    assert oracle.record.prediction.tolist() == [0, 0, 1]
    assert oracle.record.success.tolist() == [False, False, True]
    assert oracle.labels(torch.tensor([[0.2], [0.1], [0.0]])).tolist() == [0, 1, -1]


def test_memory_that_runs_out_halves_what_is_sent():
    class Tight(Linear):
        def forward(self, x):
            if len(x) > 5:
                raise RuntimeError("CUDA out of memory. Tried")
            return super().forward(x)

    model, x, y = Tight(), *setting()[1:3]
    oracle = Oracle(model, x, Untargeted(y), assay.Linf(0.05), eot=EOT(Noise(0.1), draws=12))
    value, grad, _ = oracle.gradient(torch.zeros_like(x))
    assert max(model.batches) <= 5
    plenty = Oracle(Linear(), x, Untargeted(y), assay.Linf(0.05), eot=EOT(Noise(0.1), draws=12))
    expected, slope, _ = plenty.gradient(torch.zeros_like(x))
    assert torch.allclose(value, expected)
    assert torch.allclose(grad, slope)


def test_training_searches_on_means_too():
    model, x, y, _ = setting()
    attack = assay.attacks.PGD(threat=assay.Linf(0.05), steps=5)
    moved = attack.perturb(model, x, y, eot=EOT(Noise(0.05), draws=4))
    assert float((moved - x).abs().max()) <= 0.05 + 1e-9
    loss = lambda v: nn.functional.cross_entropy(model(v), y).detach()  # noqa: E731
    assert float(loss(moved)) > float(loss(x)) + 0.05
    again = attack.perturb(model, x, y, eot=EOT(Noise(0.05), draws=4))
    assert torch.equal(moved, again)


def test_targets_and_parts_of_a_batch_work():
    _, x, y, oracle = setting(eot=EOT(Brightness(0.1), draws=4, share=1))
    part = oracle.towards(Targeted((y + 1) % 3)).at(torch.tensor([3, 0]))
    value, grad, output = part.gradient(torch.zeros(2, 12, dtype=torch.float64))
    assert value.shape == (2,)
    assert grad.shape == (2, 12)
    assert oracle.record.forwards.tolist() == [4, 0, 0, 4, 0]
    whole = setting(eot=EOT(Brightness(0.1), draws=4, share=1))[3]
    assert torch.allclose(whole.scores(torch.zeros_like(x))[[3, 0]], output)


def test_what_cannot_be_is_named():
    model, x, y, _ = setting()
    attack = ATTACKS[0]
    with pytest.raises(SettingError, match="leave clean_output out"):
        attack(model, x, y, clean_output=model(x), eot=EOT(draws=2))
    with pytest.raises(ModelError, match="must be tensors"):
        Oracle(lambda v: [1] * len(v), x, Untargeted(y), assay.Linf(0.1), eot=EOT(draws=2)).scores(torch.zeros_like(x))
    with pytest.raises(ModelError, match="NaN for 10 of 10 inputs"):
        Oracle(lambda v: v * torch.nan, x, Untargeted(y), assay.Linf(0.1), eot=EOT(draws=2)).scores(torch.zeros_like(x))


def test_images_are_turned_and_blurred_inside_the_bounds():
    x = torch.rand(3, 1, 6, 6, dtype=torch.float64) * 2 - 1
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 3, dtype=torch.float64))
    seen = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    attack = assay.attacks.PGD(threat=assay.Linf(0.1, bounds=(-1, 1)), steps=3)
    result = attack(model, x, torch.tensor([0, 1, 2]), eot=EOT(Rotate(20, padding="border"), Blur(1.0), draws=3))
    assert all(float(batch.min()) >= -1 and float(batch.max()) <= 1 for batch in seen)
    assert float((result.x_adv - x).abs().max()) <= 0.1 + 1e-9
    assert len(seen[0]) == 9


def test_keys_of_draws_do_not_meet():
    index = torch.tensor([0, 1, 59_999])
    eot = EOT(Noise(0.1), draws=3)
    numbers = Keyed(0, index).index
    views = eot.views(torch.full((3, 4), 0.5), Keyed(1, numbers))
    assert len(views.unique()) == 12


def test_a_transformation_alone_is_no_setting():
    model, x, y, _ = setting(b=2)
    for wrong in (Rotate(3), [Rotate(3)]):
        with pytest.raises(SettingError, match="must be an EOT, such as"):
            ATTACKS[0](model, x, y, eot=wrong)
