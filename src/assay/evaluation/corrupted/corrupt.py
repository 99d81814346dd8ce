"""``assay.corrupt``: the accuracy of a model on corrupted images, in a run directory that can be continued."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from assay.attacks.base import evaluating
from assay.corruptions import Corruption, select
from assay.data import Data
from assay.data.copies import Copies
from assay.errors import SettingError
from assay.evaluation import prepare
from assay.evaluation.chunks import placement
from assay.evaluation.corrupted import results as numbers
from assay.evaluation.corrupted.errors import ALEXNET, Baseline, check_alexnet
from assay.evaluation.corrupted.page import draw, render
from assay.evaluation.corrupted.results import CLEAN_CELL, KIND
from assay.evaluation.corrupted.source import Cell, Computed, Read, Source
from assay.evaluation.corrupted.work import Work, cell_name
from assay.evaluation.ranks import own_device
from assay.evaluation.record import Record
from assay.models.load import load_model, recorded
from assay.threats import Linf

_MOST_VALUES = 1 << 26  # of the images in a part, which come twice: clean and corrupted
_MOST = 1000  # images in a part


@final
@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """What a run over corruptions found.

    Attributes:
        results: all numbers, as in run.json.
        path: the run directory; None where none was asked for.
    """

    results: dict[str, Any]
    path: Path | None

    @property
    def clean_accuracy(self) -> float | None:
        """On clean images; None where there were none."""
        clean = self.results[CLEAN_CELL]
        return None if clean is None else float(clean["value"])

    @property
    def mean_accuracy(self) -> float:
        """The mean over the common corruptions and their severities."""
        return float(self.results["mean_accuracy"])

    def accuracy(self, corruption: str, severity: int | None = None) -> float:
        """Under one corruption, at one severity or in the mean of all.

        Raises:
            SettingError: it was not measured.
        """
        wanted = {kind.slug for kind in select(corruption)}
        own = next((each for each in self.results["corruptions"] if {each["name"]} == wanted), None)
        if own is None or (severity is not None and str(severity) not in own["severities"]):
            raise SettingError(f"{corruption!r} was not measured at severity {severity or 'any'}.")
        return float(own["accuracy"] if severity is None else own["severities"][str(severity)]["value"])

    @property
    def mce(self) -> float | None:
        """The mean corruption error in percent of the baseline's.

        None without a baseline that knows all corruptions, and where not all common ones were measured.
        """
        return self._mean("errors")

    @property
    def relative_mce(self) -> float | None:
        """The same of what corruptions add to the error on clean images."""
        return self._mean("relative")

    def _mean(self, part: str) -> float | None:
        compared = self.results.get("against")
        if not compared or not compared["whole"] or compared[part] is None or compared[part]["mean"] is None:
            return None
        return 100 * float(compared[part]["mean"])

    def table(self) -> str:
        """Accuracy by corruption and severity, and the numbers of the whole run."""
        return numbers.text(self.results)


def corrupt(
    model: Any,
    data: Any = None,
    *,
    copies: str | os.PathLike[str] | None = None,
    corruptions: str | Sequence[str] | None = None,
    severities: Sequence[int] = (1, 2, 3, 4, 5),
    table: str | None = None,
    baseline: str | Baseline | None = None,
    out: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    chunk: int | None = None,
    device: str | torch.device | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
    model_name: str | None = None,
    data_name: str | None = None,
) -> Corrupted:
    """Measure accuracy on corrupted images, by corruption and severity.

    Images are corrupted part by part as they are needed, with draws that depend on the seed and each image's own number
    alone; or copies are read that were corrupted before.

    Args:
        model: a module that takes images in [0, 1] and returns logits, or what `load_model` loads.
        data: the clean images: (x, y), a map-style Dataset, or what `load_data` loads. With copies it may be None.
        copies: a folder in the layout of CIFAR-10-C or ImageNet-C, to be read in place of computing anything.
        corruptions: names or groups, as `assay.corruptions.select` takes them; the common 15 when None, of copies all.
        severities: from 1 to 5.
        table: whose parameters: "imagenet", "cifar", or by the size of the images when None.
        baseline: what errors are divided by for mCE: "alexnet", the folder of another run, or a `Baseline`.
        out: the run directory; nothing is kept when None.
        limit: use only the first so many images.
        seed: key of all draws.
        chunk: images in a part; chosen by their size when None. It has no influence on the result.
        device: where to compute; None takes the model's own device.
        resume: continue the run in `out`; start it where the folder is new or empty.
        overwrite: replace the run in `out`.
        progress: False for silence.
        model_name: what reports call the model.
        data_name: what reports call the data.

    Raises:
        AssayError: the named error of whatever cannot be used.

    References:
        Hendrycks, Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations", ICLR
        2019, https://arxiv.org/abs/1903.12261

    Example:
        >>> x, y = torch.rand(6, 3, 16, 16), torch.tensor([0, 1, 0, 1, 0, 1])
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 2))
        >>> found = corrupt(net, (x, y), corruptions="noise", severities=[1, 5], progress=False)
        >>> 0 <= found.mean_accuracy <= 1, found.mce
        (True, None)
    """
    kinds, wanted = _wanted(corruptions, severities, copies)
    compared = numbers.named_baseline(baseline) if isinstance(baseline, str) else baseline
    if out is None and (resume or overwrite):
        raise SettingError("resume and overwrite speak of a run directory: give out.")
    source = _source(data, data_name, copies, limit, table, seed)
    if compared is ALEXNET:
        table_used = source.own_table if isinstance(source, Computed) else None
        check_alexnet(len(source.classes) if source.classes else None, len(wanted), table_used)
    asked = prepare.device(device, 1)
    named = recorded(model) if isinstance(model, str) else None
    module = load_model(model, device=asked or own_device()) if isinstance(model, str) else model
    place, dtype = placement(module, own_device(), asked)
    settings = {
        "model": model_name or named or type(module).__name__,
        "model_digest": prepare.digest(module),
        "data": source.name,
        "data_digest": source.fingerprint(),
        "copies": None if copies is None else str(copies),
        "classes": None if source.classes is None else list(source.classes),
        "corruptions": [kind.slug for kind in kinds],
        "severities": wanted,
        "table": table,
        "seed": seed,
        "limit": limit,
        "samples": source.samples,
        "chunk": chunk or _fitting(source),
    }
    folder = Path(tempfile.mkdtemp(prefix="assay-")) if out is None else Path(out)
    try:
        record = Record.begin(folder, KIND, settings, prepare.environment(place), resume=resume, overwrite=overwrite)
        work = Work(record=record, source=source, model=module, device=place, dtype=dtype)
        cells: list[Cell] = [(kind, severity) for kind in kinds for severity in wanted]
        with evaluating(module):
            counts = work.all([None, *cells] if source.has_clean else cells, show=progress is not False)
        found = numbers.results(
            {kind.slug: {s: counts[cell_name((kind, s))] for s in wanted} for kind in kinds},
            counts.get(CLEAN_CELL),
            source.samples,
            {kind.slug for kind in kinds if kind.extra},
        )
        if compared is not None:
            found["against"] = numbers.against(found, compared, settings["data_digest"])
        record.save("done", found)
        if out is not None:
            draw(source, kinds, wanted, record.path)
            render(record.path)
    finally:
        if out is None:
            shutil.rmtree(folder, ignore_errors=True)
    return Corrupted(results=found, path=None if out is None else folder)


def _wanted(
    corruptions: str | Sequence[str] | None, severities: Sequence[int], copies: str | os.PathLike[str] | None
) -> tuple[tuple[type[Corruption], ...], list[int]]:
    """The corruptions and severities to measure."""
    wanted = sorted(set(severities))
    if not wanted or any(isinstance(s, bool) or s not in range(1, 6) for s in wanted):
        raise SettingError(f"severities are whole numbers from 1 to 5, at least one; got {list(severities)}.")
    if copies is None:
        return select("common" if corruptions is None else corruptions), wanted
    there = Copies(Path(copies)).slugs
    kinds = select("all" if corruptions is None else corruptions)
    known = tuple(kind for kind in kinds if kind.slug in there)
    missing = [kind.slug for kind in kinds if kind.slug not in there]
    if not known or (corruptions is not None and missing):
        raise SettingError(f"{copies} holds no {', '.join(missing)}; it has {', '.join(there)}.")
    return known, wanted


def _source(
    data: Any,
    name: str | None,
    copies: str | os.PathLike[str] | None,
    limit: int | None,
    table: str | None,
    seed: int,
) -> Source:
    clean: Data | None = None if data is None else prepare.data(data, name, limit, Linf(0.0))
    if copies is not None:
        return Read(copies=Copies(Path(copies)), data=clean, limit=limit)
    if clean is None:
        raise SettingError("there is nothing to corrupt: give data, or copies that were corrupted before.")
    return Computed(data=clean, table=table, seed=seed)


def _fitting(source: Source) -> int:
    """Images in a part, by their size."""
    x, _, _ = (
        source.batch(None, 0, 1, torch.device("cpu")) if source.has_clean else (torch.empty(1, 3 * 224 * 224),) * 3
    )
    return max(1, min(_MOST, _MOST_VALUES // max(1, x.numel())))
