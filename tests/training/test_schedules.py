"""Schedules: their values at places where they are known, and torch's own schedulers step by step."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

from assay import grammar, registry
from assay.errors import SettingError
from assay.training.schedules import Constant, Cosine, Cyclic, Piecewise, Schedule

STEPS = 40


def of_torch(build):
    """The factors that a scheduler of torch gives for each of 40 steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build(optimizer)
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("schedule", "build"),
    [
        (Constant(), lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        (
            Cyclic(peak=0.5),
            lambda o: lr_scheduler.CyclicLR(o, 0.0, 1.0, STEPS // 2, STEPS // 2, cycle_momentum=False),
        ),
        (Cyclic(), lambda o: lr_scheduler.CyclicLR(o, 0.0, 1.0, 16, 24, cycle_momentum=False)),
        (Piecewise(), lambda o: lr_scheduler.MultiStepLR(o, [20, 30], gamma=0.1)),
        (Piecewise(milestones=(0.1, 0.2, 0.9), factor=0.5), lambda o: lr_scheduler.MultiStepLR(o, [4, 8, 36], 0.5)),
        (Cosine(), lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)),
    ],
)
def test_as_torch_does_it_step_by_step(schedule, build):
    ours = [schedule.at(step / STEPS) for step in range(STEPS)]
    assert ours == pytest.approx(of_torch(build), abs=1e-6)


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (Constant(warmup=0.2), {0: 0, 0.1: 0.5, 0.2: 1, 0.7: 1, 1: 1}),
        (Cosine(warmup=0.5), {0: 0, 0.25: 0.5, 0.5: 1, 0.75: 0.5, 1: 0}),
        (Cyclic(), {0: 0, 0.2: 0.5, 0.4: 1, 0.7: 0.5, 1: 0}),
        (Piecewise(), {0: 1, 0.4999: 1, 0.5: 0.1, 0.75: 0.01, 1: 0.01}),
    ],
)
def test_values_that_are_known(schedule, values):
    assert {progress: schedule.at(progress) for progress in values} == pytest.approx(values, abs=1e-12)


@pytest.mark.parametrize("name", registry.names("schedule"))
def test_factors_lie_between_0_and_1_and_the_peak_is_reached(name):
    schedule = grammar.named(name, Schedule)
    factors = [schedule.at(step / 1000) for step in range(1001)]
    assert min(factors) >= 0
    assert max(factors) == 1
    assert grammar.named(repr(schedule), Schedule) == schedule


def test_every_schedule_is_registered():
    assert {each.__name__ for each in Schedule.__subclasses__()} == set(registry.names("schedule"))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Constant(warmup=1.0), r"warmup of Constant must be a number in \[0, 1\); got 1.0"),
        (lambda: Cosine(warmup=-0.1), "warmup of Cosine"),
        (lambda: Cyclic(peak=0.0), r"peak of Cyclic must be a number in \(0, 1\)"),
        (lambda: Cyclic(peak=1.0), "peak of Cyclic"),
        (lambda: Piecewise(milestones=(0.75, 0.5)), "ascending shares"),
        (lambda: Piecewise(milestones=(0.5, 0.5)), "ascending shares"),
        (lambda: Piecewise(milestones=(100, 150)), "ascending shares"),
        (lambda: Piecewise(milestones=0.5), "ascending shares"),
        (lambda: Piecewise(factor=0.0), r"factor of Piecewise must be a number in \(0, 1\]"),
    ],
)
def test_settings_out_of_range(build, words):
    with pytest.raises(SettingError, match=words):
        build()
