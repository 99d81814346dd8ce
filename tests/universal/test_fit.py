"""A universal perturbation fools all that it can fool and none that it cannot, whichever method fits it."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import assay
from assay.attacks.deepfool import DeepFool
from assay.data.parts import shuffled
from assay.errors import AccessError, InputError, SettingError, ThreatError
from assay.oracle import Access
from assay.universal import DeepFoolPasses, StochasticAscent, fit_universal, fitting, split

METHODS = {"sgd": {"epochs": 20, "batch": 8}, "deepfool": {"delta": 0.01, "passes": 40, "batch": 4, "steps": 3}}
SHAPE = (1, 3, 3)


def affine(n: int = 12, *, high: float = 1.0) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A model with two classes and samples of the first, far from the bounds, with their values of the logit."""
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(9, generator=generator, dtype=torch.float64)
    x = high * (0.5 + 0.1 * (torch.rand(n, *SHAPE, generator=generator, dtype=torch.float64) - 0.5))
    value = x.flatten(1) @ w
    bias = -float(value.max()) - 0.05 * high * float(w.norm())
    linear = nn.Linear(9, 2, dtype=torch.float64)
    linear.load_state_dict({"weight": torch.stack([0 * w, w]), "bias": torch.tensor([0.0, bias]).double()})
    return nn.Sequential(nn.Flatten(), linear), x, value + bias


def distances(model: nn.Module, gap: torch.Tensor, norm: str) -> torch.Tensor:
    w = model[1].weight[1].detach()
    return gap.abs() / (w.abs().sum() if norm == "linf" else w.norm())


def digits(n: int = 200) -> tuple[nn.Module, assay.Data]:
    return assay.load_model("digits-mlp"), assay.load_data("digits", limit=n)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("high", [1.0, 4.0])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_fools_all_that_can_be_fooled_and_nothing_else(method, norm, high):
    model, x, gap = affine(high=high)
    y, known = torch.zeros(len(x), dtype=torch.int64), distances(model, gap, norm)
    threat = {"linf": assay.Linf, "l2": assay.L2}[norm](bounds=(0.0, high))
    for eps, share in ((1.2 * float(known.max()), 1.0), (0.95 * float(known.min()), 0.0)):
        found = fit_universal(model, (x, y), threat=threat.with_eps(eps), method=method, **METHODS[method])
        assert found.fooling_rate(model, (x, y)).value == share
        assert found.rates["fit"].fooling.value == share
        moved = found.apply(x)
        assert (model(moved).argmax(1) != 0).double().mean() == share
    half = 0.5 * float(known.min() + known.max())
    rate = fit_universal(model, (x, y), threat=threat.with_eps(half), method=method, **METHODS[method]).rates["fit"]
    assert rate.fooling.value == float((known < half).double().mean())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threat", [assay.Linf(0.15), assay.L2(0.8), assay.Linf(1.5)])
def test_every_step_stays_in_the_ball(method, threat):
    model, data = digits(40)
    settings = {"epochs": 3, "batch": 16} if method == "sgd" else {"delta": 0.01, "passes": 2, "steps": 3}
    steps = list(fitting(model, data, threat=threat, method=method, **settings))
    x, _, _ = data.batch(0, 40)
    for now in steps:
        v = now.universal.perturbation
        size = v.abs().max() if threat.name == "linf" else v.norm()
        assert size <= min(threat.eps, 1.0 if threat.name == "linf" else 8.0) * (1 + 1e-6)
        moved = now.universal.apply(x)
        assert moved.min() >= 0
        assert moved.max() <= 1
    assert v.abs().max() > 0
    assert [now.done for now in steps] == sorted(now.done for now in steps)
    assert 0 <= steps[-1].fooled <= 1


@pytest.mark.parametrize("method", METHODS)
def test_the_micro_batch_changes_nothing(method):
    model, data = digits(60)
    model = model.double()
    x, y, _ = data.batch(0, 60)
    settings = {"passes": 1, "batch": 5} if method == "deepfool" else {"epochs": 2, "batch": 20}
    whole, part = (
        fit_universal(model, (x.double(), y), threat="linf:0.2", method=method, micro_batch=m, **settings)
        for m in (64, 3)
    )
    assert torch.allclose(whole.perturbation, part.perturbation, atol=1e-9)
    assert whole.rates == part.rates
    assert whole.spent["forwards"] == part.spent["forwards"]
    assert whole.rates["fit"].fooling.value > 0.05


def test_passes_are_counted():
    model, data = digits(50)
    calls = {"forwards": 0}

    class Counting(nn.Module):
        def forward(self, x):
            calls["forwards"] += len(x)
            return model(x)

    counting = Counting()
    for method, settings in (("sgd", {"epochs": 3, "batch": 20}), ("deepfool", {"passes": 2, "steps": 2})):
        calls["forwards"] = 0
        last = list(fitting(counting, data, threat="linf:0.1", method=method, **settings))[-1]
        assert last.universal.spent["forwards"] == calls["forwards"]
        assert last.passes == next(iter(settings.values()))
        assert last.done == last.total
    found = fit_universal(model, data, threat="linf:0.1", epochs=3, batch=20)
    assert (found.spent["forwards"], found.spent["backwards"]) == (50 + 150, 150)


def test_deepfool_one_by_one_is_the_loop_of_the_paper():
    model, data = digits(16)
    model = model.double()
    x, y, _ = data.batch(0, 16)
    x = x.double()
    found = fit_universal(
        model, (x, y), threat="linf:0.15", method="deepfool", passes=2, delta=1e-9, steps=3, batch=1, seed=5
    )
    before, best, most = model(x).argmax(1), None, -1.0
    search, v = DeepFool(threat=assay.L2(), steps=3), torch.zeros_like(x[:1])
    for turn in range(2):
        for i in shuffled(16, assay.rng.derive(5, "pass"), turn).tolist():
            moved = (x[i : i + 1] + v).clamp(0, 1)
            if model(moved).argmax(1) == before[i]:
                result = search(model, moved, before[i : i + 1])
                if result.success:
                    v = (v + result.x_adv - moved).clamp(-0.15, 0.15)
        share = float((model((x + v).clamp(0, 1)).argmax(1) != before).double().mean())
        if share > most:
            best, most = v, share
    assert torch.allclose(found.perturbation, best[0], atol=1e-9)
    assert found.rates["fit"].fooling.value == most


def test_deepfool_stops_when_enough_are_fooled():
    model, x, gap = affine()
    eps = 1.2 * float(distances(model, gap, "l2").max())
    y = torch.zeros(len(x), dtype=torch.int64)
    found = fit_universal(model, (x, y), threat=assay.L2(eps), method="deepfool", passes=20)
    assert found.rates["fit"].fooling.value >= 0.8
    assert found.spent["passes"] < 20


def test_samples_whose_loss_is_clipped_do_not_pull():
    model, x, _ = affine()
    data = (x, torch.zeros(len(x), dtype=torch.int64))
    assert fit_universal(model, data, threat="linf:0.1", epochs=1, clip=1e-3).perturbation.abs().max() == 0
    assert fit_universal(model, data, threat="linf:0.1", epochs=1).perturbation.abs().max() > 0


def test_a_target():
    model, data = digits(200)
    fit, test = split(data, 120)
    found = fit_universal(model, fit, threat="linf:0.5", target=3, epochs=10, batch=30)
    rates = found.measure(model, test)
    assert rates.target.value > 0.8
    aimless = assay.Universal.random(assay.Linf(0.5), found.perturbation)
    x, _, _ = test.batch(0, 80)
    assert (model(aimless.apply(x)).argmax(1) == 3).double().mean() < 0.5
    before = model(x).argmax(1)
    assert rates.target.value == float((model(found.apply(x)).argmax(1)[before != 3] == 3).double().mean())
    assert found.settings["target"] == 3


def test_the_seed_decides_and_nothing_else():
    model, data = digits(60)
    torch.manual_seed(1)
    first = fit_universal(model, data, threat="linf:0.1", epochs=2, batch=10, seed=3)
    torch.manual_seed(2)
    again = fit_universal(model, data, threat="linf:0.1", epochs=2, batch=10, seed=3)
    other = fit_universal(model, data, threat="linf:0.1", epochs=2, batch=10, seed=4)
    assert torch.equal(first.perturbation, again.perturbation)
    assert not torch.equal(first.perturbation, other.perturbation)


def test_lazy_data_are_read_item_by_item():
    model, data = digits(40)
    x, y, _ = data.batch(0, 40)
    lazy = [(x[i], int(y[i])) for i in range(40)]

    class Lazy(torch.utils.data.Dataset):
        def __len__(self):
            return len(lazy)

        def __getitem__(self, position):
            return lazy[position]

    found = [fit_universal(model, d, threat="linf:0.1", epochs=2) for d in (data, Lazy(), TensorDataset(x, y))]
    assert torch.equal(found[0].perturbation, found[1].perturbation)
    assert torch.equal(found[0].perturbation, found[2].perturbation)
    assert found[0].rates == found[1].rates


def test_a_start_is_gone_on_from_and_brought_into_the_ball():
    model, data = digits(60)
    first = fit_universal(model, data, threat="linf:0.3", epochs=2)
    step = next(fitting(model, data, threat="linf:0.1", start=first, rel_step=1e-9))
    assert torch.allclose(step.universal.perturbation, first.perturbation.clamp(-0.1, 0.1), atol=1e-7)
    with pytest.raises(InputError, match="the start has shape"):
        fit_universal(model, data, threat="linf:0.1", start=torch.zeros(3))


def test_model_and_gradient_mode_are_left_alone_between_steps():
    model, data = digits(30)
    model.train()
    list(model.modules())[-1].eval()
    flags = [module.training for module in model.modules()]
    for _ in fitting(model, data, threat="linf:0.1", epochs=1, batch=10):
        assert [module.training for module in model.modules()] == flags
        assert torch.is_grad_enabled()
    assert all(p.grad is None for p in model.parameters())


def test_split_is_a_partition():
    data = assay.Data(torch.rand(30, 2), torch.arange(30) % 3, index=torch.arange(100, 130))
    fit, test = split(data, 12, seed=1)
    assert sorted(torch.cat([fit.index, test.index]).tolist()) == list(range(100, 130))
    assert torch.equal(fit.x, data.x[fit.index - 100])
    assert torch.equal(test.y, data.y[test.index - 100])
    assert not torch.equal(split(data, 12, seed=2)[0].index, fit.index)
    for count in (0, 30):
        with pytest.raises(SettingError, match="both parts need some"):
            split(data, count)


class LabelsOnly:
    access = Access.LABELS

    def __init__(self, model):
        self.model = model

    def __call__(self, x):
        return self.model(x).argmax(1)


MISTAKES = [
    ({"threat": "l1:3"}, ThreatError, "in Linf and L2"),
    ({"threat": "linf"}, ThreatError, "needs a budget"),
    ({"threat": assay.Linf(torch.full((20,), 0.1))}, ThreatError, "one eps"),
    ({"method": "sdg"}, SettingError, "there are sgd, deepfool"),
    ({"epoch": 3}, SettingError, "Did you mean epochs"),
    ({"epochs": 0}, SettingError, "epochs must be a whole number, at least 1; got 0"),
    ({"epochs": "a"}, SettingError, "got 'a'"),
    ({"clip": 0.0}, SettingError, "clip must be a positive number"),
    ({"rel_step": float("inf")}, SettingError, "rel_step must be"),
    ({"method": "deepfool", "delta": 1.5}, SettingError, "at most 1"),
    ({"method": "deepfool", "candidates": 1}, SettingError, "candidates must be at least 2"),
    ({"method": StochasticAscent(), "epochs": 3}, SettingError, "given as an object"),
    ({"target": 10}, SettingError, "knows 0 to 9"),
]


@pytest.mark.parametrize(("settings", "error", "says"), MISTAKES, ids=[says for *_, says in MISTAKES])
def test_mistakes(settings, error, says):
    model, data = digits(20)
    with pytest.raises(error, match=says):
        fit_universal(model, data, **({"threat": "linf:0.1"} | settings))


def test_a_model_without_gradients_is_measured_but_not_fitted_on():
    model, data = digits(40)
    with pytest.raises(AccessError, match="Fit on another model"):
        fit_universal(LabelsOnly(model), data, threat="linf:0.1")
    found = fit_universal(model, data, threat="linf:0.3", epochs=3, batch=10)
    assert found.measure(LabelsOnly(model), data) == found.measure(model, data)


def test_inputs_outside_the_bounds_are_refused():
    model, data = digits(20)
    with pytest.raises(InputError, match="outside the bounds"):
        fit_universal(model, (data.x * 2, data.y), threat="linf:0.1")


def test_a_method_may_be_given_as_an_object():
    method = DeepFoolPasses(passes=1, steps=1)
    found = fit_universal(*digits(20), threat="linf:0.01", method=method)
    assert found.settings["method"] == repr(method)
    assert found.perturbation.abs().max() <= 0.01
