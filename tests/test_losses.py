"""Losses and goals against values computed by hand."""

from __future__ import annotations

import pytest
import torch

from assay import losses
from assay.errors import InputError, LossError, ModelError
from assay.goals import Targeted, Untargeted

Z = torch.tensor([[3.0, 1.0, 0.0, -2.0], [-1.0, -5.0, -2.0, -8.0]], dtype=torch.float64)
Y, T = torch.tensor([0, 2]), torch.tensor([1, 3])


def test_cross_entropy():
    p = Z.exp() / Z.exp().sum(dim=1, keepdim=True)
    assert torch.allclose(losses.cross_entropy(Z, Untargeted(Y)), -p[[0, 1], Y].log())
    assert torch.allclose(losses.cross_entropy(Z, Targeted(T)), p[[0, 1], T].log())


def test_margin_also_where_all_logits_are_negative():
    assert losses.margin(Z, Untargeted(Y)).tolist() == [-2.0, 1.0]
    assert losses.margin(Z, Targeted(T)).tolist() == [-2.0, -7.0]


def test_dlr():
    assert torch.allclose(losses.dlr(Z, Untargeted(Y)), torch.tensor([-2 / 3, 1 / 4], dtype=torch.float64))
    towards = Targeted(T, away=Y)
    expected = torch.tensor([-2 / (3 - (0 - 2) / 2), -6 / (-1 + (5 + 8) / 2)], dtype=torch.float64)
    assert torch.allclose(losses.dlr(Z, towards), expected)
    unknown = torch.tensor([-2 / 4, -7 / 5.5], dtype=torch.float64)  # away from the largest other logit
    assert torch.allclose(losses.dlr(Z, Targeted(T)), unknown)


@pytest.mark.parametrize("goal", [Untargeted(Y), Targeted(T, away=Y)])
def test_dlr_does_not_change_with_the_scale_of_the_logits(goal):
    assert torch.allclose(losses.dlr(Z, goal), losses.dlr(100 * Z + 7, goal))


@pytest.mark.parametrize("name", ["ce", "margin", "dlr"])
@pytest.mark.parametrize("goal", [Untargeted(Y), Targeted(T)])
def test_losses_rise_towards_the_goal_and_have_gradients(name, goal):
    z = Z.clone().requires_grad_()
    loss = losses.resolve(name)
    assert torch.autograd.gradcheck(lambda v: loss(v, goal), (z,))
    sign = 1 if isinstance(goal, Targeted) else -1
    nearer = Z.scatter_add(1, goal.classes[:, None], torch.full((2, 1), sign * 0.1, dtype=Z.dtype))
    assert bool((loss(nearer, goal) > loss(Z, goal)).all())


def test_too_few_classes_say_so():
    with pytest.raises(LossError, match="at least 3 classes; the model gives 2"):
        losses.dlr(Z[:, :2], Untargeted(torch.tensor([0, 1])))
    with pytest.raises(LossError, match="at least 4 classes; the model gives 3"):
        losses.dlr(Z[:, :3], Targeted(torch.tensor([0, 1])))
    with pytest.raises(LossError, match="at least 2"):
        losses.margin(Z[:, :1], Untargeted(torch.tensor([0, 0])))


def test_unknown_loss_suggests_a_near_name():
    with pytest.raises(LossError, match="Did you mean 'margin'"):
        losses.resolve("margni")
    assert losses.resolve(None) is None
    assert losses.resolve(losses.dlr) is losses.dlr


def test_goals_select_and_judge():
    goal = Targeted(T, away=Y)
    part = goal.at(torch.tensor([1, 1, 0]))
    assert part.classes.tolist() == [3, 3, 1]
    assert part.away.tolist() == [2, 2, 0]
    assert Untargeted(Y).at(torch.tensor([False, True])).classes.tolist() == [2]
    assert Untargeted(Y).reached(Z).tolist() == [False, True]
    assert Targeted(torch.tensor([0, 3])).reached(Z).tolist() == [True, False]


def test_bad_labels_and_outputs_are_refused():
    with pytest.raises(InputError, match="1-D integer"):
        Untargeted(torch.tensor([0.0, 1.0]))
    with pytest.raises(InputError, match="1-D integer"):
        Targeted(torch.zeros(2, 3, dtype=torch.int64))
    with pytest.raises(ModelError, match="logits"):
        Untargeted(Y).reached(torch.rand(2, 3, 4))
    with pytest.raises(ModelError, match="tuple"):
        Untargeted(Y).reached((Z, Z))
