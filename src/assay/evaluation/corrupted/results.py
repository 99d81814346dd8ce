"""The numbers of a run over corruptions, and the table for people who read text."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from assay.corruptions import select
from assay.errors import StoreError
from assay.evaluation.corrupted.errors import (
    ALEXNET,
    Baseline,
    Cells,
    corruption_error,
    mean_corruption_error,
)
from assay.evaluation.record import Record, RunKind
from assay.evaluation.stats import wilson

KIND = RunKind("corruptions", 1, "assay corrupt")
CLEAN_CELL = "clean"


def share(correct: int, samples: int) -> dict[str, Any]:
    """A measured share with its interval."""
    low, high = wilson(correct, samples)
    return {"value": correct / samples, "low": low, "high": high, "correct": correct, "samples": samples}


def results(counts: dict[str, dict[int, int]], clean: int | None, samples: int, extra: set[str]) -> dict[str, Any]:
    """What a run found.

    Args:
        counts: images that are classified rightly, by corruption and severity.
        clean: of the clean ones; None where there were none.
        samples: images of each cell.
        extra: corruptions that means leave out, unless there are no others.
    """
    corruptions: list[dict[str, Any]] = [
        {
            "name": slug,
            "extra": slug in extra,
            "severities": {str(severity): share(correct, samples) for severity, correct in own.items()},
            "accuracy": sum(own.values()) / (samples * len(own)),
        }
        for slug, own in counts.items()
    ]
    counted = [each for each in corruptions if not each["extra"]] or corruptions
    return {
        "samples": samples,
        CLEAN_CELL: None if clean is None else share(clean, samples),
        "corruptions": corruptions,
        "mean_accuracy": sum(each["accuracy"] for each in counted) / len(counted),
    }


def cells_of(found: dict[str, Any]) -> Cells:
    """The error of every corruption and severity."""
    return {
        (each["name"], int(severity)): 1 - own["value"]
        for each in found["corruptions"]
        for severity, own in each["severities"].items()
    }


def clean_error(found: dict[str, Any]) -> float | None:
    """The error on clean images, where it is known."""
    return None if found[CLEAN_CELL] is None else 1 - found[CLEAN_CELL]["value"]


def baseline_of(record: Record) -> Baseline:
    """The errors of a finished run, for others to be measured against."""
    found = record.run["results"]
    told = record.run["settings"]
    return Baseline(
        name=str(told["model"]),
        clean=clean_error(found),
        cells=cells_of(found),
        data=told["data"],
        digest=told["data_digest"],
    )


def against(found: dict[str, Any], baseline: Baseline, digest: Any) -> dict[str, Any]:
    """Corruption errors, in parts of those of the baseline; their mean is mCE where the common ones are whole.

    Args:
        found: results without a baseline.
        baseline: the errors to divide by.
        digest: of the images of these results; "other_images" names the baseline's where they are others.
    """
    cells, clean = cells_of(found), clean_error(found)
    slugs = [each["name"] for each in found["corruptions"] if not each["extra"]]
    whole = set(slugs) == {kind.slug for kind in select("common")}

    def errors(off: float | None) -> dict[str, Any]:
        return {
            "corruptions": {
                each["name"]: corruption_error(cells, baseline, each["name"], clean=off)
                for each in found["corruptions"]
            },
            "mean": mean_corruption_error(cells, baseline, slugs, clean=off) if slugs else None,
        }

    return {
        "baseline": baseline.name,
        "other_images": None if baseline.digest in (None, digest) else baseline.data,
        "whole": whole,
        "errors": errors(None),
        "relative": None if clean is None else errors(clean),
    }


def text(found: dict[str, Any]) -> str:
    """The table by corruption and severity, and the numbers of the whole run."""
    severities = list(found["corruptions"][0]["severities"])
    compared = found.get("against")
    grid = Table(box=None, pad_edge=False)
    grid.add_column("corruption", no_wrap=True)
    for heading in (*severities, "mean", *(("error", "relative") if compared else ())):
        grid.add_column(heading, justify="right", no_wrap=True)
    for each in found["corruptions"]:
        cells = [f"{each['severities'][severity]['value']:.1%}" for severity in severities]
        ratios = [_ratio(compared, part, each["name"]) for part in ("errors", "relative")] if compared else []
        name = f"{each['name']} (extra)" if each["extra"] else each["name"]
        grid.add_row(name, *cells, f"{each['accuracy']:.1%}", *ratios)
    console = Console(file=io.StringIO(), width=120, color_system=None)
    console.print(grid)
    clean = found[CLEAN_CELL]
    if clean is not None:
        console.print(
            f"clean accuracy {clean['value']:.1%} ({clean['correct']} of {clean['samples']})", highlight=False
        )
    console.print(f"mean accuracy  {found['mean_accuracy']:.1%}", highlight=False)
    if compared:
        named = means(compared)
        width = max(14, *(len(name) for name, _ in named))
        for name, mean in named:
            shown = f"not known: {_missing(found, name)}" if mean is None else f"{100 * mean:.1f}"
            console.print(f"{name:<{width}} {shown} (of {compared['baseline']})", highlight=False, soft_wrap=True)
        if compared["other_images"] is not None:
            console.print(f"{'':<{width}} {other_images(compared)}", highlight=False, soft_wrap=True)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def means(compared: dict[str, Any]) -> list[tuple[str, float | None]]:
    """The mean of the corruption errors and that of the relative ones; only of all common corruptions is it mCE."""
    name = "mCE" if compared["whole"] else "mean CE"
    values = [compared[part] and compared[part]["mean"] for part in ("errors", "relative")]
    return list(zip((name, f"relative {name}"), values, strict=True))


def other_images(compared: dict[str, Any]) -> str:
    """What a baseline that was measured on other images makes of the errors."""
    return (
        f"the baseline was measured on other images ({compared['other_images']}): measure it on these, too, before you "
        "compare."
    )


def _missing(found: dict[str, Any], name: str) -> str:
    """Why a mean is not known."""
    errors = found["against"]["relative" if name.startswith("relative") else "errors"]
    if errors is None:
        return "there were no clean images"
    counted = [each["name"] for each in found["corruptions"] if not each["extra"]]
    none = [slug for slug in counted if errors["corruptions"][slug] is None]
    told = ", ".join(none[:3]) + (f" and {len(none) - 3} more" if len(none) > 3 else "")
    return f"no error of the baseline to divide by under {told}" if none else "all corruptions are extra ones"


def _ratio(compared: dict[str, Any], part: str, slug: str) -> str:
    value = compared[part] and compared[part]["corruptions"][slug]
    return "" if value is None else f"{100 * value:.1f}"


def named_baseline(name: str) -> Baseline:
    """The baseline of a name ("alexnet"), or that of the run in a folder.

    Raises:
        StoreError: it is neither, or the run there is not finished.
    """
    if name.casefold() == "alexnet":
        return ALEXNET
    record = Record.open(Path(name), KIND)
    if record.run["results"] is None:
        raise StoreError(f"the run in {name} is not finished: continue it with --resume first.")
    return baseline_of(record)
