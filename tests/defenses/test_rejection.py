"""Rejected inputs: one output more, a goal that does not count it, losses that hold the detector's term."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

import assay
from assay import losses
from assay.cli.search import joined, search
from assay.data import Data
from assay.defenses import Defense, with_rejection
from assay.goals import Untargeted
from assay.models import Defended, LabelsOnly
from assay.oracle import rejected_output


class FarFromHalf(Defense):
    """Rejects inputs whose mean is too far from a half."""

    rejects = True

    def forward(self, model, x):
        return with_rejection(model(x), 20 * ((x.flatten(1).mean(dim=1) - 0.5).abs() - 0.05))


def affine():
    network = nn.Linear(4, 2, bias=False).double()
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 1.0, 0.2, 0.0], [-1.0, -1.0, 0.9, 0.0]]))
    return network


def test_a_rejected_input_is_lost_or_stopped_as_the_goal_says():
    output = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [1.0, 0.0, 3.0]])
    right = torch.zeros(3, dtype=torch.int64)
    assert Untargeted(right).reached(output).tolist() == [False, True, True]
    assert Untargeted(right, rejected=2).reached(output).tolist() == [False, True, False]
    part = Untargeted(right, rejected=2, confidence=1.5).at(torch.tensor([1, 2]))
    assert (part.rejected, part.reached(output[1:]).tolist()) == (2, [False, False])


def test_losses_hold_the_detector():
    z = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    goal = Untargeted(y, rejected=4)
    p = z.softmax(dim=1)
    both = p.gather(1, y[:, None]).squeeze(1) + p[:, 4]
    assert torch.allclose(losses.cross_entropy(z, goal), -both.log())
    rest = z[:, :4].scatter(1, y[:, None], -torch.inf).amax(dim=1)
    assert torch.allclose(losses.margin(z, goal), rest - torch.maximum(z.gather(1, y[:, None]).squeeze(1), z[:, 4]))
    bare = z[:, :4]  # the model without the detector: nothing stands for rejected inputs there
    assert torch.equal(losses.cross_entropy(bare, goal), F.cross_entropy(bare, y, reduction="none"))
    assert bool((losses.margin(z, goal) > 0).eq(goal.reached(z)).all())


def test_an_attack_that_knows_gets_past_the_detector():
    model = Defended(affine(), FarFromHalf())
    x = torch.tensor([[0.62, 0.52, 0.45, 0.5]], dtype=torch.float64)
    y = torch.tensor([0])
    assert model.rejects
    assert model(x).argmax(1).tolist() == [0]
    attack = assay.attacks.PGD(threat=assay.Linf(0.45), steps=60, rel_step=0.05, random_start=False)
    moved = attack.perturb(model.model, x, y)
    assert model.model(moved).argmax(1).tolist() == [1]
    assert model(moved).argmax(1).tolist() == [2]  # the bare network is fooled, and the detector fires
    unseen = attack(model, x, Untargeted(y, rejected=2))
    assert bool(unseen.success.all())
    assert model(unseen.x_adv).argmax(1).tolist() == [1]


PGD = assay.attacks.PGD(threat=assay.Linf(0.45), steps=60, rel_step=0.05, random_start=False)
IMAGES = torch.tensor([[0.62, 0.52, 0.45, 0.5], [0.9, 0.9, 0.9, 0.9]], dtype=torch.float64)  # the second is rejected
RIGHT = torch.tensor([0, 0])


def test_labels_alone_count_no_rejected_input():
    model = Defended(affine(), FarFromHalf())
    assert model(IMAGES).argmax(1).tolist() == [0, 2]
    assert rejected_output(model, IMAGES) == rejected_output(LabelsOnly(model), IMAGES) == 2
    assert rejected_output(affine(), IMAGES) is None
    small = assay.attacks.FGSM(threat=assay.Linf(0.3))  # which only gets an input rejected
    assert small(model, IMAGES, RIGHT).success.tolist() == [False, False]
    assert small(model, IMAGES, Untargeted(RIGHT)).success.tolist() == [True, True]
    found = PGD(model, IMAGES, RIGHT)
    assert bool((model(found.x_adv[found.success]).argmax(1) == 1).all())
    assert found.success[0]
    assert torch.equal(PGD.perturb(model, IMAGES, RIGHT), PGD.perturb(model, IMAGES, Untargeted(RIGHT, rejected=2)))


def test_a_search_counts_rejected_clean_inputs_as_wrong_and_never_aims_at_being_rejected():
    model, data = Defended(affine(), FarFromHalf()), Data.of((IMAGES, RIGHT))
    found = joined(list(search(model, data, PGD)))
    assert found["correct"].tolist() == [True, False]
    assert found["before"].tolist() == [0, 2]
    assert found["prediction"][found["success"]].eq(1).all()
    last = Data.of((IMAGES, torch.tensor([1, 1])))
    assert joined(list(search(model, last, PGD, goal="next")))["prediction"][0] != 2


def test_labels_of_a_rejecting_model_are_evaluated():
    attack = [("square", assay.attacks.HopSkipJump(threat=assay.Linf(0.3), steps=1))]
    found = assay.evaluate(
        LabelsOnly(Defended(affine(), FarFromHalf())),
        (IMAGES, RIGHT),
        threat="linf:0.3",
        suite=attack,
        progress=False,
    )
    assert found.clean_accuracy == 0.5


def test_a_universal_perturbation_that_gets_inputs_rejected_fools_nothing():
    model, data = Defended(affine(), FarFromHalf()), (IMAGES, RIGHT)
    bright = torch.full((4,), 0.3, dtype=torch.float64)
    found = assay.universal.measure(model, data, perturbation=bright, threat=assay.Linf(0.3))
    assert (found.fooling.value, found.accuracy.value, found.clean_accuracy.value) == (0.0, 0.0, 0.5)
    fitted = assay.fit_universal(model, data, threat=assay.Linf(0.45), epochs=30)
    after = model((IMAGES + fitted.perturbation).clamp(0, 1)).argmax(1)
    assert fitted.fooling_rate(model, data).value == float((after == 1).double().mean())
