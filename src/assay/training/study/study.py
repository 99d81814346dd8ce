"""``assay.study``: the trade-off between clean accuracy, robust accuracy and the number of samples, as one call."""

from __future__ import annotations

import inspect
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from assay import grammar
from assay.attacks import PGD
from assay.data import Data, adopted
from assay.data.parts import part, shuffled, split
from assay.errors import SettingError
from assay.rng import derive
from assay.threats import Threat
from assay.training.display import say
from assay.training.final import Final
from assay.training.folder import RUN
from assay.training.study.page import render
from assay.training.study.plan import Plan, Point, shares
from assay.training.study.record import Record, Row, row
from assay.training.train import train
from assay.training.workers import Workers

_STEPS = 20  # of the PGD that measures
_TEST_SHARE = 5  # one of so many samples is for testing where no test data are given
_OWN = {"recipe", "threat", "epochs", "out", "limit", "validation", "keep", "guard", "patience", "test", "resume"}


@final
@dataclass(frozen=True, kw_only=True)
class Study:
    """What a study gave.

    Attributes:
        rows: one per network: recipe, training eps, samples, accuracies with their intervals, errors.
        path: the folder: `study.json`, `study.csv`, `study.svg`, `report.html`, and one training run per network.
    """

    rows: list[Row]
    path: Path


def study(
    model: str,
    data: Any,
    *,
    threat: Threat | str,
    out: str | os.PathLike[str],
    recipes: Sequence[str] = ("standard", "pgdat", "trades"),
    eps: Sequence[float] | None = None,
    samples: Sequence[int | str] | None = None,
    epochs: int = 10,
    test: Any = None,
    test_limit: int | None = None,
    suite: str | None = None,
    limit: int | None = None,
    batch: int = 128,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    **training: Any,
) -> Study:
    """Train a network by several recipes, over training eps and over numbers of samples, and measure all on test data.

    Every network takes the same number of steps, whatever the number of its samples, so that those with few are not
    merely trained less. The weights of the last step count, and nothing is held out. Subsets are drawn at random, each
    inside the larger ones.

    Args:
        model: an expression of a network ("PreActResNet18()"), or a MODEL whose training goes on.
        data: (x, y), a map-style Dataset, or what `load_data` loads.
        threat: what robust accuracy is measured under, with its budget; as an object or as text.
        out: folder of the study.
        recipes: their texts ("trades", "TRADES(beta=3)").
        eps: budgets of the training, 0 for standard training; 0, half and all of the threat's when None.
        samples: numbers of training samples, or "all"; a sixteenth, a quarter and all of them when None.
        epochs: passes over all samples; smaller sets are gone through more often.
        test: test data; a fifth of the data when None, which is not trained on.
        test_limit: use only the first so many of them.
        suite: the attacks that measure robust accuracy ("quick", "standard"); PGD of 20 steps when None.
        limit: use only the first so many samples.
        batch: samples of a step; sets that are smaller are taken whole.
        seed: key of all random draws.
        device: "cpu" or "cuda"; CUDA where there is some when None.
        resume: continue the study in `out`; start it where the folder is new or empty.
        overwrite: replace the study in `out`.
        progress: False for silence.
        training: further settings of `assay.train`: optimizer, schedule, average, augment, precision, ...

    Raises:
        AssayError: the named error of whatever cannot be used.

    Example:
        >>> import tempfile, torch
        >>> x, y = torch.rand(60, 1, 8, 8), torch.arange(60) % 10
        >>> found = study("DigitsMLP()", (x, y), threat="linf:0.1", out=tempfile.mkdtemp(), recipes=["fgsmat"],
        ...               eps=[0, 0.1], samples=[12, "all"], epochs=1, batch=16, progress=False)
        >>> [(row["recipe"], row["eps"], row["samples"]) for row in found.rows]
        [('standard', 0.0, 48), ('fgsmat', 0.1, 48), ('fgsmat', 0.1, 12)]
    """
    _check(model, training)
    known = adopted(data, limit)
    allowed = grammar.threat(threat) if isinstance(threat, str) else threat
    if test is None:
        known, held = split(known, len(known) - len(known) // _TEST_SHARE, seed=derive(seed, "test"))
    else:
        held = adopted(test)
    budget = allowed.eps if isinstance(allowed.eps, float) else 0.0
    plan = Plan(
        threat=allowed,
        recipes=tuple(recipes),
        eps=tuple(map(float, (0, budget / 2, budget) if eps is None else eps)),
        samples=shares(samples, len(known)),
        all=len(known),
    )
    attacks = [(f"pgd-{_STEPS}", PGD(threat=allowed, steps=_STEPS))] if suite is None else suite
    final = Final(data=held.take(test_limit), threat=allowed, suite=attacks)
    settings = {
        "model": model, "data": known.name, "data_digest": known.fingerprint(),
        "train_samples": len(known), "samples": list(plan.samples),
        "test": held.name, "test_digest": final.data.fingerprint(), "test_samples": len(final.data),
        "threat": repr(allowed), "recipes": list(recipes), "eps": list(plan.eps), "epochs": epochs, "batch": batch,
        "measured_by": f"pgd-{_STEPS}" if suite is None else suite, "seed": seed,
        "training": {name: str(value) for name, value in training.items() if value},
    }  # fmt: skip
    record = Record.begin(Path(out), settings, resume=resume, overwrite=overwrite)
    whole = {"batch": batch, "seed": seed, "device": device, **training}
    _Runner(
        model=model,
        data=known,
        plan=plan,
        final=final,
        record=record,
        epochs=epochs,
        training=whole,
        overwrite=overwrite,
        show=progress,
    ).all()
    return Study(rows=record.rows, path=record.path)


def _check(model: Any, training: dict[str, Any]) -> None:
    if not isinstance(model, str):
        raise SettingError("a study builds many networks alike: give the network as text, such as 'SmallCNN()'.")
    offered = set(inspect.signature(train).parameters) - _OWN - {"model", "data"}
    unknown = sorted(set(training) - offered)
    if unknown:
        taken = ", ".join(sorted(offered))
        raise SettingError(f"a study does not take {', '.join(unknown)}; further settings are {taken}.")
    if Workers.expected() > 1:
        raise SettingError("a study runs in one process: start it without torchrun.")


@final
@dataclass(frozen=True, kw_only=True)
class _Runner:
    """Trains and measures the networks of a plan that are not in the record yet."""

    model: str
    data: Data
    plan: Plan
    final: Final
    record: Record
    epochs: int
    training: dict[str, Any]
    overwrite: bool
    show: bool

    def all(self) -> None:
        """Go through the plan; files and page are up to date after each network."""
        done = {each["folder"] for each in self.record.rows}
        left = [point for point in self.plan.points if point.folder not in done]
        began = time.monotonic()
        for number, point in enumerate(left, start=1):
            found = self._one(point)
            self.record.add(found)
            render(self.record.path)
            if self.show:
                rest = (time.monotonic() - began) / number * (len(left) - number)
                say(
                    f"{len(self.record.rows)}/{len(self.plan.points)}  {point.recipe}, eps {point.eps:g}, "
                    f"{point.samples} samples: {found['clean_accuracy']:.1%} clean, {found['robust_accuracy']:.1%} "
                    f"robust; about {rest:.0f} s left"
                )
        render(self.record.path)

    def _used(self, count: int) -> int:
        """How many of so many samples an epoch sees: what does not fill its last batch is left out."""
        batch = min(int(self.training["batch"]), count)
        own: int = max(1, batch - round(batch * self.training.get("extra_share", 0.0)))
        return count // own * own

    def _one(self, point: Point) -> Row:
        path = self.record.path / point.folder
        epochs = max(1, round(self.epochs * self._used(len(self.data)) / self._used(point.samples)))
        samples = self.data
        if point.samples < len(self.data):
            name = f"{self.data.name}, {point.samples} drawn at random"
            order = shuffled(len(self.data), derive(self.training["seed"], "subsets"))
            samples = replace(part(self.data, order[: point.samples]), name=name)
        settings = {**self.training, "batch": min(self.training["batch"], point.samples)}
        # What an interrupted study left is continued; where one is replaced, so are its runs.
        again = not (self.overwrite and (path / RUN).exists())
        found = train(
            self.model,
            samples,
            recipe=point.built(self.plan.threat),
            threat=self.plan.threat.with_eps(point.eps) if point.eps else self.plan.threat,
            epochs=epochs,
            out=path,
            validation=0,
            keep="last",
            guard=None,
            resume=again,
            overwrite=not again,
            progress=False,
            **settings,
        )
        self.final.of_run(found, progress=False)
        results = json.loads((path / RUN).read_text(encoding="utf-8"))["results"]["evaluation"]
        return row(point.recipe, point.eps, point.samples, epochs, point.folder, results)
