"""``load_model``: what each way of naming a model stands for."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from assay import registry
from assay.errors import ModelError
from assay.importing import named_object, near
from assay.models import saved, zoo
from assay.models.defended import is_defended, read_defended
from assay.models.ensemble import Ensemble, EnsembleSpec, is_ensemble
from assay.models.estimators import Estimator, is_estimator, read_sklearn
from assay.models.http_model import read_http
from assay.models.limited import LimitedSpec, is_limited, limited

_FORMS = (
    "a zoo name ({names}), package.module:callable, the folder of a training run, a file (.pt2 of torch.export, .pt or "
    ".ts of TorchScript, .onnx), "
    "torchvision:NAME, timm:NAME, hf:NAME, sklearn:FILE, http://host:port/path, a view of one of these, such as "
    "LabelsOnly('MODEL'), several as one: Ensemble('MODEL', 'MODEL'), or one with a defense: Defended('MODEL', DEFENSE)"
)


def load_model(spec: str, *, device: str | torch.device = "cpu") -> nn.Module:
    """Load a model by name, in eval mode and on the device.

    Args:
        spec: a zoo name ("fashion-cnn"), "package.module:callable" (called without arguments, returns a module or a
            classifier of scikit-learn), the folder of a training run ("runs/t"), the path of a .pt2, TorchScript or
            .onnx file, "torchvision:NAME", "timm:NAME", "hf:NAME", "sklearn:FILE?trust=yes", "http://host:port/path",
            or a view of one of these: "LabelsOnly('MODEL')", "TopK('MODEL', 3)", "Rounded('MODEL', 2)", several of
            them as one: "Ensemble('MODEL', 'MODEL')", or one with a defense: "Defended('MODEL', BitDepth(bits=3))".
        device: where it goes.

    Raises:
        ModelError: unknown name, unreadable file, or something that is no model.
        MissingExtraError: the form needs a package that is not installed.
        GrammarError: a view cannot be read.

    Example:
        >>> model = load_model("digits-mlp")
        >>> model(torch.zeros(1, 1, 8, 8)).shape, model.training
        (torch.Size([1, 10]), False)
    """
    target = torch.device(device)
    path = Path(spec).expanduser()
    if is_limited(spec):
        inner, views = LimitedSpec(spec).parts()
        model = limited(load_model(inner, device=device), views)
    elif is_defended(spec):
        model = read_defended(spec, lambda inner: load_model(inner, device=device))
    elif is_ensemble(spec):
        members, settings = EnsembleSpec(spec).parts()
        model = Ensemble(*[load_model(member, device=device) for member in members], **settings)
    elif spec in zoo.names():
        model = zoo.load(spec)
    elif spec.startswith(("torchvision:", "timm:", "hf:")):
        model = _from_hub(spec)
    elif spec.startswith("sklearn:"):
        model = read_sklearn(spec)
    elif spec.startswith(("http://", "https://")):
        model = read_http(spec)
    elif spec.strip() and path.is_dir():
        model = saved.load(path)
    elif path.suffix.lower() in _suffixes():
        model = _from_file(path, target)
    elif ":" in spec and "/" not in spec and "\\" not in spec:
        model = _called(spec)
    elif registry.find("network", spec.partition("(")[0].strip()):
        raise ModelError(
            f"{spec!r} is a network that nobody has trained, so it is no MODEL. `assay train` trains it, and the "
            "folder that its --out names is one."
        )
    else:
        raise ModelError(f"no model named {spec!r}.{near(spec, zoo.names())} {_forms()}")
    return model.to(target).eval()


def recorded(spec: str) -> str:
    """The MODEL without what has no influence on results: how a server is asked.

    Args:
        spec: as for `load_model`.

    Example:
        >>> recorded("LabelsOnly('http://localhost:8000/predict#rate=5')")
        "LabelsOnly('http://localhost:8000/predict')"
    """
    return re.sub(r"(https?://[^'\"#]*)#[^'\"]*", r"\1", spec)


def _forms() -> str:
    return f"MODEL is {_FORMS.format(names=', '.join(zoo.names()))}."


def _suffixes() -> list[str]:
    from assay.models.files import READERS

    return list(READERS)


def _from_hub(spec: str) -> nn.Module:
    from assay.models import hubs

    scheme = spec.partition(":")[0]
    return {"torchvision": hubs.read_torchvision, "timm": hubs.read_timm, "hf": hubs.read_hf}[scheme](spec)


def _from_file(path: Path, device: torch.device) -> nn.Module:
    from assay.models.files import READERS

    if not path.is_file():
        raise ModelError(f"no file {path}. {_forms()}")
    return READERS[path.suffix.lower()](path, device)


def _called(spec: str) -> nn.Module:
    found = named_object(spec, ModelError)
    made = found
    if not isinstance(found, nn.Module) and not is_estimator(found):
        if not callable(found):
            raise ModelError(f"{spec!r} is a {type(found).__name__}; name a function that returns a module.")
        try:
            made = found()
        except (Exception, SystemExit) as failed:
            raise ModelError(f"calling {spec!r} failed: {type(failed).__name__}: {failed}") from failed
    if is_estimator(made):
        made = Estimator(made)
    if not isinstance(made, nn.Module):
        raise ModelError(
            f"{spec!r} returned a {type(made).__name__}; it has to return a torch.nn.Module or a fitted classifier of "
            "scikit-learn. For a function that answers with labels or scores return assay.models.Function(f, "
            "access='labels') of it."
        )
    return made
