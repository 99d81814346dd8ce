"""What ``run.json`` holds, field by field; ``docs/run-directory.md`` describes the whole folder.

Other programs look at ``schema_version``: fields may be added under the same number, and the number grows
when a field changes its meaning or goes away.
"""

from __future__ import annotations

import hashlib
import json
import re
from types import UnionType
from typing import Any, Literal, TypedDict, Union, get_args, get_origin, get_type_hints

from typing_extensions import is_typeddict

SCHEMA_VERSION = 2
STAGE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")  # it becomes the name of a folder

Mode = Literal["oblivious", "adaptive", "rejected"]
State = Literal["running", "done", "interrupted", "stopped"]


class _StageRecord(TypedDict):
    name: str  # names the shard folder
    attack: str  # the expression that builds the attack, its threat included


class StageRecord(_StageRecord, total=False):
    """One attack of the suite, as it is run."""

    eot: str  # the expression of the views or draws that questions are asked about; absent without
    mode: Mode  # of a run that shows a defense: whether the attack knows of it; absent in others


class _SuiteRecord(TypedDict):
    name: str
    version: int
    stages: list[StageRecord]


class SuiteRecord(_SuiteRecord, total=False):
    """The suite, and the stages that were left after fallbacks and skipped stages."""

    budget: float  # by how much its stages were lengthened; absent where they are as its page says


class _Settings(TypedDict):
    model: str  # as the user named it
    model_digest: str  # of parameters, buffers and the file, so that another model of the same name is noticed
    data: str
    data_digest: str  # of labels, sample numbers and inputs: all inputs of a tensor, four of lazy data
    classes: list[str] | None  # names of the classes, where the data have any
    threat: str  # an expression
    goal: str  # "untargeted", or how the target of each sample is chosen
    suite: SuiteRecord
    seed: int
    limit: int | None  # as asked for
    samples: int  # as found
    chunk: int  # samples in a shard
    save_adv: bool


class Settings(_Settings, total=False):
    """Everything that decides the result; its hash is in every shard."""

    max_queries: int  # model evaluations allowed per sample and stage, the clean one included; absent without a limit
    surrogate: str  # what attacks that do not know of the defense attack, where it is not the bare model
    surrogate_digest: str
    rejected: int  # the output that stands for a rejected input; absent where no input is rejected
    minimal: bool  # the threat has no budget: smallest perturbations are looked for; absent where it has one


class Environment(TypedDict):
    """Where the run started."""

    assay: str
    torch: str
    numpy: str
    python: str
    device: str
    platform: str
    commit: str | None  # of the working directory, where it is a git checkout
    threads: int


class Share(TypedDict):
    """A measured share with its Wilson interval (95 %)."""

    value: float
    low: float
    high: float
    correct: int
    samples: int


class _StageResult(TypedDict):
    name: str
    attack: str
    asked: int  # samples still robust when the stage began; without a budget all that are right at first
    broken: int
    robust_accuracy: float | None  # after this stage, of all samples; null without a budget
    forwards: int  # summed over samples
    backwards: int
    seconds: float


class QueryCurve(TypedDict):
    """Share of the samples asked about that were broken with at most so many queries."""

    queries: list[int]
    success: list[float | None]  # null beyond max_queries or what a total left, where nothing is known
    low: list[float | None]
    high: list[float | None]


class Queries(TypedDict):
    """What successes cost; the clean input's answer counts as one query of each sample."""

    median: float | None  # of the samples that were broken; null where none was
    mean: float | None
    at: QueryCurve  # at 100, 1,000 and 10,000 queries
    curve: QueryCurve  # at every number of queries that broke a sample


class StageResult(_StageResult, total=False):
    """What one stage did to the survivors of those before it; without a budget to every sample that is right."""

    smallest: int  # without a budget: samples of which no stage found a smaller perturbation
    median: float | None  # without a budget: of its distances; null where it broke fewer than half
    queries: Queries  # of stages that used no gradients, with a budget


class Curve(TypedDict):
    """Robust accuracy over the size of the perturbation."""

    eps: list[float]
    robust_accuracy: list[float]
    low: list[float]
    high: list[float]
    exact: bool
    note: str


class _Distances(TypedDict):
    median: float | None
    count: int


class Distances(_Distances, total=False):
    """Of the samples that were right at first and were broken.

    Without a budget the median and the further fields are of all that were right at first, and one that was never
    broken counts as infinitely far; null stands for an infinite number.
    """

    low: float | None  # the 95 % interval of the median, between two order statistics
    high: float | None
    quartiles: list[float | None]  # the first and the third
    missed: int  # right at first, and never broken


class FlagRecord(TypedDict):
    """Something about the run that the reader of its numbers has to know."""

    code: str
    severity: Literal["error", "warning", "info"]
    message: str
    cure: str
    link: str


class _DefenseResult(TypedDict):
    claimed: Share  # what attacks that do not know of the defense leave
    stands: Share  # what is left by those that do


class DefenseResult(_DefenseResult, total=False):
    """A defense twice: robust accuracy without and with knowledge of it."""

    rejected_lost: Share  # as `stands`, where a rejected input counts as lost; absent where none is rejected
    clean_rejected: int  # unchanged inputs that are rejected


class _Results(TypedDict):
    samples: int
    clean_accuracy: Share
    robust_accuracy: Share | None  # null without a budget: the curve tells it at every eps
    stages: list[StageResult]
    curve: Curve
    distances: Distances
    flags: list[FlagRecord]


class Results(_Results, total=False):
    """The numbers of a finished run."""

    defense: DefenseResult  # of a run that shows a defense


class Spent(TypedDict):
    """Questions to the model, all attempts of a resumed run together, those before the first attack included."""

    total: int | None  # as many were allowed; null where there was no limit
    spent: int


class _Run(TypedDict):
    schema_version: int
    kind: Literal["evaluation"]
    state: State
    settings: Settings
    settings_hash: str
    environment: Environment
    started: str  # ISO 8601, UTC
    finished: str | None
    seconds: float  # at work, all attempts of a resumed run together
    results: Results | None


class Run(_Run, total=False):
    """The whole of ``run.json``."""

    queries: Spent  # of runs in one process whose model gives no gradients, or with a total


def settings_hash(settings: Settings) -> str:
    """Short hash of the settings: equal settings, equal hash, whatever the order of the keys."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Each setting that differs, as ``name: old -> new``.

    Example:
        >>> differences({"seed": 0, "suite": {"name": "quick"}}, {"seed": 1, "suite": {"name": "quick"}})
        ['seed: 0 -> 1']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        found = [differences(old.get(key), new.get(key), f"{name}.{key}" if name else str(key)) for key in keys]
        return [line for lines in found for line in lines]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{name}[{i}]")]
    return [] if old == new else [f"{name}: {json.dumps(old)} -> {json.dumps(new)}"]


def problem(run: Any) -> str | None:
    """What keeps this from being the content of a ``run.json``, in words; None where nothing does.

    Example:
        >>> problem({"schema_version": 1}).split(",")[0]
        'it lacks kind'
    """
    found = _misfit(run, Run, "")
    if found is not None:
        return found
    settings: Settings = run["settings"]
    for stage in settings["suite"]["stages"]:
        if not STAGE_NAME.fullmatch(stage["name"]):
            return f"a stage cannot be called {stage['name']!r}"
    if settings["samples"] < 0 or settings["chunk"] < 1:
        return f"there cannot be {settings['samples']} samples in chunks of {settings['chunk']}"
    return None


def _misfit(value: Any, kind: Any, name: str) -> str | None:
    """The first place where a value is not of the kind; fields that the kind does not name may be there."""
    if is_typeddict(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        inner = {key: f"{name}.{key}" if name else key for key in hints}
        missing = [inner[key] for key in hints if key not in value and key in kind.__required_keys__]
        if missing:
            return f"it lacks {', '.join(missing)}"
        there = ((key, hint) for key, hint in hints.items() if key in value)
        return next(filter(None, (_misfit(value[key], hint, inner[key]) for key, hint in there)), None)
    origin, options = get_origin(kind), get_args(kind)
    if origin is list and isinstance(value, list):
        return next(filter(None, (_misfit(item, options[0], f"{name}[{i}]") for i, item in enumerate(value))), None)
    if origin in (Union, UnionType):
        found = [_misfit(value, option, name) for option in options if option is not type(None) or value is None]
        return None if None in found else found[0]
    fits = value in options if origin is Literal else _is_a(value, kind)
    return None if fits else f"its {name} is {str(value)[:60]!r}"


def _is_a(value: Any, kind: Any) -> bool:
    if kind is type(None):
        return value is None
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    plain = kind in (str, int, bool) and isinstance(value, kind)
    return plain and (kind is bool or not isinstance(value, bool))
