"""Trained networks in folders: the weights (`model.safetensors`) and a card of what is known about them (`model.json`).

The card says how to build the network without its weights; its other fields are those that training wrote.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from assay import registry
from assay.calls import Calls
from assay.errors import GrammarError, ModelError
from assay.files import write_atomically

CARD, WEIGHTS = "model.json", "model.safetensors"
_FORMAT = 1
_SHOWN = 3  # keys that an error lists


def save(
    folder: str | os.PathLike[str], network: str | None, state: Mapping[str, Tensor], card: Mapping[str, Any]
) -> None:
    """Write weights and card; each file is whole at every moment, and one that was there is replaced.

    Args:
        folder: where; it is made where there is none, and is a MODEL from then on.
        network: what builds the network: an expression ("PreActResNet18(classes=10)"), "package.module:callable" or
            another MODEL; None where nobody knows, so that the weights can be read but are no MODEL.
        state: `model.state_dict()`.
        card: what is known, ready for JSON: recipe, data, threat, what was measured.

    Raises:
        StoreError: the folder cannot be written.

    Example:
        >>> import tempfile
        >>> from assay.models.networks import DigitsMLP
        >>> folder = tempfile.mkdtemp()
        >>> save(folder, "DigitsMLP(hidden=5)", DigitsMLP(hidden=5).state_dict(), {"data": "digits"})
        >>> card(folder)["data"], load(folder).hidden
        ('digits', Linear(in_features=64, out_features=5, bias=True))
    """
    from safetensors.torch import save as packed

    own = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}
    content = packed(own)
    known = {**card, "format": _FORMAT, "network": network, "sha256": hashlib.sha256(content).hexdigest()}
    write_atomically(Path(folder) / WEIGHTS, content)
    write_atomically(Path(folder) / CARD, (json.dumps(known, indent=1) + "\n").encode())


def card(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """What is known about a trained network.

    Raises:
        ModelError: there is no card, or it is damaged.
    """
    path = Path(folder) / CARD
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as absent:
        raise ModelError(
            f"{os.fspath(folder)} holds no trained network: there is no {CARD} in it. `assay train --out` writes such "
            "folders."
        ) from absent
    except (OSError, ValueError) as unreadable:
        raise ModelError(f"{path} cannot be read: {unreadable}. {_AGAIN}") from unreadable
    if not isinstance(known, dict) or known.get("format") != _FORMAT:
        raise ModelError(f"{path} is no card of format {_FORMAT}, which this assay reads. {_AGAIN}")
    return known


def weights(folder: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The weights of a trained network, by their names.

    Raises:
        ModelError: the card or the weights are missing or damaged, or do not belong together.
    """
    from safetensors.torch import load as unpacked

    known, path = card(folder), Path(folder) / WEIGHTS
    try:
        content = path.read_bytes()
    except OSError as unreadable:
        raise ModelError(f"{path} cannot be read ({unreadable.strerror}). {_AGAIN}") from unreadable
    if hashlib.sha256(content).hexdigest() != known.get("sha256"):
        raise ModelError(f"{path} is damaged, or not the file that {CARD} beside it was written for. {_AGAIN}")
    found: dict[str, Tensor] = unpacked(content)
    return found


def load(folder: str | os.PathLike[str]) -> nn.Module:
    """Build a trained network and read its weights; in eval mode, in the type of the weights.

    Raises:
        ModelError: a file is missing or damaged, the card does not say how to build the network, or the weights do
            not fit.
    """
    network, state = card(folder).get("network"), weights(folder)
    if not isinstance(network, str):
        raise ModelError(
            f"{os.fspath(folder)} holds weights, but its card does not say how to build their network: it was trained "
            f'from a module. Set "network" in {Path(folder) / CARD} to "package.module:callable", a function that '
            'builds the module, or to a network of assay such as "PreActResNet18(classes=10)".'
        )
    model = _built(network, folder)
    _check_fit(model, state, network, folder)
    types = {tensor.dtype for tensor in state.values() if tensor.is_floating_point()}
    if len(types) == 1:
        model = model.to(types.pop())
    model.load_state_dict(state)
    return model.eval()


_AGAIN = "Copy the folder again, or repeat the training."


def _built(network: str, folder: str | os.PathLike[str]) -> nn.Module:
    from assay.models.defended import is_defended, read_defended
    from assay.models.load import load_model  # which reads such folders itself

    try:
        if is_defended(network):
            return read_defended(network, lambda inner: _built(inner, folder))
        if registry.find("network", network.partition("(")[0]):
            built: nn.Module = Calls(network, short=True).read(nn.Module)
            return built
        if Path(network).is_dir():
            raise ModelError(f"{network!r} is a folder; it has to be built without one.")
        return load_model(network)
    except (GrammarError, ModelError) as failed:
        raise ModelError(f"the network of {os.fspath(folder)} cannot be built: {failed}") from failed


def _check_fit(model: nn.Module, state: Mapping[str, Tensor], network: str, folder: str | os.PathLike[str]) -> None:
    wanted = model.state_dict()
    faults = {
        "the weights lack": [name for name in wanted if name not in state],
        "the network has no": [name for name in state if name not in wanted],
        "other shapes have": [
            f"{name} ({_shape(tensor)} for {_shape(wanted[name])})"
            for name, tensor in state.items()
            if name in wanted and wanted[name].shape != tensor.shape
        ],
    }
    told = [f"{lead} {_few(names)}" for lead, names in faults.items() if names]
    if told:
        raise ModelError(f"the weights in {os.fspath(folder)} do not fit {network}: {'; '.join(told)}.")


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"
