"""Defensive distillation."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from assay.errors import SettingError
from assay.threats.additive import widened
from assay.training.ranges import check_range
from assay.training.recipes.base import Batch, Recipe, Views, mode
from assay.training.recipes.standard import Standard


@final
@dataclass(frozen=True, kw_only=True)
class Distillation(Recipe):
    """Defensive distillation: the mean of `-sum_k p_k(x) log softmax(z(x) / T)_k` with `p = softmax(teacher(x) / T)`.

    The teacher is a network that learned the labels at the same temperature T. The student is used at temperature 1,
    where its logits are T times as large as it learned them: probabilities are then 0 and 1 up to rounding. It learns
    no labels: smoothed and mixed ones count for a teacher that is trained first, and for none that is there already.

    Kept for study: this hides gradients and moves no decision away from the inputs. Attacks on the logits find as many
    adversarial examples as for any other network.

    Args:
        temperature: T.
        teacher: the model that gives the targets; one is trained first with `Standard(temperature=T)` when None.

    Raises:
        SettingError: the temperature is not positive; in `prepare`, no teacher was handed over.

    Deviations:
        The teacher answers in eval mode on the images as the student gets to see them, augmented, where the paper
        computes its answers once.

    References:
        Papernot, McDaniel, Wu, Jha, Swami, "Distillation as a defense to adversarial perturbations against deep neural
        networks", S&P 2016, https://arxiv.org/abs/1511.04508
        Carlini, Wagner, "Defensive distillation is not robust to adversarial examples", 2016,
        https://arxiv.org/abs/1607.04311

    Example:
        >>> Distillation(temperature=20).first()
        Standard(temperature=20)
    """

    temperature: float = 100.0
    teacher: str | None = None
    _model: nn.Module | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_range(self, "temperature", above=True)

    def first(self) -> Recipe | None:
        """Training on the labels at the same temperature, unless there is a teacher."""
        return Standard(temperature=self.temperature) if self.teacher is None and self._model is None else None

    def with_teacher(self, model: nn.Module) -> Recipe:
        """This recipe with the answers of that model as targets."""
        taught = copy.copy(self)
        object.__setattr__(taught, "_model", model)
        return taught

    def prepare(self, model: nn.Module, batch: Batch) -> Views:
        """The teacher's answers."""
        if self._model is None:
            raise SettingError("Distillation needs its teacher's network: hand it over by `with_teacher(network)`.")
        with mode(self._model, train=False), torch.no_grad():
            return {"answers": (widened(self._model(batch.x)) / self.temperature).softmax(dim=1)}

    def loss(self, model: nn.Module, batch: Batch, views: Views) -> Tensor:
        """Cross-entropy with the teacher's answers at the temperature."""
        return F.cross_entropy(widened(model(batch.x)) / self.temperature, views["answers"])
