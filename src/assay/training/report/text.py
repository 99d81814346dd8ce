"""What the page of a training run says: its sentence, its tiles, its table and its command line."""

from __future__ import annotations

import shlex
from dataclasses import MISSING, dataclass, fields
from typing import Any, final

from assay.evaluation.report.words import count, duration, interval, percent
from assay.evaluation.stats import wilson
from assay.training.folder import Row
from assay.training.settings import Settings
from assay.training.validation import STEPS

_LONG = 40
_SWITCHES = ("channels_last", "compile")
_APART = ("recipe", "threat", "augment", "guard", *_SWITCHES)  # of the settings, on the command line


@final
@dataclass(frozen=True, kw_only=True)
class Tile:
    """One number at the head of the page."""

    name: str
    value: str
    detail: str


def verdict(run: dict[str, Any], kept: Row | None) -> str:
    """What the run gave, in a sentence."""
    if kept is None:
        return "Nothing was measured of this network." if run["state"] == "done" else "No epoch has been measured yet."
    held = count(run["settings"]["validation"])
    if quality := run.get("quality"):
        return f"The network of epoch {kept['epoch']} has {quality} {kept['quality']:.5g} on {held} held-out samples."
    threats = run.get("measured", [])
    within = f" within all of {', '.join(threats)}" if len(threats) > 1 else ""
    robust = "" if kept["robust"] is None else f", and on {percent(kept['robust'])} under PGD-{STEPS}{within}"
    right = f"right on {percent(kept['clean'])} of {held} held-out samples"
    return f"The network of epoch {kept['epoch']} is {right}{robust}."


def state_note(run: dict[str, Any], history: list[Row]) -> tuple[str, str]:
    """A word and a sentence on a run that is not done, or that ended before its last epoch; empty otherwise."""
    state, done = run["state"], len(history)
    so_far = f"{done} of {run['settings']['epochs']} epochs are done."
    if state == "failed":
        return "Failed.", f"{run.get('error', '')} {so_far}".strip()
    if state == "interrupted":
        return "Interrupted.", f"{so_far} Continue with --resume."
    if state != "done":
        return "Unfinished.", f"This run is in progress, or was killed: {so_far} Continue with --resume."
    stopped = run["results"]["stopped"].removeprefix("stopped: ")
    return ("Stopped early.", stopped[:1].upper() + stopped[1:]) if stopped else ("", "")


def tiles(run: dict[str, Any], history: list[Row], kept: Row | None) -> list[Tile]:
    """The numbers at the head of the page."""
    settings, found = run["settings"], []
    if kept is not None:
        for key, name in (("robust", f"Under PGD-{STEPS}"), ("clean", "Clean accuracy")):
            if kept[key] is not None:
                low, high = wilson(round(kept[key] * settings["validation"]), settings["validation"])
                detail = f"{interval(low, high)}, held-out samples"
                found.append(Tile(name=name, value=percent(kept[key]), detail=detail))
        if quality := run.get("quality"):
            found.append(Tile(name=quality, value=f"{kept['quality']:.5g}", detail="held-out samples"))
        found.append(Tile(name="Kept epoch", value=str(kept["epoch"]), detail=f"of {len(history)} done"))
    if history:
        seconds = sum(row["seconds"] for row in history)
        each = f"{duration(seconds / len(history))} an epoch"
        found.append(Tile(name="Training time", value=duration(seconds), detail=f"{each}, measuring left out"))
        images = sum(row["images_per_second"] * row["seconds"] for row in history)
        processes = run["environment"].get("processes", 1)
        on = f"on {run['environment']['device']}" + (f", {processes} processes" if processes > 1 else "")
        found.append(Tile(name="Images a second", value=count(images / max(seconds, 1e-9)), detail=on))
    return found


def epochs_table(history: list[Row], kept: Row | None, quality: str | None = None) -> list[tuple[list[str], bool]]:
    """One row of words per epoch, and whether its network is the one that was kept."""
    return [
        (
            [
                str(row["epoch"]),
                f"{row['loss']:.4f}",
                *_measured(row, quality),
                f"{row['lr']:.2g}",
                count(row["images_per_second"]),
            ],
            kept is not None and row["epoch"] == kept["epoch"],
        )
        for row in history
    ]


def _measured(row: Row, quality: str | None) -> list[str]:
    if quality:
        return ["\N{EN DASH}" if row["quality"] is None else f"{row['quality']:.5g}"]
    return ["\N{EN DASH}" if row[key] is None else percent(row[key]) for key in ("clean", "robust")]


def command(settings: dict[str, Any], processes: int = 1) -> str:
    """The command line that repeats a run of these settings by so many processes."""
    lines = [
        ["assay", "train", settings["model"]],
        ["--data", settings["data"]],
        ["--recipe", settings["recipe"]],
    ]
    if settings["threat"] is not None:
        lines.append(["--threat", settings["threat"]])
    if settings.get("extra") is not None:
        lines.append(["--extra", settings["extra"]])
    if "samples" in settings:
        lines.append(["--limit", str(settings["samples"])])
    lines += [["--augment", each] for each in settings["augment"]]
    usual = _usual()
    lines += [
        [f"--{name.replace('_', '-')}", str(settings[name])]
        for name, value in usual.items()
        if settings[name] != value and settings[name] is not None
    ]
    lines += [[f"--{name.replace('_', '-')}"] for name in _SWITCHES if settings[name]]
    if settings["guard"] is None:
        lines.append(["--no-guard"])
    if processes > 1:
        lines.append(["--devices", str(processes)])
    return " \\\n    ".join(shlex.join(line) for line in [*lines, ["--out", "runs/again"]])


def _usual() -> dict[str, Any]:
    """What each plain option of the command line is when it is left out, in the form of `train.json`."""
    made = {each.name: each for each in fields(Settings) if each.name not in _APART}
    plain = {}
    for name, each in made.items():
        value = each.default_factory() if each.default_factory is not MISSING else each.default
        plain[name] = value if isinstance(value, (bool, int, float, str, type(None))) else repr(value)
    return plain


def cut(recipe: str) -> str:
    """A recipe in short: its name alone where the whole is long.

    Example:
        >>> cut("TRADES(attack=PGD(threat=Linf(0.1), steps=10, rel_step=0.25), beta=6.0)"), cut("Standard()")
        ('TRADES', 'Standard()')
    """
    return recipe if len(recipe) <= _LONG else recipe.partition("(")[0]
