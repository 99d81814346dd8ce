"""A finished run as a table for people who read text."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table as Grid

from assay.evaluation import aims, defended
from assay.evaluation.flags import Flag
from assay.evaluation.schema import Distances, Queries, Results, Share, StageResult


def table(results: Results, flags: list[Flag], clean_seconds: float, goal: str = aims.UNTARGETED) -> str:
    """One row a stage, the numbers of the whole run, and its flags.

    Args:
        results: The numbers.
        flags: What their reader has to know.
        clean_seconds: Time that the clean predictions took.
        goal: What the attacks looked for.
    """
    robust = results["robust_accuracy"]
    grid = _distances(results) if robust is None else _survivors(results, clean_seconds)
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(grid)
    for stage in results["stages"]:
        if "queries" in stage:
            console.print(queries(stage["name"], stage["queries"]), highlight=False, soft_wrap=True)
    if goal != aims.UNTARGETED:
        console.print(f"attacks         {aims.told(goal)}", highlight=False)
    console.print(f"clean accuracy  {_with_interval(results['clean_accuracy'])}", highlight=False)
    if robust is None:
        console.print(f"median distance {_median(results['distances'])}", highlight=False)
    else:
        console.print(f"robust accuracy {_with_interval(robust)}", highlight=False)
    if "defense" in results:
        console.print(f"the defense     {defended.verdict(results['defense'])}", highlight=False)
    for flag in flags:
        console.print(f"{flag.severity}: {flag.message} {flag.cure}", soft_wrap=True, markup=False)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


def queries(stage: str, found: Queries) -> str:
    """What successes cost, in a line.

    Example:
        >>> curve = {"queries": [100, 1000], "success": [0.5, None], "low": [0.1, None], "high": [0.9, None]}
        >>> queries("square", {"median": 12.0, "mean": 20.25, "at": curve, "curve": curve})
        'square: 12 queries in the median of its successes, 20.2 in the mean; success 50.0% at 100'
    """
    shares = zip(found["at"]["queries"], found["at"]["success"], strict=True)
    known = [f"{share:.1%} at {number:,}" for number, share in shares if share is not None]
    success = f"success {', '.join(known)}" if known else "success unknown at 100"
    if found["median"] is None:
        return f"{stage}: no success; {success}"
    cost = f"{found['median']:,.6g} queries in the median of its successes, {found['mean']:,.1f} in the mean"
    return f"{stage}: {cost}; {success}"


def distance(number: float | None) -> str:
    """A distance with four significant digits, a whole number with all of its own; None is infinite.

    Example:
        >>> distance(0.0313725), distance(12345.0), distance(None)
        ('0.03137', '12345', 'inf')
    """
    if number is None:
        return "inf"
    return f"{number:.0f}" if number == round(number) else f"{number:.4g}"


def _grid(*headings: str) -> Grid:
    grid = Grid(title=None, box=None, pad_edge=False)
    for heading in headings:
        grid.add_column(heading, justify="left" if heading == "stage" else "right")
    return grid


def _survivors(results: Results, clean_seconds: float) -> Grid:
    """What each stage did to the survivors of those before it."""
    grid = _grid("stage", "asked", "broken", "robust", "forwards/sample", "backwards/sample", "seconds")
    clean = results["clean_accuracy"]
    wrong = clean["samples"] - clean["correct"]
    row = (str(clean["samples"]), str(wrong), f"{clean['value']:.1%}", "1.0", "0.0", f"{clean_seconds:.1f}")
    grid.add_row("clean", *row)
    for stage in results["stages"]:
        robust = f"{stage['robust_accuracy']:.1%}"
        grid.add_row(stage["name"], str(stage["asked"]), str(stage["broken"]), robust, *_cost(stage))
    return grid


def _distances(results: Results) -> Grid:
    """How near each stage came to the samples that are right at first, and all stages together."""
    headings = ("stage", "asked", "found", "smallest", "median distance")
    grid = _grid(*headings, "forwards/sample", "backwards/sample", "seconds")
    for stage in results["stages"]:
        smallest = f"{stage['smallest'] / max(1, stage['asked']):.1%}"
        median = distance(stage["median"])
        grid.add_row(stage["name"], str(stage["asked"]), str(stage["broken"]), smallest, median, *_cost(stage))
    return grid


def _cost(stage: StageResult) -> tuple[str, str, str]:
    asked = max(1, stage["asked"])
    return f"{stage['forwards'] / asked:.1f}", f"{stage['backwards'] / asked:.1f}", f"{stage['seconds']:.1f}"


def _with_interval(share: Share) -> str:
    return (
        f"{share['value']:.1%}  (95 % interval {share['low']:.1%} to {share['high']:.1%}, "
        f"{share['correct']} of {share['samples']})"
    )


def _median(found: Distances) -> str:
    first, third = (distance(number) for number in found["quartiles"])
    if not found["count"] + found["missed"]:
        return "unknown: no sample is right at first"
    return (
        f"{distance(found['median'])}  (95 % interval {distance(found['low'])} to {distance(found['high'])}; quartiles "
        f"{first} and {third})"
    )
