"""What people are told of a run that is worthless before it begins, or that learns nothing."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn

import assay
from assay.data import Data
from assay.training.recipes import PGDAT
from assay.training.told import beforehand, stuck
from assay.training.workers import Workers

FAR = assay.Linf(8.0)


class Ending(nn.Module):
    """A network of 3 classes with something at its end."""

    def __init__(self, last):
        super().__init__()
        self.body, self.last = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(16, 3)), last

    def forward(self, x):
        return self.last(self.body(x))


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (nn.Softmax(dim=1), ["warning: the outputs are probabilities", "drop the final softmax"]),
        (nn.LogSoftmax(dim=1), ["info: the outputs are the logarithms of probabilities", "such as ALP"]),
        (nn.Sigmoid(), []),
        (nn.LogSigmoid(), []),
        (nn.Identity(), []),
    ],
)
def test_what_stands_at_the_end_of_a_network_is_told_before_training(last, says, samples, quick, capsys):
    model = Ending(last)
    flags = [module.training for module in model.modules()]
    lines = beforehand(model, Data.of(samples()), (), Workers("cpu"))
    assert len(lines) == bool(says)
    assert all(part in lines[0] for part in says)
    assert [module.training for module in model.modules()] == flags
    quick(model, samples(), epochs=1, progress=True)
    said = " ".join(capsys.readouterr().err.split())
    assert all(part in said for part in says)
    assert ("the outputs are" in said) is bool(says)
    assert not says or said.index(says[0]) < said.index("epoch loss")


def test_each_threat_is_looked_at(samples, linear):
    lines = beforehand(linear(), Data.of(samples()), (assay.Linf(0.1), FAR), Workers("cpu"))
    assert [line.partition(" ")[0] for line in lines] == ["warning:", "robust"]
    assert "eps 8" in lines[0]
    assert lines[1].endswith("within all of Linf(0.1), Linf(8.0).")


def rows(*clean, losses=None):
    losses = [1 / (1 + place) for place in range(len(clean))] if losses is None else losses
    return [{"clean": each, "loss": loss} for each, loss in zip(clean, losses, strict=True)]


HELD = Data(torch.zeros(100, 1), torch.tensor([0] * 60 + [1] * 40))


@pytest.mark.parametrize(
    ("history", "epochs", "held", "says"),
    [
        (rows(0.4, 0.6), 9, HELD, r"warning: clean accuracy is 60.0% after 2 epochs, .* the same class gives 60.0%"),
        (rows(0.6), 1, HELD, "after 1 epoch,"),
        (rows(0.6), 9, HELD, ""),  # too early
        (rows(0.6, 0.6, 0.6), 9, HELD, ""),  # told before
        (rows(0.6, 0.61), 9, HELD, ""),
        (rows(0.75, 0.6), 9, HELD, ""),
        (rows(0.9, 0.9, losses=[2.0, 2.001]), 9, HELD, "the loss is still 2.0010 after 2 epochs"),
        (rows(0.9, 0.9, losses=[2.0, 2.01]), 9, HELD, ""),
        (rows(None, None, losses=[math.log(10), math.log(10)]), 9, None, "the loss is still 2.3026"),
        (rows(None, None, losses=[2.3, 2.2]), 9, None, ""),
        (rows(None, losses=[2.3]), 1, None, ""),
    ],
)
def test_a_network_that_learns_nothing_is_told_once(history, epochs, held, says):
    found = stuck(history, epochs, held, 2)
    assert bool(found) is bool(says)
    if says:
        assert re.search(says, found)
        assert all(cure in found for cure in ("learning rate", "unit of eps", "normalises", "--warmup"))


def test_labels_that_are_not_in_memory_are_taken_as_even():
    class Lazy(torch.utils.data.Dataset):
        def __len__(self):
            return 100

        def __getitem__(self, place):
            return torch.zeros(1), 0

    held = Data.of(Lazy())
    assert "gives 50.0%" in stuck(rows(0.5, 0.5), 9, held, 2)
    assert stuck(rows(0.5, 0.51), 9, held, 2) == ""


@pytest.mark.parametrize(("lr", "told"), [("1e-9", True), ("0.5", False)])
def test_a_run_at_chance_says_so_and_one_that_learns_does_not(lr, told, samples, linear, quick, capsys):
    settings = {"recipe": PGDAT(threat=assay.Linf(0.02), steps=1), "validation": 24, "epochs": 3, "progress": True}
    quick(linear(), samples(), optimizer=f"SGD(lr={lr}, momentum=0.9)", **settings)
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("learning rate") == told
    if told:
        assert said.index("2/3") < said.index("learning rate") < said.index("3/3")
