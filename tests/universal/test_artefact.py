"""What is measured, kept and drawn of a universal perturbation."""

from __future__ import annotations

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import assay
from assay.errors import InputError, StoreError
from assay.universal import Rate, Rates, fit_universal, measure
from assay.universal.artefact import Universal


class Fixed(nn.Module):
    """Class 1 where the first value exceeds a half."""

    def forward(self, x):
        value = x.flatten(1)[:, :1] - 0.5
        return torch.cat([-value, value], dim=1)


X = torch.tensor([[0.1, 0.5], [0.3, 0.5], [0.45, 0.5], [0.9, 0.5]])


def move(first: float) -> Universal:
    return Universal(perturbation=torch.tensor([first, 0.0]), threat=assay.Linf(0.3), settings={"target": None})


@pytest.fixture(scope="module")
def fitted() -> tuple[nn.Module, assay.Data, Universal]:
    model, data = assay.load_model("digits-mlp"), assay.load_data("digits", limit=60)
    return model, data, fit_universal(model, data, threat="linf:0.25", epochs=3, batch=20)


def test_fooling_is_counted_against_the_clean_prediction_not_the_label():
    wrong = torch.tensor([1, 1, 1, 0])
    still, moved = move(0.0).measure(Fixed(), (X, wrong)), move(0.3).measure(Fixed(), (X, wrong))
    assert (still.fooling.value, still.clean_accuracy.value, still.accuracy.value) == (0.0, 0.0, 0.0)
    assert (moved.fooling.value, moved.accuracy.value) == (0.5, 0.5)  # two decisions changed, and are right now
    right = move(0.3).measure(Fixed(), (X, 1 - wrong))
    assert (right.fooling.value, right.clean_accuracy.value, right.accuracy.value) == (0.5, 1.0, 0.5)


def test_the_model_gets_inputs_inside_the_bounds_only():
    seen = []

    class Watching(Fixed):
        def forward(self, x):
            seen.append(x)
            return super().forward(x)

    move(0.3).measure(Watching(), (X, torch.zeros(4, dtype=torch.int64)))
    assert torch.cat(seen).max() == 1.0
    assert torch.equal(move(0.3).apply(X)[:, 0], torch.tensor([0.4, 0.6, 0.75, 1.0]))


def test_a_rate_is_a_share_with_its_interval():
    value, low, high = move(0.3).fooling_rate(Fixed(), (X, torch.zeros(4, dtype=torch.int64)))
    assert (value, low, high) == (0.5, *assay.evaluation.stats.wilson(2, 4))


def test_rates_of_a_target():
    zeros, threat, v = torch.zeros(4, dtype=torch.int64), assay.Linf(0.3), torch.tensor([0.3, 0.0])
    rates = measure(Fixed(), (X, zeros), perturbation=v, threat=threat, target=1)
    assert rates.target.value == pytest.approx(2 / 3)  # of the three that were not of class 1 before
    assert Rates.from_dict(json.loads(json.dumps(rates.as_dict()))) == rates
    none = measure(Fixed(), (X[3:], zeros[3:]), perturbation=v, threat=threat, target=1)
    assert none.target is None
    assert Rates.from_dict(none.as_dict()) == none


def test_what_is_saved_is_loaded(fitted, tmp_path):
    model, data, found = fitted
    found = found.with_rates("test", found.measure(model, data))
    found.save(tmp_path / "v.safetensors")
    again = Universal.load(tmp_path / "v.safetensors")
    assert torch.equal(again.perturbation, found.perturbation)
    assert again.threat == found.threat
    assert again.rates == found.rates
    assert again.rates["fit"].fooling == found.fooling_rate(model, data)
    assert isinstance(again.rates["fit"].fooling, Rate)
    assert again.as_dict() == found.as_dict()
    assert again.settings["method"] == "StochasticAscent(epochs=3, batch=20, rel_step=0.5, clip=None)"
    assert again.environment["torch"] == torch.__version__
    assert repr(again) == repr(found)


def test_files_that_are_something_else(fitted, tmp_path):
    _, _, found = fitted
    with pytest.raises(StoreError, match="there is no file"):
        Universal.load(tmp_path / "absent")
    (tmp_path / "text").write_text("text")
    with pytest.raises(StoreError, match="cannot be read"):
        Universal.load(tmp_path / "text")
    save_file({"perturbation": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(StoreError, match="not a universal perturbation"):
        Universal.load(tmp_path / "other")
    Universal(perturbation=torch.full((2,), 0.2), threat=assay.Linf(0.1)).save(tmp_path / "large")
    with pytest.raises(StoreError, match="does not lie in"):
        Universal.load(tmp_path / "large")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        found.save(tmp_path / "file" / "v")


@pytest.mark.parametrize("threat", [assay.Linf(0.2), assay.L2(1.5), assay.Linf(0.2, bounds=(-1, 3))])
def test_a_random_perturbation_has_the_full_size(threat):
    like = torch.zeros(3, 8, 8)
    v = Universal.random(threat, like).perturbation
    size = v.abs().max() if threat.name == "linf" else v.norm()
    assert float(size) == pytest.approx(threat.eps)
    if threat.name == "linf":
        assert v.abs().unique().shape == (1,)
        assert 0.3 < (v > 0).double().mean() < 0.7
    assert not torch.equal(v, Universal.random(threat, like, seed=1).perturbation)


def test_a_fitted_one_beats_a_random_one(fitted):
    model, data, found = fitted
    random = Universal.random(found.threat, found.perturbation)
    assert found.fooling_rate(model, data).low > random.fooling_rate(model, data).high


def test_inputs_of_another_shape(fitted):
    model, _, found = fitted
    with pytest.raises(InputError, match="made for inputs of shape"):
        found.apply(torch.zeros(2, 3))
    with pytest.raises(InputError, match="made for inputs of shape"):
        found.measure(model, (torch.zeros(2, 3), torch.zeros(2).long()))


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 40, 20), (3, 300, 200), (7, 9), (12,)])
def test_pictures(shape, tmp_path):
    x = torch.rand(5, *shape)
    found = Universal(perturbation=0.1 * torch.randn(shape).sign(), threat=assay.Linf(0.1))
    found.picture(tmp_path / "alone.png")
    found.picture(tmp_path / "all.png", Fixed(), (x, torch.zeros(5).long()), examples=3)
    with Image.open(tmp_path / "alone.png") as alone, Image.open(tmp_path / "all.png") as whole:
        assert whole.width > 3 * alone.width
        assert whole.convert("L").getextrema()[0] < 60
    with pytest.raises(InputError, match="no picture"):
        Universal(perturbation=torch.zeros(2, 2, 2, 2), threat=assay.Linf(0.1)).picture(tmp_path / "none.png")
