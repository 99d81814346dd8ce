"""The head of the report: the verdict in a sentence, the tiles, the fate of every sample, the attack table."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, final

import torch

from assay import grammar, registry
from assay.errors import AssayError
from assay.evaluation import aims, defended, smallest
from assay.evaluation.merge import share, stage_result
from assay.evaluation.report.source import ROBUST, WRONG, Record
from assay.evaluation.report.threat import Facts
from assay.evaluation.report.words import count, duration, interval, percent, plural, rate
from assay.evaluation.schema import StageResult
from assay.evaluation.suites import load_suite
from assay.models.defended import DefendedSpec


@final
@dataclass(frozen=True, kw_only=True)
class Tile:
    """One number of the summary."""

    name: str
    value: str
    detail: str


@final
@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the bar that shows where all samples went; ``tone`` grades the broken ones by stage."""

    kind: str
    name: str
    number: int
    share: float
    tone: float


def results_of(record: Record) -> dict[str, Any]:
    """The results of run.json; for a run that has none yet, those of the shards that exist.

    In the second case robust accuracy counts every judged sample that no stage has broken so far, so that the
    number can only fall as the run goes on; without a budget the distances are of the samples that were attacked.
    """
    if record.run.get("results"):
        return dict(record.run["results"])
    robust, clean = torch.from_numpy(record.outcome == ROBUST), torch.from_numpy(record.outcome != WRONG)
    samples, left = len(clean), int(clean.sum())
    if record.minimal:
        best = smallest.best(record.shards)
        return {
            "samples": samples,
            "clean_accuracy": share(clean),
            "robust_accuracy": None,
            "stages": smallest.stage_results(record.stages, record.shards),
            "curve": None,
            "distances": smallest.distances(torch.cat([torch.zeros(0), *best.values()])),
            "flags": [],
        }
    stages: list[StageResult] = []
    for stage, shards in zip(record.stages, record.shards, strict=True):
        if shards:
            stages.append(stage_result(stage, shards, left, samples, record.run["settings"].get("max_queries")))
            left -= stages[-1]["broken"]
    return {
        "samples": samples,
        "clean_accuracy": share(clean),
        "robust_accuracy": share(robust),
        "stages": stages,
        "curve": None,
        "distances": {"median": None, "count": 0},
        "flags": [],
    }


def verdict(record: Record, results: dict[str, Any], threat: Facts, noun: str) -> str:
    """What an engineer should take away, in a sentence or two.

    Args:
        record: The run.
        results: Its numbers, see ``results_of``.
        threat: Its threat.
        noun: What a sample is called here.
    """
    samples, robust, clean = results["samples"], results["robust_accuracy"], results["clean_accuracy"]
    if not samples:
        return f"No {noun}s have been evaluated, so nothing can be said about this model."
    accuracy = f"clean accuracy {percent(clean['value'])}"
    if not results["stages"]:
        return f"No attack has finished yet on the {plural(samples, noun)} judged so far; {accuracy}."
    finished = bool(record.run.get("results"))
    numbers = f"({percent(robust['value'])}, 95{percent(0)[-2:]} interval {interval(robust['low'], robust['high'])})"
    if not finished:
        return (
            f"At most {count(robust['correct'])} of the {plural(samples, noun)} judged so far {numbers} withstand the "
            f"attacks within {threat.words}; {accuracy}."
        )
    if "defense" in results:
        accuracy += f"; the defense {defended.verdict(results['defense'])}"
    if robust["correct"] == 0:
        return f"None of the {plural(samples, noun)} withstands the attacks within {threat.words}; {accuracy}."
    subject = (
        f"All {plural(samples, noun)}"
        if robust["correct"] == samples
        else f"{count(robust['correct'])} of {plural(samples, noun)}"
    )
    verb = "withstands" if samples == 1 else "withstand"
    kind = "" if record.run["settings"]["goal"] == aims.UNTARGETED else "targeted "
    return f"{subject} {numbers} {verb} every {kind}attack tried within {threat.words}; {accuracy}."


def tiles(record: Record, results: dict[str, Any]) -> list[Tile]:
    """The five numbers of the summary."""
    robust, clean, samples = results["robust_accuracy"], results["clean_accuracy"], results["samples"]
    if not samples:
        return [Tile(name="Samples", value="0", detail="nothing evaluated")]
    bound = "" if record.run.get("results") else "at most "
    return [
        Tile(
            name="Robust accuracy",
            value=bound + percent(robust["value"]),
            detail=f"95{percent(0)[-2:]} interval {interval(robust['low'], robust['high'])}",
        ),
        Tile(
            name="Clean accuracy",
            value=percent(clean["value"]),
            detail=f"95{percent(0)[-2:]} interval {interval(clean['low'], clean['high'])}",
        ),
        Tile(name="Samples", value=count(samples), detail=f"{count(clean['correct'])} correct before attack"),
        *cost(record, results),
    ]


def cost(record: Record, results: dict[str, Any]) -> list[Tile]:
    """What the run took: passes and time, for each of its samples, of which there is one at least."""
    samples, seconds = results["samples"], float(record.run.get("seconds") or 0.0)
    forwards = sum(stage["forwards"] for stage in results["stages"])
    backwards = sum(stage["backwards"] for stage in results["stages"])
    return [
        Tile(
            name="Cost per sample",
            value=f"{rate(forwards / samples)} + {rate(backwards / samples)}",
            detail="forward + backward passes",
        ),
        Tile(name="Time", value=duration(seconds), detail=f"{1000 * seconds / samples:,.3g} ms per sample"),
    ]


def fate(results: dict[str, Any]) -> list[Part]:
    """Where all samples went: robust, broken by each stage in turn, wrong from the start."""
    samples, clean, robust = results["samples"], results["clean_accuracy"], results["robust_accuracy"]
    if not samples:
        return []
    stages = [(f"broken by {stage['name']}", stage["broken"]) for stage in results["stages"]]
    kept = "withstand every attack" if results["stages"] else "correct"
    return graded((kept, robust["correct"]), stages, samples - clean["correct"], samples)


def graded(robust: tuple[str, int], stages: list[tuple[str, int]], wrong: int, samples: int) -> list[Part]:
    """The parts of the bar that are not empty, those of the stages in falling tones."""
    stages = [stage for stage in stages if stage[1]]
    counts = [("robust", *robust, 1.0)]
    counts += [("broken", *stage, 1.0 - 0.6 * i / max(len(stages) - 1, 1)) for i, stage in enumerate(stages)]
    counts.append(("wrong", "wrong before any attack", wrong, 1.0))
    return [
        Part(kind=kind, name=name, number=number, share=number / samples, tone=round(tone, 2))
        for kind, name, number, tone in counts
        if number
    ]


def state_note(record: Record, noun: str) -> str:
    """What to know of a run that is not done; nothing for one that is."""
    state = record.run["state"]
    if state == "done":
        return ""
    if state == "stopped":
        return (
            "This run stopped when its total of queries was used up. Searches that were not brought to their end count "
            "as failed. Continue with --resume and a larger --total-queries."
        )
    words = "This run was interrupted" if state == "interrupted" else "This run is still in progress"
    judged, wanted = len(record.label), record.run["settings"]["samples"]
    falling = "Distances" if record.minimal else "Robust accuracy"
    return (
        f"{words}: {count(judged)} of {plural(wanted, noun)} have been judged so far. {falling} can only fall as the "
        "remaining attacks are run. Continue with --resume, then render the report again."
    )


def command(settings: dict[str, Any]) -> str:
    """The command line that repeats the run; a suite that is not the shipped one is spelt out attack by attack."""
    suite, model, defense = settings["suite"], settings["model"], list[str]()
    own = [stage for stage in suite["stages"] if stage.get("mode") in (None, "adaptive")]
    if own[0].get("mode") == "adaptive":
        model, defense = _undefended(model)
    lines = [
        ["assay", "evaluate", model],
        *(["--defense", each] for each in defense),
        *([["--surrogate", settings["surrogate"]]] if "surrogate" in settings else []),
        ["--data", settings["data"]],
        ["--threat", settings["threat"]],
        *([["--targeted", settings["goal"]]] if settings["goal"] != aims.UNTARGETED else []),
    ]
    if _shipped(settings):
        lines.append(["--suite", suite["name"], *(["--budget", str(suite["budget"])] if "budget" in suite else [])])
    else:
        lines.extend(["--attack", stage["attack"]] for stage in own)
    numbers = ["--seed", str(settings["seed"]), "--chunk", str(settings["chunk"])]
    if settings.get("limit") is not None:
        numbers = ["--limit", str(settings["limit"]), *numbers]
    if settings.get("max_queries") is not None:
        numbers = ["--max-queries", str(settings["max_queries"]), *numbers]
    lines += [numbers, [*(["--save-adv"] if settings.get("save_adv") else []), "--out", "runs/again"]]
    return " \\\n    ".join(shlex.join(line) for line in lines)


def _undefended(model: str) -> tuple[str, list[str]]:
    """The MODEL behind defenses and these, of a run that shows them."""
    try:
        return DefendedSpec(model).parts()
    except AssayError:  # given as an object, which has no text that can be read
        return model, []


def _shipped(settings: dict[str, Any]) -> bool:
    """Whether the suite's name still stands for the version and the attacks that were run."""
    suite = settings["suite"]
    if suite["name"] not in registry.names("suite"):
        return False
    try:
        shipped = load_suite(suite["name"], grammar.threat(settings["threat"]), suite.get("budget", 1.0))
    except AssayError:  # a threat that this installation cannot read
        return False
    offered = {stage.name: (repr(stage.attack), repr(stage.fallback)) for stage in shipped.stages}
    return shipped.version == suite["version"] and all(
        stage["attack"] in offered.get(stage["name"].removeprefix(f"{stage.get('mode')}-"), ())
        for stage in suite["stages"]
    )
