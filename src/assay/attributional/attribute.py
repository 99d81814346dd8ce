"""``assay.attribute``: how robust a model's explanations are, measured on a data set."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

import torch

from assay import grammar
from assay.attacks import PGD, Attack
from assay.attribution import Attribution, Change
from assay.attributional.page import KIND, render
from assay.attributional.summary import summary
from assay.attributional.work import Work
from assay.calls import Calls
from assay.errors import InputError, ModelError, SettingError, ThreatError
from assay.evaluation.parts import Asked, Step
from assay.evaluation.prepare import environment
from assay.evaluation.record import Record
from assay.oracle import is_stochastic
from assay.threats import Threat
from assay.threats.base import need_budget

STEPS = 50  # of the attack that measures, where none is named


@final
@dataclass(frozen=True, kw_only=True)
class Attributed:
    """What was measured.

    Attributes:
        results: samples, shares, and means of every metric with intervals, as `run.json` holds them.
        path: the folder; None where nothing was kept.
    """

    results: dict[str, Any]
    path: Path | None


def attribute(
    model: Any,
    data: Any,
    *,
    threat: Threat | str | None = None,
    attribution: Attribution | str = "Gradient",
    attack: Attack | None = None,
    change: Change | str = "TopK",
    k: int | None = None,
    beta: float | None = 50.0,
    masks: torch.Tensor | None = None,
    out: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    batch: int = 64,
    seed: int = 0,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    step: Step | None = None,
) -> Attributed:
    """Attack the explanations of a model's right decisions and measure how much they change.

    Each decision is kept: a move that loses it does not count. Every number stands beside that of a random move of the
    same size.

    Args:
        model: a module, or what `load_model` loads.
        data: (x, y), a map-style Dataset, or what `load_data` loads.
        threat: what may be changed, with its budget; that of the attack when None.
        attribution: how decisions are explained.
        attack: the search; PGD of 50 steps when None.
        change: what it does to the explanation: `TopK`, `MassCentre`, `Region`, `Manipulation` (towards the map of the
            sample that follows).
        k: places of the top-k intersection; those of the change where it has some, else one in eight.
        beta: of the softplus that stands in the place of ReLU while the search takes gradients; None for none.
        masks: where maps should lie, `(n, h, w)` bool, for the share that does.
        out: folder of the run; nothing is kept when None.
        limit: use only the first so many samples.
        batch: samples of a part; the results do not depend on it.
        seed: key of every draw.
        device: "cpu" or "cuda"; where the model is, or CUDA where there is some, when None.
        resume: continue the run in `out`; start it where the folder is new or empty.
        overwrite: replace the run in `out`.
        step: called after each part with samples done, all samples, and the results so far.

    Raises:
        AssayError: the named error of whatever cannot be used.

    Example:
        >>> found = attribute("digits-mlp", "digits", threat="linf:0.1", limit=20)
        >>> found.results["kept"], found.results["metrics"]["top_k"]["attack"]["value"] < 0.9
        (1.0, True)
    """
    asked = Asked.about(model, data, limit=limit, batch=batch, device=device)
    if is_stochastic(asked.model):
        raise ModelError(
            "the model draws random numbers, and its explanations change without an attack: give the network inside it."
        )
    search = _attack(attack, grammar.threat(threat) if isinstance(threat, str) else threat)
    explained = explained_by(attribution) if isinstance(attribution, str) else attribution
    wanted = changed_by(change) if isinstance(change, str) else change
    if masks is not None and len(masks) < len(asked.data):
        raise InputError(f"there are {len(masks)} masks for {len(asked.data)} samples.")
    work = Work(
        model=asked.model, data=asked.data, attack=search, attribution=explained, change=wanted, beta=beta, k=k,
        masks=masks, seed=seed, device=asked.device, dtype=asked.dtype,
    )  # fmt: skip
    settings = asked.settings | {
        "threat": repr(search.threat), "attribution": repr(explained), "attack": repr(search), "change": repr(wanted),
        "k": k, "beta": beta, "masks": None if masks is None else _digest(masks), "seed": seed,
        "classes": list(asked.data.classes or ()),
    }  # fmt: skip
    record = None
    if out is not None:
        record = Record.begin(Path(out), KIND, settings, environment(asked.device), resume=resume, overwrite=overwrite)
    _, results = asked.in_parts(work.part, summary, record, step)
    if record:
        render(record.path)
    return Attributed(results=results, path=record.path if record else None)


def explained_by(text: str) -> Attribution:
    """Read an attribution: `SmoothGrad(draws=10)`, or `Gradient`.

    Raises:
        GrammarError: it is none.
    """
    return cast("Attribution", Calls(text, short=True).read(Attribution))


def changed_by(text: str) -> Change:
    """Read a change: `TopK(k=100)`, or `MassCentre`.

    Raises:
        GrammarError: it is none.
    """
    return cast("Change", Calls(text, short=True).read(Change))


def _digest(masks: torch.Tensor) -> str:
    """Short hash of masks, so that others are noticed."""
    plain = masks.cpu().contiguous().numpy()
    return hashlib.sha256(f"{plain.dtype} {plain.shape}".encode() + plain.tobytes()).hexdigest()[:16]


def _attack(attack: Attack | None, threat: Threat | None) -> Attack:
    """The attack, which has a budget.

    Raises:
        SettingError: there is neither an attack nor a threat.
        ThreatError: the threat has no budget, or is another than the attack's.
    """
    if attack is None and threat is None:
        raise SettingError("explanations are attacked under a threat: give one, such as Linf(8/255).")
    if attack is None:
        assert threat is not None
        need_budget(threat, "an attack on explanations")
        return PGD(threat=threat, steps=STEPS)
    need_budget(attack.threat, "an attack on explanations")
    if threat is not None and repr(threat) != repr(attack.threat):
        raise ThreatError(f"the attack moves under {attack.threat!r}, and the threat is {threat!r}: leave one out.")
    return attack
