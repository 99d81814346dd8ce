"""Pretrained models of optional packages, with the normalisation that each was trained with."""

from __future__ import annotations

from typing import Any

from torch import nn

from assay.errors import ModelError
from assay.importing import near, optional, options
from assay.models.adapters import Normalized


def read_torchvision(spec: str) -> nn.Module:
    """Load ``torchvision:NAME``.

    Args:
        spec: "torchvision:NAME"; ``?weights=IMAGENET1K_V1`` chooses among several, the best ones by default.

    Raises:
        MissingExtraError: ``torchvision`` is not installed.
        ModelError: unknown name or weights.
    """
    name, chosen = options(spec.removeprefix("torchvision:"), ("weights",), ModelError)
    models = optional("torchvision", "torchvision", f"MODEL {spec!r}").models
    if name not in models.list_models():
        raise ModelError(f"torchvision has no model {name!r}.{near(name, models.list_models())}")
    offered = models.get_model_weights(name).__members__
    wanted = chosen.get("weights", "DEFAULT")
    if wanted not in offered:
        raise ModelError(f"torchvision has no weights {wanted!r} for {name}; there are {', '.join(offered) or 'none'}.")
    try:
        model = models.get_model(name, weights=offered[wanted])
    except Exception as failed:
        raise _failed(spec, failed) from failed
    transform = offered[wanted].transforms()
    return _normalized(model, getattr(transform, "mean", None), getattr(transform, "std", None), spec)


def read_timm(spec: str) -> nn.Module:
    """Load ``timm:NAME``.

    Args:
        spec: "timm:NAME", also with a tag: "timm:resnet18.a1_in1k".

    Raises:
        MissingExtraError: ``timm`` is not installed.
        ModelError: unknown name, or the weights cannot be had.
    """
    name = spec.removeprefix("timm:")
    timm = optional("timm", "timm", f"MODEL {spec!r}")
    known = timm.list_models()
    if name.partition(".")[0] not in known:
        raise ModelError(f"timm has no model {name!r}.{near(name, known)}")
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as failed:
        raise _failed(spec, failed) from failed
    return _normalized(model, model.pretrained_cfg["mean"], model.pretrained_cfg["std"], spec)


def read_hf(spec: str) -> nn.Module:
    """Load the image classifier ``hf:NAME`` from the Hugging Face hub, or from a folder.

    Args:
        spec: "hf:NAME".

    Raises:
        MissingExtraError: ``transformers`` is not installed.
        ModelError: it is no image classifier, or cannot be had.
    """
    name = spec.removeprefix("hf:")
    transformers = optional("transformers", "hf", f"MODEL {spec!r}")
    try:
        model = transformers.AutoModelForImageClassification.from_pretrained(name)
        processor = transformers.AutoImageProcessor.from_pretrained(name)
    except Exception as failed:
        raise _failed(spec, failed) from failed
    if not getattr(processor, "do_normalize", False):
        return _normalized(model, [0.0], [1.0], spec)
    return _normalized(model, processor.image_mean, processor.image_std, spec)


def _normalized(model: Any, mean: Any, std: Any, spec: str) -> nn.Module:
    try:
        return Normalized(model, list(mean), list(std))
    except TypeError as wrong:
        raise ModelError(f"{spec!r} does not say how its inputs are normalised (mean {mean!r}).") from wrong


def _failed(spec: str, failed: Exception) -> ModelError:
    return ModelError(f"loading {spec!r} failed: {type(failed).__name__}: {failed}")
