"""A detector of inputs that a purifier changes much."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor

from assay.defenses.base import Defense, InputDefense, Model
from assay.defenses.detector import Detector
from assay.errors import SettingError


@final
class ReconstructionDetector(Detector):
    r"""Rejects inputs that a purifier changes much, and answers about what it makes of the others.

    The statistic is the mean square of the change, `1/d ||T(x) - x||_2^2`. Its gradient is exact where the purifier's
    is. Of others T(x) counts as constant, which is exact for Defense-GAN too: its image is the nearest of its
    generator, and the distance to the nearest point does not change in first order when that point moves.

    Args:
        defense: the purifier, `DefenseGAN(...)` or another defense in front of the model.
        thresholds: the largest mean square that is let through; `calibrate` finds it.

    Raises:
        SettingError: the defense is none in front of the model; on a call, there is no threshold.

    References:
        Samangouei, Kabkab, Chellappa, "Defense-GAN: protecting classifiers against adversarial attacks using generative
        models", ICLR 2018, https://arxiv.org/abs/1805.06605

    Example:
        >>> import torch
        >>> from assay.defenses import BitDepth
        >>> detector = ReconstructionDetector(BitDepth(1), thresholds=(0.05,))
        >>> x = torch.tensor([[0.1, 0.9], [0.4, 0.6]])
        >>> detector(lambda x: x, x).argmax(dim=1)
        tensor([1, 2])
    """

    def __init__(self, defense: Defense, thresholds: tuple[float, ...] = ()) -> None:
        super().__init__()
        if not isinstance(defense, InputDefense):
            raise SettingError(
                f"ReconstructionDetector takes a defense in front of the model, such as DefenseGAN(...); got "
                f"{defense!r}."
            )
        self.defense = defense
        self.thresholds = self.checked(thresholds)
        self.stochastic, self.differentiable = defense.stochastic, defense.differentiable
        self.gradient = "exact" if defense.gradient == "exact" else "surrogate"

    @property
    def statistics(self) -> tuple[str, ...]:
        """What the statistic is called."""
        return ("squared error",)

    def judged(self, model: Model, x: Tensor) -> tuple[Tensor, Any]:
        """The mean square of the change, and the model's answer."""
        shown = self.defense.shown(x)
        fixed = shown if self.gradient == "exact" else shown.detach()
        if fixed.shape != x.shape:
            raise SettingError(f"{self.defense!r} changes the shape of inputs, so that no change of values is told.")
        return (x - fixed).square().flatten(1).mean(dim=1, keepdim=True), model(shown)
