"""The interface of defenses that reject inputs by statistics, and their thresholds."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from assay.defenses.base import Defense, Model, with_rejection
from assay.errors import SettingError
from assay.transformations.base import check_range


class Detector(Defense):
    """A defense that rejects an input where one of its statistics exceeds the threshold of it.

    `z_{K+1} = max_i z_i + max_k (s_k(x) - t_k) / t_k`

    Attributes:
        thresholds: one for each statistic, above 0; empty until `calibrate` has found them.
    """

    rejects = True
    thresholds: tuple[float, ...] = ()

    @property
    @abstractmethod
    def statistics(self) -> tuple[str, ...]:
        """What each statistic is called."""

    @abstractmethod
    def judged(self, model: Model, x: Tensor) -> tuple[Tensor, Any]:
        """The statistics of each input, and the model's answer without a rejection.

        Shapes:
            `(b, k)`, larger where an input is more suspicious, and `(b, classes)`
        """

    def forward(self, model: Model, x: Tensor) -> Tensor:
        """The answer, with one output more, which wins where the input is rejected."""
        if not self.thresholds:
            raise SettingError(
                f"{self!r} has no thresholds yet: `assay calibrate MODEL --data DATA --defense ...`, or "
                "assay.calibrate(model, data, defense), finds them."
            )
        scores, logits = self.judged(model, x)
        limits = scores.new_tensor(self.thresholds)
        return with_rejection(logits, ((scores - limits) / limits).amax(dim=1))

    def checked(self, thresholds: Sequence[float]) -> tuple[float, ...]:
        """The thresholds, where there is one above 0 for each statistic, or none at all.

        Raises:
            SettingError: it is otherwise.
        """
        found = tuple(check_range(type(self).__name__, "thresholds", each, 0, float("inf")) for each in thresholds)
        if found and (len(found) != len(self.statistics) or min(found) <= 0):
            raise SettingError(
                f"thresholds of {type(self).__name__} has one number above 0 for each of {', '.join(self.statistics)}; "
                f"got {thresholds!r}."
            )
        return found

    def calibrated(self, scores: Iterable[Tensor], drop: float) -> Self:
        """This defense with the thresholds that this share of some inputs exceeds, for each statistic by itself.

        Args:
            scores: statistics of inputs that nobody has attacked, and that nothing was trained on; `(b, k)` each.
            drop: the share, from 0 to below 1; whole inputs, rounded down.

        Raises:
            SettingError: the share is out of range.
        """
        if not 0 <= drop < 1:
            raise SettingError(f"drop must lie in [0, 1); got {drop!r}.")
        ordered = torch.cat(list(scores)).sort(dim=0, descending=True).values
        found = copy.copy(self)
        found.thresholds = self.checked(ordered[int(drop * len(ordered))].tolist())
        return found
