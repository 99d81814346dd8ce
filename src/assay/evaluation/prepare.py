"""What a run starts from, read and checked: folder, threat, data, model, suite, and where it runs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import assay
from assay import grammar
from assay.attacks import Attack
from assay.data import Data, load_data
from assay.errors import AssayError, InputError, ModelError, QueriesSpent, SettingError, ThreatError
from assay.evaluation import aims, checks, defended
from assay.evaluation.flags import Flag
from assay.evaluation.folder import RUN, check
from assay.evaluation.ranks import Group
from assay.evaluation.schema import Environment
from assay.evaluation.stages import Suite
from assay.evaluation.store import Store
from assay.evaluation.suites import fit, load_suite
from assay.goals import Untargeted
from assay.inputs import check_classes, check_inputs
from assay.models.metered import Metered
from assay.oracle import Access, granted_access, is_stochastic, rejected_output
from assay.threats import Threat

_CHUNK = 1000  # samples in a shard at most
_PARTS = 4  # chunks at least, where there are samples enough: progress and processes need some
_FEWEST = 128  # samples in a chunk, below which a model call is not filled
_MEMORY = 1 << 30  # bytes that the attacks' copies of a chunk may take
_COPIES = 12  # of the inputs that an attack holds at once


def folder(out: str | os.PathLike[str] | None, group: Group, *, resume: bool, overwrite: bool) -> tuple[Path, bool]:
    """The run directory, tried before anything is computed, and whether it is a temporary one.

    Raises:
        SettingError: A setting makes no sense without a folder, or with several ranks.
        StoreError: The folder cannot be used.
    """
    if out is None:
        if resume or overwrite:
            raise SettingError("resume and overwrite speak of a run directory: give out.")
        return Path(tempfile.mkdtemp(prefix="assay-")), True
    if overwrite and group.world > 1:
        raise SettingError("overwrite is not safe while other processes start: remove the folder or name another.")
    path = Path(out)
    if group.rank == 0:
        check(path, resume=resume, overwrite=overwrite)
    return path, False


def device(asked: str | torch.device | None, devices: int) -> torch.device | None:
    """The device that was asked for.

    Raises:
        SettingError: There is none of this name, or several processes were asked for, which have one each.
    """
    if asked is None:
        return None
    if devices > 1:
        raise SettingError("with devices each process takes a graphics card of its own: leave device out.")
    try:
        torch.empty(0, device=asked)
    except (RuntimeError, AssertionError) as error:
        raise SettingError(f"the device {str(asked)!r} cannot be used: {str(error).splitlines()[0]}") from error
    return torch.device(asked)


def threat(value: Threat | str) -> Threat:
    """The threat, read where it is text.

    Raises:
        GrammarError: The text cannot be read.
        ThreatError: It has one budget per sample.
    """
    found = grammar.threat(value) if isinstance(value, str) else value
    if not isinstance(found, Threat):
        raise ThreatError(f"the threat must be a Threat such as assay.Linf(8 / 255), or text; got {found!r}.")
    if isinstance(found.eps, torch.Tensor):
        raise ThreatError(
            "an evaluation has one eps for all samples (or none). For one per sample call an attack directly: "
            "attack(model, x, y)."
        )
    return found


def data(source: Any, name: str | None, limit: int | None, threat: Threat) -> Data:
    """The samples; those in memory are checked at once.

    Raises:
        DataError: The source cannot be read.
        InputError: Inputs lie outside the bounds, or two samples have the same number.
    """
    if isinstance(source, str):
        samples = Data.of(load_data(source, limit=limit), name=name or source)
    else:
        samples = Data.of(source, name=name).take(limit)
    if len(samples) == 0:
        raise InputError("the data holds no samples.")
    if samples.index is not None and len(set(samples.index.tolist())) < len(samples):
        raise InputError("two samples have the same index; each needs its own number, which keys its random draws.")
    if isinstance(samples.x, torch.Tensor):
        check_inputs(samples.x, threat.bounds)
    return samples


def fitted(
    model: Any,
    samples: Data,
    threat: Threat,
    suite: str | os.PathLike[str] | Sequence[tuple[str, Attack]],
    device: torch.device,
    dtype: torch.dtype | None,
    budget: float,
    goal: str,
) -> tuple[Suite, list[Flag]]:
    """The suite as this model and threat allow it, with everything that a look at the model showed.

    Raises:
        AccessError: No stage is left, or targets cannot be chosen.
        InputError: Labels are out of range.
        ModelError: The model does not take the samples, or its output cannot be used.
        SettingError: There is no such target.
    """
    x, y, _ = samples.batch(0, checks.PROBE)
    check_inputs(x, threat.bounds)
    x, y = x.to(device, dtype or x.dtype), y.to(device)
    try:
        classes, flags = checks.outputs(model, x, y, threat)
    except AssayError:
        raise
    except Exception as error:
        shape = tuple(x.shape[1:])
        raise ModelError(
            f"the model cannot take the data {samples.name!r}, inputs of shape {shape}: {error}"
        ) from error
    access = granted_access(model)
    if samples.y is not None and access > Access.LABELS:
        check_classes(Untargeted(samples.y), classes)
    decided = rejected_output(model, x)
    classes = classes if decided is None else decided
    aims.check_access(goal, access)
    if goal != aims.UNTARGETED:
        aims.check_classes(goal, classes, samples.name)
    found, fitting = fit(
        load_suite(suite, threat, budget),
        classes=classes,
        access=access,
        stochastic=is_stochastic(model),
    )
    if any(stage.attack.access is Access.GRADIENTS for stage in found.stages):
        flags += checks.gradients(model, x, y, threat)
    return found, checks.budget(threat, x.shape[1:]) + flags + fitting


def shown_twice(
    model: Any, surrogate: Any, samples: Data, suite: Suite, device: torch.device, dtype: torch.dtype | None, goal: str
) -> tuple[Suite, Any]:
    """The stages of a run that shows a defense, and what those attack that do not know of it.

    Raises:
        ModelError: It cannot be read, or does not take the samples.
        SettingError: The defense rejects, which has two readings for untargeted goals only.
    """
    x = samples.batch(0, 1)[0]
    x = x.to(device, dtype or x.dtype)
    rejects = rejected_output(model, x) is not None
    if rejects and goal != aims.UNTARGETED:
        raise SettingError("a defense that rejects inputs is shown untargeted only: leave the target out.")
    return defended.twice(suite, rejects=rejects), defended.source(model, surrogate, x)


def told(
    model: Any, surrogate: Any, source: Any, samples: Data, device: torch.device, dtype: torch.dtype | None
) -> dict[str, Any]:
    """What settings hold about a defense: what stands for rejected inputs, and what else was attacked."""
    x = samples.batch(0, 1)[0]
    rejected = rejected_output(model, x.to(device, dtype or x.dtype))
    found: dict[str, Any] = {} if rejected is None else {"rejected": rejected}
    if surrogate is not None:
        found["surrogate"] = surrogate if isinstance(surrogate, str) else type(surrogate).__name__
        found["surrogate_digest"] = digest(source)
    return found


def check_defense(defense: Any, surrogate: Any, total: int | None, devices: int) -> None:
    """Hold that what goes with a defense is given with one, and that queries are not limited beside it.

    Raises:
        SettingError: They do not go together.
    """
    if surrogate is not None and defense is None:
        raise SettingError("a surrogate is for the attacks that do not know of a defense: give the defense.")
    if defense is not None and total is not None:
        raise SettingError("half of a defense's attacks ask another model: leave total_queries out.")
    if devices > 1 and surrogate is not None and not isinstance(surrogate, str):
        raise SettingError("with devices the surrogate is given by name, as model and data are.")


def chunk(asked: int | None, samples: Data, processes: int, resumed: Path | None) -> int:
    """Samples in a shard: as asked for, as in the run that is continued, or by size.

    Raises:
        SettingError: Less than one was asked for.
    """
    if asked is not None:
        if asked < 1:
            raise SettingError(f"chunk must be at least 1; got {asked}.")
        return asked
    if resumed is not None and (resumed / RUN).exists():
        return Store.open(resumed).run["settings"]["chunk"]
    x, _ = samples[0]
    fitting = _MEMORY // (_COPIES * max(1, x.numel()) * 4)
    wanted = max(_FEWEST, -(-len(samples) // max(_PARTS, 2 * processes)))
    return max(1, min(_CHUNK, fitting, wanted))


def check_queries(each: int | None, total: int | None, processes: int) -> None:
    """Hold that limits of queries can be kept.

    Raises:
        SettingError: One is too small, or several processes would have to share a total.
    """
    if each is not None and each < 2:
        raise SettingError(f"max_queries must be at least 2, the clean input's answer and one more; got {each}.")
    if total is not None and processes > 1:
        raise SettingError("a total of queries is counted in one process: leave devices at 1, and torchrun out.")


def meter(model: Any, total: int | None, processes: int) -> Metered | None:
    """What counts the questions to a model that gives no gradients, or has a total; None where nothing is counted.

    Raises:
        SettingError: The total is below 1.
    """
    if processes > 1 or (total is None and granted_access(model) is Access.GRADIENTS):
        return None
    return Metered(model, total)


@contextlib.contextmanager
def counting_on(meter: Metered | None, folder: Path, *, resume: bool) -> Iterator[None]:
    """Count on from what a continued run has cost already, before its model is looked at again: looks count too.

    Raises:
        QueriesSpent: The total does not reach for the look; the run is left as it was, but for what was asked.
    """
    if meter is None or not resume or not (folder / RUN).exists():
        yield
        return
    store = Store.open(folder)
    meter.spent += (before := store.spent())
    try:
        yield
    except QueriesSpent:
        if meter.spent > before:
            store.run["queries"] = {"total": meter.total, "spent": meter.spent}
            store.update(state=store.run["state"], results=store.run["results"])
        raise


def keeps(model: Any, total: int | None, store: Store) -> bool:
    """Whether answers are kept while a chunk is worked on: they are dear, or limited, or some were kept before.

    Gradients cannot be kept.
    """
    if granted_access(model) is Access.GRADIENTS:
        return False
    parts = model.modules() if isinstance(model, nn.Module) else ()
    remote = any(getattr(part, "remote", False) for part in parts)
    return remote or total is not None or store.journal_path(0).parent.exists()


def digest(model: Any) -> str:
    """Short hash of what the model is made of: parameters, buffers, and the file that `load_model` read it from."""
    found = hashlib.sha256(type(model).__qualname__.encode())
    if isinstance(model, nn.Module):
        for name, tensor in model.state_dict().items():
            if isinstance(tensor, torch.Tensor):
                plain = tensor.int_repr() if tensor.is_quantized else tensor
                found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                found.update(plain.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        for part in model.modules():
            found.update(getattr(part, "file_digest", "").encode())
    return found.hexdigest()[:16]


def environment(device: torch.device) -> Environment:
    """Versions and machine, as they are now."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu"
    return {
        "assay": assay.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "device": f"{device.type} ({name})",
        "platform": platform.platform(),
        "commit": _commit(),
        "threads": torch.get_num_threads(),
    }


def _commit() -> str | None:
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
