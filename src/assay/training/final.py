"""The evaluation that ends a run: the kept network on test data, under a suite of attacks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from assay.attacks import Attack
from assay.data import Data, adopted
from assay.errors import SettingError
from assay.evaluation.evaluate import evaluate
from assay.evaluation.suites import load_suite
from assay.evaluation.summary import Evaluation
from assay.files import write_atomically
from assay.models import saved
from assay.threats import Threat
from assay.training.folder import EVALUATION, Folder
from assay.training.report import render
from assay.training.run import Training
from assay.training.workers import Workers


@final
@dataclass(frozen=True, kw_only=True)
class Final:
    """What the kept network is asked, checked before training begins.

    Args:
        data: the test data.
        threat: what the attacks may do.
        suite: the attacks: a name, a .toml file, or (name, attack) each; the one that suits the threat when None.

    Raises:
        AssayError: there is no such suite, or it does not suit the threat.
    """

    data: Data
    threat: Threat
    suite: str | Sequence[tuple[str, Attack]] | None = None

    def __post_init__(self) -> None:
        if self.suite is not None:
            load_suite(self.suite, self.threat)

    @classmethod
    def of(cls, test: Any, limit: int | None, suite: str | None, threat: Threat | None) -> Final | None:
        """The evaluation that was asked for; None where there is no test data.

        Args:
            test: (x, y), a map-style Dataset, or what `load_data` loads.
            limit: use only the first so many samples.
            suite: the attacks.
            threat: that of the training.

        Raises:
            SettingError: a suite or a limit without test data, or test data without a threat.
        """
        if test is None:
            if suite is not None or limit is not None:
                raise SettingError("suite and test_limit belong to a final evaluation: give test data (--test DATA).")
            return None
        if threat is None:
            raise SettingError("the final evaluation needs a threat: give threat (--threat linf:0.1).")
        samples = adopted(test, limit)
        return cls(data=samples, threat=threat, suite=suite)

    def of_run(self, found: Training, *, progress: bool) -> Training:
        """The run with its evaluation, which also goes into its folder, its card and its report.

        Args:
            found: the run; under torchrun all processes share the evaluation where it has a folder. One that was begun
                there goes on.
            progress: False for silence.

        Raises:
            AssayError: that of `evaluate`.
        """
        first = Workers.here() == 0
        if found.path is None and not first:
            return found
        evaluation = evaluate(
            found.model,
            self.data,
            threat=self.threat,
            suite=self.suite,
            out=None if found.path is None else found.path / EVALUATION,
            resume=found.path is not None,  # one that was replaced is gone, with the run that it was of
            progress=progress,
            model_name=None if found.path is None else str(found.path),
        )
        if found.path is not None and first:
            _note(found.path, evaluation)
        return replace(found, evaluation=evaluation)


def _note(path: Path, evaluation: Evaluation) -> None:
    """Write the numbers of an evaluation into `train.json`, the card and the report of its run."""
    settings, results = evaluation.store.run["settings"], evaluation.results
    numbers = {
        "data": settings["data"],
        "data_digest": settings["data_digest"],
        "threat": settings["threat"],
        "suite": settings["suite"]["name"],
        "suite_version": settings["suite"]["version"],
        "samples": results["samples"],
        "clean_accuracy": results["clean_accuracy"],
        "robust_accuracy": results["robust_accuracy"],
        "flags": [flag["code"] for flag in results["flags"]],
        "report": f"{EVALUATION}/report.html",
    }
    folder = Folder.open(path)
    folder.save(results=folder.run["results"] | {"evaluation": numbers})
    card = saved.card(path) | {"evaluation": numbers}
    write_atomically(path / saved.CARD, (json.dumps(card, indent=1) + "\n").encode())
    render(path)
