"""Several models as one: the averages, the weights, the access, and how it is written as a MODEL."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import assay
from assay.errors import AccessError, GrammarError, ModelError, SettingError
from assay.models import Ensemble, Function, LabelsOnly, ScoresOnly
from assay.oracle import Access

X = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def members():
    return assay.load_model("fashion-cnn"), assay.load_model("fashion-cnn-pgd")


def test_logits_are_averaged():
    one, two = members()
    with torch.no_grad():
        expected = 0.25 * one(X) + 0.75 * two(X)
        assert torch.allclose(Ensemble(one, two, weights=(1, 3))(X), expected, atol=1e-5)


def test_probabilities_are_averaged():
    one, two = members()
    with torch.no_grad():
        expected = (one(X).softmax(1) + two(X).softmax(1)) / 2
        assert torch.allclose(Ensemble(one, two, combine="probabilities")(X).exp(), expected, atol=1e-6)


def test_gradients_flow_through_all_members():
    one, two = members()
    x = X.clone().requires_grad_()
    (both,) = torch.autograd.grad(Ensemble(one, two)(x).sum(), x)
    (first,) = torch.autograd.grad(one(x).sum(), x)
    (second,) = torch.autograd.grad(two(x).sum(), x)
    assert torch.allclose(both, (first + second) / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "access"),
    [
        ("Ensemble('fashion-cnn', 'fashion-cnn-pgd')", Access.GRADIENTS),
        ("Ensemble('fashion-cnn', ScoresOnly('fashion-cnn-pgd'))", Access.SCORES),
        ("LabelsOnly(Ensemble('fashion-cnn', 'fashion-cnn-pgd'))", Access.LABELS),
        ("LabelsOnly(\"Ensemble('fashion-cnn', 'fashion-cnn-pgd')\")", Access.LABELS),
        ("Ensemble('fashion-cnn', Ensemble('fashion-cnn', 'fashion-cnn-pgd'))", Access.GRADIENTS),
    ],
)
def test_it_is_written_as_a_model(spec, access):
    model = assay.load_model(spec)
    one, two = members()
    assert model.access is access
    assert not any(part.training for part in model.modules())
    with torch.no_grad():
        share = 0.75 if spec.count("Ensemble") == 2 else 0.5
        expected = share * one(X) + (1 - share) * two(X)
        found = model(X)
    assert torch.allclose(found, expected, atol=1e-5) if access > 1 else torch.equal(found, expected.argmax(1))


def test_settings_are_read():
    model = assay.load_model("Ensemble('fashion-cnn', 'fashion-cnn-pgd', combine='probabilities', weights=(1, 3))")
    assert model.combine == "probabilities"
    assert model.weights.tolist() == [0.25, 0.75]


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (Ensemble, SettingError, "needs members"),
        (lambda: Ensemble(nn.Identity(), combine="loss"), SettingError, "'logits' or 'probabilities'"),
        (lambda: Ensemble(nn.Identity(), weights=(1, 2)), SettingError, "1 positive numbers"),
        (lambda: Ensemble(nn.Identity(), weights=(0,)), SettingError, "positive"),
        (lambda: Ensemble("fashion-cnn"), SettingError, "a str"),
        (lambda: Ensemble(LabelsOnly(nn.Identity())), AccessError, "labels only"),
        (lambda: Ensemble(nn.Linear(4, 2), nn.Linear(4, 3))(torch.zeros(1, 4)), ModelError, "of one shape"),
        (lambda: assay.load_model("Ensemble(3)"), GrammarError, "a MODEL in quotes"),
        (lambda: assay.load_model("Ensemble('digits-mlp', mean=1)"), GrammarError, "combine and weights"),
        (lambda: assay.load_model("Ensemble('digits-mlq')"), ModelError, "Did you mean 'digits-mlp'"),
    ],
)
def test_mistakes_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_members_without_gradients_grant_scores():
    model = Ensemble(ScoresOnly(nn.Identity()), Function(lambda x: x, takes="torch"))
    assert model.access is Access.SCORES
    assert model(torch.tensor([[1.0, 2.0]])).tolist() == [[1.0, 2.0]]
