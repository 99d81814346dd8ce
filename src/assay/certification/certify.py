"""``assay.certify``: certified accuracy of a smoothed classifier over a data set."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from assay.attacks.base import evaluating
from assay.certification.monte_carlo import ABSTAINED, Smoothing
from assay.certification.page import KIND, render
from assay.evaluation.merge import share
from assay.evaluation.parts import Asked, Columns, Step
from assay.evaluation.prepare import environment
from assay.evaluation.record import Record

_STEPS = 8  # radii in the table: multiples of half of sigma


@final
@dataclass(frozen=True, kw_only=True)
class Certification:
    """What was proven.

    Attributes:
        results: accuracy, abstentions and certified accuracy by radius, as `run.json` holds them.
        index: the samples' own numbers.
        label: their labels.
        prediction: of the smoothed classifier; -1 where it abstains.
        radius: certified, in L2.
        path: the folder; None where nothing was kept.
    """

    results: dict[str, Any]
    index: Tensor
    label: Tensor
    prediction: Tensor
    radius: Tensor
    path: Path | None

    def accuracy_at(self, radius: float) -> float:
        """Share of the samples whose class is right and certified for every change of at most this length in L2."""
        return float(((self.prediction == self.label) & (self.radius >= radius)).double().mean())


def certify(
    model: Any,
    data: Any,
    *,
    sigma: float = 0.25,
    draws: int = 10_000,
    selection: int = 100,
    alpha: float = 0.001,
    out: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    batch: int = 32,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    step: Step | None = None,
) -> Certification:
    """Smooth a classifier with Gaussian noise and certify its decisions: radii within which none can change.

    The network should have been trained with the same noise. An abstention counts as an error.

    Args:
        model: the network inside, a module, or what `load_model` loads.
        data: (x, y), a map-style Dataset, or what `load_data` loads.
        sigma: standard deviation of the noise, in the unit of the inputs.
        draws: noisy copies of each sample that its bound is computed from.
        selection: others that choose its class.
        alpha: chance that the certificate of a sample is wrong.
        out: folder of the run; nothing is kept when None.
        limit: use only the first so many samples.
        batch: samples of a part, which is never computed again; the results do not depend on it.
        seed: key of all draws.
        device: "cpu" or "cuda"; where the model is, or CUDA where there is some, when None.
        resume: continue the run in `out`; start it where the folder is new or empty.
        overwrite: replace the run in `out`.
        step: called after each part with samples done, all samples, and the results so far.

    Raises:
        AssayError: the named error of whatever cannot be used.

    Example:
        >>> found = certify("digits-mlp", "digits", sigma=0.1, draws=200, limit=20)
        >>> found.accuracy_at(0.05) <= found.accuracy_at(0)
        True
    """
    asked = Asked.about(model, data, limit=limit, batch=batch, device=device)
    smoothing = Smoothing(sigma=sigma, draws=draws, selection=selection, alpha=alpha)
    settings = asked.settings | asdict(smoothing) | {"seed": seed}
    record = None
    if out is not None:
        record = Record.begin(Path(out), KIND, settings, environment(asked.device), resume=resume, overwrite=overwrite)

    def part(start: int, stop: int) -> Columns:
        x, y, index = asked.data.batch(start, stop)
        found = smoothing.certificates(asked.model, x.to(asked.device, asked.dtype or x.dtype), index, seed=seed)
        return {"index": index, "label": y, **vars(found)}

    with evaluating(asked.model):
        parts, results = asked.in_parts(part, lambda parts: summary(_joined(parts), sigma), record, step)
    if record:
        render(record.path)
    columns = _joined(parts)
    kept = {name: columns[name] for name in ("index", "label", "prediction", "radius")}
    return Certification(results=results, path=record.path if record else None, **kept)


def _joined(parts: list[Columns]) -> Columns:
    return {name: torch.cat([each[name] for each in parts]) for name in parts[0]}


def summary(columns: Columns, sigma: float) -> dict[str, Any]:
    """The numbers of a run: accuracy, abstentions, and certified accuracy at multiples of half of sigma."""
    right = columns["prediction"] == columns["label"]
    radii = [number * sigma / 2 for number in range(_STEPS + 1)]
    return {
        "samples": len(right),
        "accuracy": share(right),
        "abstained": share(columns["prediction"] == ABSTAINED),
        "certified": [{"radius": radius, **share(right & (columns["radius"] >= radius))} for radius in radii],
        "mean_radius": float(torch.where(right, columns["radius"], 0).mean()),
    }
