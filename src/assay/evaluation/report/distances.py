"""The head of the report of a run without a budget: its verdict, its tiles, and where the nearest inputs came from."""

from __future__ import annotations

from typing import Any

from assay.evaluation.report.source import ROBUST, WRONG, Record
from assay.evaluation.report.summary import Part, Tile, cost, graded
from assay.evaluation.report.threat import Facts
from assay.evaluation.report.words import SPACE, count, interval, percent, plural, size

_LEVEL = f"95{SPACE}%"


def verdict(record: Record, results: dict[str, Any], threat: Facts, noun: str) -> str:
    """What an engineer should take away, in a sentence.

    Args:
        record: The run.
        results: Its numbers, see ``summary.results_of``.
        threat: Its threat.
        noun: What a sample is called here.
    """
    samples, found = results["samples"], results["distances"]
    if not samples:
        return f"No {noun}s have been evaluated, so nothing can be said about this model."
    accuracy = f"clean accuracy {percent(results['clean_accuracy']['value'])}"
    if not results["stages"]:
        return f"No attack has finished yet on the {plural(samples, noun)} judged so far; {accuracy}."
    right = found["count"] + found["missed"]
    if not right:
        return f"None of the {plural(samples, noun)} is right before any attack, so there is nothing to break."
    lead = "" if record.run.get("results") else "So far: "
    if found["median"] is None:
        return (
            f"{lead}{count(found['count'])} of the {plural(right, noun)} that are right at first were broken at any "
            f"distance, fewer than half; {accuracy}."
        )
    quarter = size(found["quartiles"][0])
    return (
        f"{lead}Half of the {plural(right, noun)} that are right at first become wrong within "
        f"{threat.sized(size(found['median']))} ({_LEVEL} interval {size(found['low'])} to "
        f"{_most(found['high'])}), a quarter within {quarter}; {accuracy}."
    )


def tiles(record: Record, results: dict[str, Any], threat: Facts, noun: str) -> list[Tile]:
    """The numbers of the summary; for images the median under Linf in steps of 8-bit pixels too."""
    found, clean, samples = results["distances"], results["clean_accuracy"], results["samples"]
    if not samples:
        return [Tile(name="Samples", value="0", detail="nothing evaluated")]
    first, third = found["quartiles"]
    low, high = threat.bounds
    levels = ""
    if noun == "image" and threat.name.lower() == "linf" and found["median"] is not None:
        levels = f"{255 * found['median'] / (high - low):.3g} of 255 levels; "
    return [
        Tile(
            name="Median distance",
            value=size(found["median"]),
            detail=f"{levels}{_LEVEL} interval {size(found['low'])} to {_most(found['high'])}",
        ),
        Tile(name="Middle half", value=f"{size(first)} to {_most(third)}", detail="quartiles of the distances"),
        Tile(
            name="Clean accuracy",
            value=percent(clean["value"]),
            detail=f"{count(clean['correct'])} of {count(samples)}, {_LEVEL} interval "
            f"{interval(clean['low'], clean['high'])}",
        ),
        *cost(record, results),
    ]


def origins(record: Record, results: dict[str, Any]) -> list[Part]:
    """Where the nearest adversarial input of every sample came from."""
    samples, stages = results["samples"], record.stages if results["stages"] else []
    if not samples:
        return []
    nearest = [(f"nearest by {s['name']}", int((record.outcome == k).sum())) for k, s in enumerate(stages, start=1)]
    finished = bool(record.run.get("results"))
    never = ("never broken" if finished else "not broken so far") if stages else "right at first"
    wrong = int((record.outcome == WRONG).sum())
    return graded((never, int((record.outcome == ROBUST).sum())), nearest, wrong, len(record.outcome))


def _most(number: float | None) -> str:
    return "beyond all found" if number is None else size(number)
