"""Models in files: torch.export programs, TorchScript, ONNX, and clear words for files that hold no program."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from assay.errors import ModelError
from assay.models.adapters import Exported


def read_exported(path: Path, device: torch.device) -> nn.Module:
    """A program saved by ``torch.export.save``.

    Pickled objects in it are refused, but a program is still code, which torch evaluates: read only those you trust.

    Args:
        path: the .pt2 file.
        device: where it will run; a program is rewritten for it.

    Raises:
        ModelError: not such a file, it holds pickled objects, or the program takes more than one input.
    """
    _refuse_objects(path)
    try:
        with warnings.catch_warnings(), _tensors_only():
            warnings.simplefilter("ignore")
            program = torch.export.load(path)
            if device.type != "cpu":
                from torch.export.passes import move_to_device_pass

                program = move_to_device_pass(program, device)
            module: Any = program.module()
    except pickle.UnpicklingError as refused:
        raise ModelError(f"{path} {_PICKLED}") from refused
    except Exception as unreadable:
        if isinstance(unreadable.__cause__ or unreadable.__context__, pickle.UnpicklingError):
            raise ModelError(f"{path} {_PICKLED}") from unreadable
        raise ModelError(
            f"cannot read {path} as a torch.export program ({_first_line(unreadable)}). Write it with "
            "torch.export.save(torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('b')},)), path)."
        ) from unreadable
    names = program.graph_signature.user_inputs
    if len(names) != 1:
        raise ModelError(f"{path} takes {len(names)} inputs ({', '.join(map(str, names))}); one is needed.")
    shape = next(node.meta["val"].shape for node in program.graph.nodes if node.name == names[0])
    exported = Exported(module, shape[0] if isinstance(shape[0], int) else None)
    exported.file_digest = file_digest(path)
    return exported


def read_torchscript(path: Path, device: torch.device) -> nn.Module:
    """A module saved by ``torch.jit.save``.

    Args:
        path: the file.
        device: where its weights go.

    Raises:
        ModelError: the file holds something else: the message says what, and what to do.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module: nn.Module = torch.jit.load(path, map_location=device)  # type: ignore[no-untyped-call]
        module.file_digest = file_digest(path)  # type: ignore[assignment]  # a module holds any attribute
    except (RuntimeError, ValueError, OSError) as unreadable:
        raise ModelError(f"{path} {_contents(path, unreadable)}") from unreadable
    return module


def read_onnx(path: Path, device: torch.device) -> nn.Module:
    """An ONNX file as a scores-only target.

    Args:
        path: the file.
        device: where it will run.

    Raises:
        MissingExtraError: ``onnxruntime`` is not installed.
        ModelError: the file cannot be used.
    """
    from assay.models.onnx import OnnxModel

    return OnnxModel(path, device)


def refuse_weights(path: Path, device: torch.device) -> nn.Module:
    """Say that a file of weights is no model.

    Args:
        path: the file.
        device: unused: nothing is loaded.

    Raises:
        ModelError: always.
    """
    raise ModelError(f"{path} holds weights without their network. {_BY_CALLABLE}")


_BY_CALLABLE = (
    "Write a function that builds the network and loads them, and name it: package.module:function; "
    "or save the program itself with torch.export.save (.pt2)."
)

_PICKLED = f"holds pickled Python objects, which are not loaded: they can run any code. {_BY_CALLABLE}"
_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_UNFORCED = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"  # torch refuses to have both


def file_digest(path: Path) -> str:
    """Hash of a model's file, which tells apart programs whose weights are the same or out of reach.

    Args:
        path: the file.
    """
    found = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            found.update(part)
    return found.hexdigest()


READERS: dict[str, Callable[[Path, torch.device], nn.Module]] = {
    ".pt2": read_exported,
    ".pt": read_torchscript,
    ".pth": read_torchscript,
    ".ts": read_torchscript,
    ".torchscript": read_torchscript,
    ".onnx": read_onnx,
    ".safetensors": refuse_weights,
}


@contextlib.contextmanager
def _tensors_only() -> Iterator[None]:
    """Hold torch.load to tensors, also where its caller asks for any object, as torch.export.load does."""
    before = {name: os.environ.pop(name, None) for name in (_FORCED, _UNFORCED)}
    os.environ[_FORCED] = "1"
    try:
        yield
    finally:
        del os.environ[_FORCED]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _refuse_objects(path: Path) -> None:
    """Refuse a program with constants that are no tensors: those are unpickled without asking torch.load."""
    with contextlib.suppress(OSError, zipfile.BadZipFile), zipfile.ZipFile(path) as archive:
        if any("/custom_obj" in name or "/opaque_obj" in name for name in archive.namelist()):
            raise ModelError(f"{path} {_PICKLED}")


def _contents(path: Path, failure: Exception) -> str:
    """What a file that is no TorchScript holds, and what to do."""
    if not zipfile.is_zipfile(path):
        return f"is neither TorchScript nor a file of weights ({_first_line(failure)}). {_BY_CALLABLE}"
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        return _PICKLED
    except Exception:
        return f"cannot be read as TorchScript ({_first_line(failure)}). {_BY_CALLABLE}"
    keys = ", ".join(list(found)[:3]) if isinstance(found, dict) else type(found).__name__
    return f"holds weights ({keys}, ...) without their network. {_BY_CALLABLE}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
