"""Defensive distillation against its formula, and how the teacher comes about."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional as F

import assay
from assay.errors import SettingError
from assay.training.recipes import CURE, Distillation, Standard


def test_the_teacher_is_trained_first_at_the_same_temperature(net, batch, agree):
    first = Distillation(temperature=7.0).first()
    assert first == Standard(temperature=7.0)
    b = batch(label_smoothing=0.1)
    agree(first, net(), b, {}, lambda model: F.cross_entropy(model(b.x) / 7, b.y, label_smoothing=0.1))


def test_standard_training_is_at_temperature_one(net, batch, agree):
    b = batch()
    agree(Standard(), net(), b, {}, lambda model: -model(b.x).log_softmax(1)[range(6), b.y].mean())


def test_loss_and_gradient_are_the_formula_s(net, batch, agree):
    b, teacher = batch(), net(seed=1)
    taught = Distillation(temperature=7.0).with_teacher(teacher)
    views = taught.prepare(net(), b)
    p = (copy.deepcopy(teacher).eval()(b.x) / 7).exp()
    p = (p / p.sum(1, keepdim=True)).detach()
    agree(taught, net(), b, views, lambda model: -(p * (model(b.x) / 7).log_softmax(1)).sum() / len(b.x))


def test_the_teacher_answers_in_eval_mode_and_stays_as_it_is(net, batch):
    teacher = net(seed=1)
    teacher.norm.eval()
    before = copy.deepcopy(teacher.state_dict())
    answers = Distillation().with_teacher(teacher).prepare(net(), batch())["answers"]
    assert not answers.requires_grad
    torch.testing.assert_close(answers.sum(1), torch.ones(6).double())
    assert teacher.training
    assert not teacher.norm.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())


def test_a_student_that_equals_its_teacher_has_nothing_to_learn(net, batch):
    model = net().eval()
    taught = Distillation(temperature=3.0).with_teacher(copy.deepcopy(model))
    loss = taught.loss(model, batch(), taught.prepare(model, batch()))
    grads = torch.autograd.grad(loss, list(model.parameters()))
    assert max(float(grad.abs().max()) for grad in grads) < 1e-12


def test_a_teacher_may_be_named_or_handed_over(net):
    named = assay.grammar.recipe("distillation", "linf:0.1", ["teacher='digits-mlp'", "temperature=20"])
    assert (named.teacher, named.first()) == ("digits-mlp", None)
    plain = Distillation(temperature=20)
    taught = plain.with_teacher(net())
    assert taught.first() is None
    assert plain.first() is not None
    assert repr(taught) == repr(plain)
    assert taught == plain


def test_without_its_teacher_it_cannot_start(net, batch):
    with pytest.raises(SettingError, match="with_teacher"):
        Distillation().prepare(net(), batch())


def test_other_recipes_have_no_teacher(net):
    for other in (Standard(), CURE(threat=assay.Linf(0.1))):
        assert (other.teacher, other.first()) == (None, None)
        assert other.with_teacher(net()) is other


@pytest.mark.parametrize("kind", [Distillation, Standard])
def test_what_cannot_be_used_is_refused(kind):
    with pytest.raises(SettingError, match="temperature"):
        kind(temperature=0.0)
