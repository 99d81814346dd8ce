"""``assay.evaluate``: a suite of attacks over a data set, in a run directory that can be killed and continued."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import torch

from assay.attacks import Attack
from assay.attacks.base import evaluating
from assay.data import Data
from assay.defenses import Defense
from assay.errors import StoreError
from assay.evaluation import aims, checks, defended, prepare
from assay.evaluation.chunks import Work, complete, missing, placement, run
from assay.evaluation.flags import Flag
from assay.evaluation.progress import Display
from assay.evaluation.ranks import Group, check_devices, join, launch, own_device, wait
from assay.evaluation.report import render
from assay.evaluation.schema import Settings
from assay.evaluation.stages import Suite
from assay.evaluation.store import Store
from assay.evaluation.suites import default_suite
from assay.evaluation.summary import Evaluation, results
from assay.models.load import load_model, recorded
from assay.models.metered import Metered
from assay.threats import Threat


def evaluate(
    model: Any,
    data: Any,
    *,
    threat: Threat | str,
    suite: str | os.PathLike[str] | Sequence[tuple[str, Attack]] | None = None,
    targeted: str | int | None = None,
    defense: Defense | str | Sequence[Defense | str] | None = None,
    surrogate: Any = None,
    out: str | os.PathLike[str] | None = None,
    limit: int | None = None,
    max_queries: int | None = None,
    total_queries: int | None = None,
    budget: float = 1.0,
    seed: int = 0,
    chunk: int | None = None,
    devices: int = 1,
    device: str | torch.device | None = None,
    resume: bool = False,
    overwrite: bool = False,
    save_adv: bool = False,
    progress: bool | None = None,
    model_name: str | None = None,
    data_name: str | None = None,
) -> Evaluation:
    """Measure clean and robust accuracy: each attack of a suite on the samples that survived those before it.

    A sample is robust when it is classified rightly and no attack of the suite found an input within the threat that
    is not. A threat without a budget, such as ``Linf()``, asks for more: every attack looks for the smallest
    perturbation of every sample that is classified rightly, the smallest of all counts, and their distribution is the
    whole curve of robust accuracy over eps. The result depends on model, data, threat, suite and seed, and on nothing
    else: not on chunks, order, processes, or interruptions.

    Args:
        model: A module that takes inputs within the threat's bounds and returns logits, or what `load_model` loads.
        data: (x, y), (x, y, index), a map-style Dataset, or what `load_data` loads.
        threat: What the attacker may do, as an object or as text ("linf:8/255", or "linf" for no budget).
        suite: A name ("quick", "standard", "minimal"), the path of a .toml file, or a list of (name, attack). None is
            "standard", or "minimal" for a threat without a budget.
        targeted: How the class is chosen that each sample shall get, where any wrong one will not do: "random", "next",
            "least-likely" (by the clean scores), or the number of one class, whose own samples are then not attacked. A
            sample is robust when it is classified rightly and was not led there.
        defense: What is put around the model: each attack of the suite is then run twice, first without and then with
            knowledge of it, and ``results["defense"]`` tells what each leaves. Several in order, the first nearest to
            the input.
        surrogate: With a defense, what the attacks that do not know of it attack: a module, or what `load_model` loads;
            None is the model without the defense.
        out: The run directory; a temporary one, gone with the returned object, when None. Under torchrun the processes
            share the run where a folder is given, and each makes a run of its own where none is.
        limit: Use only the first so many samples.
        max_queries: Model evaluations that each attack is allowed for each sample, the clean input's included.
        total_queries: Model evaluations that the run is allowed in all. When they are used up it stops: what was found
            is kept, samples that were not searched to the end count as robust, and ``resume`` goes on with more.
        budget: How many times its usual passes the suite may spend: 0.1 for a quick look, 10 for a paper.
        seed: Key of all random draws.
        chunk: Samples in a shard; chosen by the size of the inputs when None.
        devices: Processes on this machine (on graphics cards, one each). Model and data must be given by name.
        device: Where inputs go, and a model that is given by name; None takes the model's own device, or for a model
            without parameters the graphics card of this process. Not together with ``devices``.
        resume: Continue the run in ``out``; start it where the folder is new or empty.
        overwrite: Replace the run in ``out``.
        save_adv: Keep the worst input of every sample in ``out/adv``.
        progress: False for silence; otherwise a bar on a terminal, and lines now and then elsewhere.
        model_name: What reports call the model.
        data_name: What reports call the data.

    Raises:
        AssayError: The named error of whatever cannot be used: inputs, model, threat, suite, or the run directory,
            which is tried before anything is computed.

    Example:
        >>> import torch, assay
        >>> x, y = torch.rand(8, 4), torch.zeros(8, dtype=torch.int64)
        >>> found = assay.evaluate(torch.nn.Linear(4, 5), (x, y), threat="linf:0.1", suite="quick", progress=False)
        >>> found.robust_accuracy <= found.clean_accuracy
        True
    """
    group = Group() if out is None else Group.here()  # without a folder that all see, a run of its own
    check_devices(devices, model, data)
    prepare.check_defense(defense, surrogate, total_queries, devices)
    asked = prepare.device(device, devices)
    folder, temporary = prepare.folder(out, group, resume=resume, overwrite=overwrite)
    with _removed_on_failure(folder, temporary):
        threat = prepare.threat(threat)
        goal = aims.UNTARGETED if targeted is None else str(targeted)
        aims.check(goal)
        suite = default_suite(threat) if suite is None else suite
        if defense is not None:
            model, model_name = defended.around(
                model, defense, model_name, threat, device=asked or own_device(), by_name=devices > 1
            )
        named = recorded(model) if isinstance(model, str) else None
        module = load_model(model, device=asked or own_device()) if isinstance(model, str) else model
        samples = prepare.data(data, data_name, limit, threat)
        place, dtype = placement(module, own_device(), asked)
        flags = checks.mode(module)
        prepare.check_queries(max_queries, total_queries, devices * group.world)
        with evaluating(module):
            meter = prepare.meter(module, total_queries, devices * group.world)
            with prepare.counting_on(meter, folder, resume=resume):
                fitted, seen = prepare.fitted(meter or module, samples, threat, suite, place, dtype, budget, goal)
            flags += seen
            source = None
            if defense is not None:
                fitted, source = prepare.shown_twice(module, surrogate, samples, fitted, place, dtype, goal)
            settings = _settings(
                model_name or named or type(module).__name__, module, samples, threat, fitted,
                goal=goal, seed=seed, limit=limit, max_queries=max_queries, save_adv=save_adv,
                chunk=prepare.chunk(chunk, samples, devices * group.world, folder if resume else None),
            )  # fmt: skip
            settings |= cast(Settings, prepare.told(module, surrogate, source, samples, place, dtype))
            store = _opened(folder, settings, group, place, resume=resume, overwrite=overwrite)
            began = time.monotonic()
            show, workers = progress is not False and group.rank == 0, devices * group.world
            with (
                Display(store.stages, store.chunks, show=show, workers=workers, minimal=store.minimal) as display,
                _noted(store, meter, display, began, group, temporary),
            ):
                if devices > 1:
                    launch(store, model, data, devices, display.update)
                else:
                    work = Work(
                        store=store,
                        model=meter or module,
                        data=samples,
                        threat=threat,
                        suite=fitted,
                        device=place,
                        dtype=dtype,
                        report=display.update,
                        meter=meter,
                        keep=prepare.keeps(module, total_queries, store),
                        surrogate=source,
                    )
                    run(work, group.share(store.chunks))
                    wait(store, group, display.update)
                complete(store)
                found = _finish(store, fitted, threat, flags, time.monotonic() - began, group, meter, temporary)
    if group.rank == 0 and not temporary:
        render(found.path)
    return found


def _settings(
    name: str,
    module: Any,
    samples: Data,
    threat: Threat,
    suite: Suite,
    *,
    goal: str,
    seed: int,
    limit: int | None,
    max_queries: int | None,
    save_adv: bool,
    chunk: int,
) -> Settings:
    """Everything that the results depend on, and how they are stored."""
    settings: Settings = {
        "model": name,
        "model_digest": prepare.digest(module),
        "data": samples.name,
        "data_digest": samples.fingerprint(),
        "classes": None if samples.classes is None else list(samples.classes),
        "threat": repr(threat),
        "goal": goal,
        "suite": suite.record(),
        "seed": seed,
        "limit": limit,
        "samples": len(samples),
        "chunk": chunk,
        "save_adv": save_adv,
    }
    if max_queries is not None:
        settings["max_queries"] = max_queries
    if threat.eps is None:
        settings["minimal"] = True
    return settings


def _opened(
    folder: Path, settings: Settings, group: Group, place: torch.device, *, resume: bool, overwrite: bool
) -> Store:
    """The run: the first process begins it, or takes it up; the others come to it."""
    if group.rank == 0:
        around = prepare.environment(place)
        return Store.begin(folder, settings, around, resume=resume, overwrite=overwrite)
    store = join(folder)
    store.agree(settings)
    return store


@contextlib.contextmanager
def _noted(
    store: Store, meter: Metered | None, display: Display, began: float, group: Group, temporary: bool
) -> Iterator[None]:
    """Write down that the run was interrupted, and say how to go on."""
    try:
        yield
    except BaseException as error:
        if group.rank == 0 and store.run["state"] != "done":
            _count(store, meter)
            with contextlib.suppress(StoreError):  # the disk may be what failed
                store.update(state="interrupted", seconds=time.monotonic() - began)
        if not temporary:
            total = len(store.stages) * len(store.chunks)
            kept = total - len(missing(store))
            how = "interrupted" if isinstance(error, KeyboardInterrupt) else "stopped by an error"
            display.say(f"{how}: {kept} of {total} shards are kept in {store.path}; continue with --resume.")
        raise


@contextlib.contextmanager
def _removed_on_failure(folder: Path, temporary: bool) -> Iterator[None]:
    try:
        yield
    except BaseException:
        if temporary:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _count(store: Store, meter: Metered | None) -> None:
    """Note what the model was asked in all attempts."""
    if meter is not None:
        store.run["queries"] = {"total": meter.total, "spent": meter.spent}


def _finish(
    store: Store,
    suite: Suite,
    threat: Threat,
    flags: list[Flag],
    seconds: float,
    group: Group,
    meter: Metered | None,
    temporary: bool,
) -> Evaluation:
    table = store.merge()
    shards = [[store.read_shard(stage, start) for start, _ in store.chunks] for stage in store.stages[1:]]
    flags = [*flags, *(checks.nearest(shards, suite) if store.minimal else checks.outcome(table, suite))]
    cut = sum(int((shard.columns["success"] == 0).sum()) for own in shards for shard in own if shard.partial)
    _count(store, meter)
    if cut:
        flags.append(checks.spent(store, cut))
    aside = store.corrupt()
    if aside:
        more = f" and {len(aside) - 1} more" if len(aside) > 1 else ""
        flags.append(Flag.of("damaged-shard", f"damaged, and set aside: {aside[0]}{more}."))
    eps = threat.eps if isinstance(threat.eps, float) else None
    numbers = results(store, table, shards, eps, flags, whole=threat.name == "l0")
    if group.rank == 0:
        store.update(state="stopped" if cut else "done", results=numbers, seconds=seconds)
    else:
        store = Store.open(store.path)
    return Evaluation(store, table, flags, eps=eps, temporary=temporary)
