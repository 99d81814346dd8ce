"""``assay.train``: a network, data and a recipe; a run that can be killed and continued."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import nn

from assay import grammar
from assay.data import adopted
from assay.errors import SettingError
from assay.threats import Threat
from assay.training.augmentation import Augmentation
from assay.training.averaging import Average
from assay.training.display import say
from assay.training.final import Final
from assay.training.optimizers import AdamW, Optimizer
from assay.training.recipes import Recipe
from assay.training.run import Run, Training
from assay.training.schedules import Cyclic, Schedule
from assay.training.settings import Settings
from assay.training.told import beforehand
from assay.training.workers import Workers

T = TypeVar("T")

_HELD_OUT = 1_000  # samples for measuring, at most a tenth of the data


def train(
    model: nn.Module | str,
    data: Any,
    *,
    recipe: Recipe | str,
    threat: Threat | str | None = None,
    epochs: int = 10,
    out: str | os.PathLike[str] | None = None,
    batch: int = 128,
    optimizer: Optimizer | str | None = None,
    schedule: Schedule | str | None = None,
    average: Average | str | None = None,
    augment: Sequence[Augmentation | str] = (),
    label_smoothing: float = 0.0,
    clip: float | None = None,
    precision: str = "32-true",
    channels_last: bool = False,
    compile: bool = False,
    warmup: float = 0.0,
    extra: Any = None,
    extra_share: float = 0.0,
    validation: int | None = None,
    patience: int | None = None,
    guard: float | None = 0.2,
    keep: str = "best",
    limit: int | None = None,
    test: Any = None,
    test_limit: int | None = None,
    suite: str | None = None,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Training:
    """Train a network by a recipe.

    The same settings and seed give the same weights on the same machine, however often the run was killed and resumed.
    Under torchrun the processes share each batch.

    Args:
        model: the network, trained in place; or an expression ("PreActResNet18()"), or what `load_model` loads.
        data: (x, y), a map-style Dataset, or what `load_data` loads.
        recipe: what each step minimises, as an object or as text ("trades").
        threat: for a recipe given as text, and what robust accuracy is measured under. A recipe that defends against
            several threats, this one among them, is measured under all, and evaluated in the end under this one.
        epochs: passes over the data.
        out: folder of the run: settings, metrics, checkpoint, network, report. Nothing is kept when None.
        batch: samples of a step, over all processes.
        optimizer: `SGD`, `AdamW` or `Adam`, as an object or as text; AdamW when None.
        schedule: the learning rate over the run; linear up and down (`Cyclic`) when None.
        average: `EMA` or `SWA` of the weights.
        augment: random changes of each input, in this order: `Crop`, `Flip`, `Cutout`, `Mixup`.
        label_smoothing: share of each target that is spread over all classes.
        clip: largest norm of the gradient.
        precision: "32-true", "bf16-mixed" or "64-true".
        channels_last: store images with their channels last.
        compile: compile the network.
        warmup: epochs over which eps grows to its full size.
        extra: further data, for instance synthetic.
        extra_share: their share of each batch.
        validation: samples held out for measuring; 1,000, but at most a tenth of the data, when None; 0 for none.
        patience: epochs without a better one after which training stops.
        guard: stop when robust accuracy falls by more than this below the best epoch's (catastrophic overfitting),
            where the recipe defends against anything.
        keep: weights of the "best" epoch or of the "last".
        limit: use only the first so many samples.
        test: test data, as `data`: the kept network is evaluated on them in the end, in `out/evaluation`.
        test_limit: use only the first so many of them.
        suite: the attacks of that evaluation ("quick", "standard"); that of `evaluate` when None.
        seed: key of all random draws.
        device: "cpu" or "cuda"; CUDA where there is some when None.
        resume: continue the run in `out`; start it where the folder is new or empty.
        overwrite: replace the run in `out`.
        progress: False for silence.

    Raises:
        AssayError: the named error of whatever cannot be used: network, data, settings or folder.
        TrainingError: the loss became infinite, memory ran out: what was reached is kept in `out`.

    Example:
        >>> import assay, torch
        >>> from assay.training.recipes import PGDAT
        >>> x, y = torch.rand(64, 4), torch.arange(64) % 2
        >>> net = torch.nn.Linear(4, 2)
        >>> done = train(net, (x, y), recipe=PGDAT(threat=assay.Linf(0.1), steps=2), epochs=2, batch=16, progress=False)
        >>> len(done.history), done.model is net
        (2, True)
    """
    samples = adopted(data, limit)
    more = None if extra is None else adopted(extra)
    allowed = grammar.threat(threat) if isinstance(threat, str) else threat
    settings = Settings(
        recipe=grammar.recipe(recipe, allowed) if isinstance(recipe, str) else recipe,
        epochs=epochs,
        batch=batch,
        optimizer=AdamW() if optimizer is None else _part(optimizer, Optimizer),
        schedule=Cyclic() if schedule is None else _part(schedule, Schedule),
        average=None if average is None else _part(average, Average),
        augment=tuple(_part(each, Augmentation) for each in augment),
        label_smoothing=label_smoothing,
        clip=clip,
        precision=precision,
        channels_last=channels_last,
        compile=compile,
        warmup=warmup,
        extra_share=extra_share,
        threat=allowed,
        validation=min(_HELD_OUT, len(samples) // 10) if validation is None else validation,
        patience=patience,
        guard=guard,
        keep=keep,
        seed=seed,
    )
    if settings.generative and test is not None:
        raise SettingError(
            f"{type(settings.recipe).__name__} trains no classifier, and a final evaluation is one of decisions: leave "
            "the test data out."
        )
    last = Final.of(test, test_limit, suite, settings.tested)
    run = Run(model, samples, more, settings, Workers(device, precision))
    if last is not None:
        run.check(last.data)
    if progress and Workers.here() == 0 and settings.generative is None:
        for line in beforehand(run.model, samples, settings.measured, run.workers):
            say(line)
    folder = None if out is None else Path(out)
    found = run.go(folder, resume=resume or Workers.restarted(), overwrite=overwrite, show=progress)
    return found if last is None else last.of_run(found, progress=progress)


def _part(given: T | str, kind: Any) -> T:
    """A part of the settings, read where it is text."""
    return cast("T", grammar.named(given, kind)) if isinstance(given, str) else given
