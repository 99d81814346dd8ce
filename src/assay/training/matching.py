"""Whether a network, its recipe and data go together, found out before training."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from assay.data import Data
from assay.errors import AssayError, ModelError, SettingError
from assay.goals import Untargeted
from assay.inputs import check_classes, check_inputs
from assay.threats import Threat
from assay.training.recipes import GenerativeRecipe
from assay.training.recipes.base import mode
from assay.training.workers import Workers


def number_of_classes(
    model: nn.Module, name: str, samples: Iterable[Data], threats: Sequence[Threat], workers: Workers
) -> int:
    """The number of classes that the network knows, once it is known that it takes these data.

    Args:
        model: the network.
        name: what messages call it.
        samples: all data that it is trained on.
        threats: whose bounds inputs keep; [0, 1] without any.
        workers: device and precision.

    Raises:
        InputError: inputs are out of bounds, or labels beyond the classes.
        ModelError: the network cannot take them, or returns no logits.
    """
    classes = 0
    for data in samples:
        x, y, _ = data.batch(0, 2)
        for bounds in dict.fromkeys([threat.bounds for threat in threats] or [(0.0, 1.0)]):
            check_inputs(data.x if isinstance(data.x, Tensor) else x, bounds)
        try:
            with mode(model, train=False), torch.no_grad():
                output = model(x.to(workers.device, workers.dtype))
        except AssayError:
            raise
        except Exception as error:
            raise ModelError(
                f"the network {name} cannot take the data {data.name!r}, inputs of shape {tuple(x.shape[1:])}: {error}"
            ) from error
        if not isinstance(output, Tensor) or output.ndim != 2:
            raise ModelError(f"the network {name} must return logits of shape (batch, classes).")
        check_classes(Untargeted(y if data.y is None else data.y), output.shape[1])
        classes = output.shape[1]
    return classes


def check_generative(
    model: nn.Module, name: str, samples: Iterable[Data], recipe: GenerativeRecipe, workers: Workers
) -> None:
    """Hold that a recipe can train a network that is no classifier, on these data.

    Args:
        model: the network.
        name: what messages call it.
        samples: all data that it is trained on.
        recipe: how.
        workers: device and precision.

    Raises:
        InputError: inputs are out of [0, 1].
        ModelError: the network is of another kind, or does not go with the data.
    """
    if not isinstance(model, recipe.trains):
        raise ModelError(
            f"{type(recipe).__name__} trains networks of the kind {recipe.trains.__name__}, and {name} is none. "
            "`assay list networks` names some."
        )
    for data in samples:
        x = data.batch(0, 2)[0]
        check_inputs(data.x if isinstance(data.x, Tensor) else x, (0.0, 1.0))
        try:
            with mode(model, train=False), torch.no_grad():
                recipe.check(model, x.to(workers.device, workers.dtype))
        except AssayError:
            raise
        except Exception as error:
            raise ModelError(
                f"the network {name} cannot take the data {data.name!r}, inputs of shape {tuple(x.shape[1:])}: {error}"
            ) from error


def check_teacher(
    teacher: nn.Module, name: str, data: Data, threats: Sequence[Threat], classes: int | None, workers: Workers
) -> None:
    """Hold that a teacher takes the data and answers for the classes of the network that learns from it.

    Args:
        teacher: the model that it learns from, on the device.
        name: what messages call it.
        data: what is trained on.
        threats: whose bounds inputs keep; [0, 1] without any.
        classes: how many the network knows; None for one that is no classifier.
        workers: device and precision.

    Raises:
        ModelError: it cannot take the data, or returns no logits.
        SettingError: it knows another number of classes.
    """
    known = number_of_classes(teacher, name, (data,), threats, workers)
    if classes is not None and known != classes:
        raise SettingError(
            f"the teacher {name} answers for {known} classes, the network for {classes}: they must agree."
        )
