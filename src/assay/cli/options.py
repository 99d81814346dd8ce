"""Options that several commands share, and what they stand for."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from assay import registry
from assay.errors import AssayError, ModelError, SettingError, StoreError, ThreatError

if TYPE_CHECKING:
    from torch import nn

    from assay import data
    from assay.threats import Threat as AnyThreat

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A zoo name, the folder of a training run, package.module:callable, a .pt2, TorchScript or .onnx file, "
        "torchvision:, timm: or hf:NAME, sklearn:FILE, http://host:port/path.",
    ),
]
Data = Annotated[
    str,
    typer.Option(metavar="DATA", help="A name, folder:PATH, npz:PATH, idx:FOLDER, hf:NAME or package.module:callable."),
]
Threat = Annotated[
    str | None,
    typer.Option(
        metavar="THREAT",
        help="What the attacker may change: linf:8/255, l2:0.5, l1:12, l0:20; without a number: the smallest.",
    ),
]
Limit = Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the first N samples.")]
Targeted = Annotated[
    str | None,
    typer.Option(metavar="TARGET", help="Lead to one class: random, next, least-likely, or a class number."),
]
Seed = Annotated[int, typer.Option(help="Key of every random draw.")]
MaxQueries = Annotated[
    int | None,
    typer.Option("--max-queries", min=1, metavar="Q", help="Model evaluations allowed per sample, of each attack."),
]
TotalQueries = Annotated[
    int | None,
    typer.Option(
        "--total-queries",
        min=1,
        metavar="N",
        help="Model evaluations allowed in all; then the run stops and keeps what it found.",
    ),
]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, metavar="K", help="Show the attacks the K highest scores.")]
Decimals = Annotated[
    int | None, typer.Option("--decimals", min=1, max=15, metavar="D", help="Show them probabilities with D decimals.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no table.")]


class Granted(str, Enum):
    """What a model may be asked for, where it is less than it could tell."""

    labels = "labels"
    scores = "scores"


Access = Annotated[
    Granted | None,
    typer.Option("--access", help="Let the attacks see labels or scores only, whatever the model gives."),
]


class DeviceName(str, Enum):
    """Where to compute; auto is CUDA where there is some."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


Device = Annotated[DeviceName, typer.Option(help="Where to compute; auto takes CUDA where there is some.")]


def device(name: DeviceName) -> str:
    """The name that torch knows; under torchrun each process has a card of its own.

    Raises:
        SettingError: CUDA is asked for and there is none.
    """
    if name is DeviceName.cpu:
        return "cpu"
    from assay.evaluation.ranks import own_device

    own = own_device()
    if name is DeviceName.cuda and own.type != "cuda":
        raise SettingError("--device cuda: torch finds no CUDA device here. Use --device auto or cpu.")
    return str(own)


def canonical(kind: registry.Kind, name: str) -> str:
    """The name as the registry spells it; what the registry does not know (a path, a callable) is left as it is."""
    entry = registry.find(kind, name)
    return entry.name if entry else name


def view(spec: str, access: Granted | None, top_k: int | None, decimals: int | None) -> str:
    """The MODEL behind the views that were asked for, as `assay.load_model` reads it.

    Raises:
        BadParameter: scores are to be shown in part, and not at all.

    Example:
        >>> view("digits-mlp", None, 3, 2)
        "TopK(Rounded('digits-mlp', 2), 3)"
    """
    if access is Granted.labels and (top_k, decimals) != (None, None):
        raise typer.BadParameter("labels come without scores: leave out --top-k and --decimals", param_hint="--access")
    inner = spec if spec.endswith(")") else repr(spec)
    found = spec
    if decimals is not None:
        found = inner = f"Rounded({inner}, {decimals})"
    if top_k is not None:
        found = f"TopK({inner}, {top_k})"
    elif access is Granted.labels:
        found = f"LabelsOnly({inner})"
    elif access is Granted.scores and decimals is None:
        found = f"ScoresOnly({inner})"
    return found


def model(spec: str, device: str, data: data.Data, threat: AnyThreat) -> nn.Module:
    """Load the model onto the device, and make sure that model and data go together before the run starts.

    Data in memory are checked as a whole, others by their first sample.

    Raises:
        InputError: the inputs are not what the threat allows, or a label is none of the model's classes.
        ModelError: it cannot be loaded, or fails on the first sample.
    """
    loaded = unasked(spec, device, data, threat)
    tried(loaded, spec, device, data)
    return loaded


def unasked(spec: str, device: str, data: data.Data, threat: AnyThreat) -> nn.Module:
    """The model on the device and not yet asked about anything; the data are checked.

    Raises:
        InputError: the inputs are not what the threat allows.
        ModelError: it cannot be loaded.
    """
    import torch

    from assay.inputs import check_inputs
    from assay.models import load_model

    loaded = load_model(spec, device=device)
    check_inputs(data.x if isinstance(data.x, torch.Tensor) else data.batch(0, 1)[0], threat.bounds)
    return loaded


def tried(loaded: nn.Module, spec: str, device: str, data: data.Data) -> None:
    """Make sure that a model takes the first sample, which it is asked about.

    Raises:
        InputError: a label is none of its classes.
        ModelError: it fails.
    """
    import torch

    from assay.evaluation.chunks import placement
    from assay.goals import Untargeted
    from assay.inputs import check_classes
    from assay.oracle import Access, granted_access

    x, _, _ = data.batch(0, 1)
    place, dtype = placement(loaded, torch.device(device))
    try:
        with torch.no_grad():
            output = loaded(x.to(place, dtype or x.dtype))
    except AssayError:
        raise
    except Exception as error:
        raise ModelError(
            f"the model {spec!r} cannot take the data {data.name!r}, inputs of shape {tuple(x.shape[1:])}: {error}"
        ) from error
    logits = isinstance(output, torch.Tensor) and output.ndim == 2 and granted_access(loaded) > Access.LABELS
    if logits and output.shape[1] > 1 and data.y is not None:
        check_classes(Untargeted(data.y), output.shape[1])


def has_threat(attack: str, threat: str | None) -> None:
    """Make sure, before torch is imported, that an attack given by its name alone has a threat.

    Raises:
        ThreatError: it has none.
    """
    if threat is None and "(" not in attack:
        raise ThreatError(f"{attack} needs a threat: give --threat, for instance --threat linf:8/255.")


def writable(path: Path, option: str = "--save") -> None:
    """Make sure that the file of an option can be written, before hours are spent on its content.

    Raises:
        StoreError: it cannot.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        existed = path.exists()
        with path.open("ab"):
            pass
        if not existed:
            os.unlink(path)
    except OSError as error:
        reason = error.strerror or str(error)
        if isinstance(error, (FileExistsError, NotADirectoryError)):
            reason = f"{path.parent} is not a folder"
        raise StoreError(f"{path} cannot be written: {reason}. Choose another {option}.") from error


def listed(text: str) -> list[str]:
    """The parts between commas, those inside brackets left alone.

    Example:
        >>> listed("pgdat, TRADES(attack=PGD(steps=5), beta=3)")
        ['pgdat', 'TRADES(attack=PGD(steps=5), beta=3)']
    """
    found, depth = [""], 0
    for letter in text:
        depth += (letter in "([") - (letter in ")]")
        if letter == "," and not depth:
            found.append("")
        else:
            found[-1] += letter
    return [part.strip() for part in found if part.strip()]
